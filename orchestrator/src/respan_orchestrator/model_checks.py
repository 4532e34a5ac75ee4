"""Everything about a model folder that can be verified without loading its networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from respan_common.errors import ModelError
from respan_common.model_folders import ModelFolder, describe
from respan_common.model_networks import architecture
from respan_orchestrator.checkpoints import Checkpoint, read_checkpoint
from respan_orchestrator.network_shapes import expected_shapes, misfit


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    subject: str
    ok: bool
    text: str
    """What was found, and the way out if it is wrong."""
    matters: bool = True
    """Whether the model cannot be used if it is wrong."""


def checks(folder: Path, scheme: int | None = None) -> Iterator[Check]:
    """Look at everything in a model folder; the first thing that is missing ends it."""
    try:
        model = describe(folder)
    except ModelError as error:
        yield Check("files", False, str(error))
        return
    folds = ", ".join(model.folds)
    yield Check("files", True, f"{model.configuration}, folds {folds}, in {model.path}")
    yield _checked("labels", partial(_structures, model, scheme))
    yield _voxel_size(model)
    for stage in _stages(model):
        yield _checked("network", partial(_network, stage))
        for path in stage.checkpoints:
            yield _checked("weights", partial(_weights, stage, path))


def refuse_useless(folder: Path) -> list[str]:
    """Warnings about a model folder that is to be called by name.

    Labels that say nothing are no obstacle: whoever uses it may say what they mean.

    Raises
    ------
    ModelError
        If no image can be segmented with it.
    """
    wrong = [check for check in checks(folder) if not check.ok]
    for check in wrong:
        if check.matters and check.subject != "labels":
            raise ModelError(check.text)
    return [check.text for check in wrong]


def _checked(subject: str, look: Callable[[], str]) -> Check:
    try:
        return Check(subject, True, look())
    except ModelError as error:
        return Check(subject, False, str(error))


def _stages(model: ModelFolder) -> Iterator[ModelFolder]:
    if model.previous is not None:
        yield model.previous
    yield model


def _structures(model: ModelFolder, scheme: int | None) -> str:
    names = {value: name for name, value in model.labels.items()}
    return ", ".join(
        f"{value} {names[value]}: {role.replace('_', ' ')}"
        for role, value in sorted(model.roles(scheme).items(), key=lambda item: item[1])
    )


def _voxel_size(model: ModelFolder) -> Check:
    if model.trained_um is None:
        text = (
            f"{model.name} does not say which voxel size it was trained at: give it with "
            "`respan models import --spacing Z,Y,X`, or each image's own is taken"
        )
        return Check("voxel size", False, text, matters=False)
    edges = " x ".join(f"{edge:g}" for edge in model.trained_um)
    return Check("voxel size", True, f"{edges} µm (z, y, x)", matters=False)


def _network(model: ModelFolder) -> str:
    network, _, _ = architecture(model)
    patch = " x ".join(str(size) for size in model.patch)
    return f"{network.rpartition('.')[2]}, patch {patch}, {model.inputs} in, {model.outputs} out"


def _weights(model: ModelFolder, path: Path) -> str:
    checkpoint = read_checkpoint(path)
    trained = checkpoint.configuration or model.configuration
    if trained != model.configuration:
        raise ModelError(
            f"{path} was trained as '{trained}', but {model.path} is taken for "
            f"'{model.configuration}': name the folder nnUNetTrainer__nnUNetPlans__{trained}"
        )
    if checkpoint.not_finite:
        raise ModelError(
            f"{path} holds weights that are no numbers ({checkpoint.not_finite[0]}): the training "
            "went astray; take an earlier checkpoint"
        )
    _check_outputs(model, path, checkpoint)
    wrong = misfit(expected_shapes(model), checkpoint.shapes)
    if wrong:
        raise ModelError(
            f"the weights of {path} do not fit the network that plans.json describes: {wrong}. "
            "Either plans.json belongs to another model, or its trainer "
            f"({checkpoint.trainer or 'unknown'}) builds a network of its own"
        )
    return f"{path.relative_to(model.path)} fits"


def _check_outputs(model: ModelFolder, path: Path, checkpoint: Checkpoint) -> None:
    """Compare what comes out first: labels that were edited are the usual fault."""
    heads = [shape for name, shape in checkpoint.shapes.items() if ".seg_layers." in name]
    outputs = {shape[0] for shape in heads if shape}
    if outputs - {model.outputs}:
        what = "regions" if model.regions else "classes with the background"
        raise ModelError(
            f"the network in {path} tells {max(outputs)} {what} apart, but "
            f"{model.path / 'dataset.json'} names {model.outputs}: copy the training's own"
        )
