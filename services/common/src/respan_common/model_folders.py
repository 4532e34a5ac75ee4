"""What an nnU-Net v2 model folder holds, read from its JSON files alone: no network is loaded.

Three layouts are understood, all with the same content:

    models/<name>/{dataset.json, plans.json, fold_all/checkpoint_final.pth}
    nnUNetTrainer__nnUNetPlans__3d_fullres/{dataset.json, plans.json, fold_0 ... fold_4}
    Dataset001_name/nnUNetTrainer__nnUNetPlans__3d_fullres/...

The second stage of a cascade, ...__3d_cascade_fullres, needs the first, ...__3d_lowres, beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from respan_common.errors import InputError, ModelError
from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.model_files import checkpoints_of, digest_of, read_json
from respan_common.model_labels import LabelTable, label_table
from respan_common.schemes import roles_of

_REQUIRED = ("dataset.json", "plans.json")
_PREFERRED = ("3d_fullres", "3d_cascade_fullres")
"""Configurations that are taken when a dataset has several, the best first."""


@dataclass(frozen=True)
class ModelFolder:
    """One nnU-Net model that can be loaded."""

    name: str
    """Name of the folder that the user gave."""
    path: Path
    """Folder with dataset.json, plans.json and the folds."""
    configuration: str
    """nnU-Net's name of it, such as 3d_fullres or 2d."""
    checkpoints: tuple[Path, ...]
    """Weights that are averaged, one file per fold."""
    dataset: Mapping[str, Any] = field(repr=False)
    """Content of dataset.json."""
    plans: Mapping[str, Any] = field(repr=False)
    """Content of plans.json."""
    settings: Mapping[str, Any] = field(repr=False)
    """The configuration's part of the plans, inheritance resolved."""
    card: Mapping[str, Any] = field(repr=False)
    """Content of card.json; empty without one."""
    digest: str
    """SHA-256 (hex) over everything that a prediction depends on."""
    warnings: tuple[str, ...] = ()
    previous: ModelFolder | None = None
    """First stage of a cascade, whose classes the network sees besides the image."""

    @property
    def folds(self) -> tuple[str, ...]:
        """Folds in use: "all" or "0", "1", ..."""
        return tuple(path.parent.name.removeprefix("fold_") for path in self.checkpoints)

    @cached_property
    def table(self) -> LabelTable:
        """The labels in full."""
        return label_table(self.dataset, self.path / "dataset.json")

    @property
    def labels(self) -> dict[str, int]:
        """Label names and the values that are written for them; the background is 0.

        A region's value stands where no later region was painted over it.
        """
        ignored = {} if self.table.ignore is None else {"ignore": self.table.ignore}
        return {**self.table.written, **ignored}

    @property
    def classes(self) -> int:
        """Number of different values in a class image, the background included."""
        return len({0, *self.table.written.values()})

    @property
    def regions(self) -> tuple[tuple[int, ...], ...] | None:
        """Annotated values of each network output, for a model of regions; None for classes."""
        return self.table.regions

    @property
    def regions_class_order(self) -> tuple[int, ...]:
        """Value that each region leaves where it is found, painted in this order."""
        return self.table.order

    @property
    def outputs(self) -> int:
        """Channels that the network gives out: classes with the background, or regions."""
        return len(self.table.names)

    @property
    def foreground(self) -> tuple[int, ...]:
        """Annotated values without the background: what a cascade's second stage is shown."""
        return tuple(value for value in self.table.values if value != 0)

    @property
    def inputs(self) -> int:
        """Channels that the network takes: the image, and in a cascade one mask per class."""
        return 1 + (len(self.foreground) if self.previous else 0)

    @property
    def transpose(self) -> Zyx:
        """Which image axis comes first, second, third inside nnU-Net."""
        first, second, third = self.plans.get("transpose_forward", (0, 1, 2))
        return (int(first), int(second), int(third))

    @property
    def patch(self) -> Zyx:
        """Voxels of a patch in nnU-Net's own axis order; a 2d patch is one voxel thick."""
        sizes = [int(size) for size in self.settings["patch_size"]]
        first, second, third = [1] * (3 - len(sizes)) + sizes
        return (first, second, third)

    @property
    def is_2d(self) -> bool:
        """Whether the network sees single slices."""
        return len(self.settings["patch_size"]) == 2

    @property
    def spacing_um(self) -> tuple[float, float, float] | None:
        """Voxel size (z, y, x) that the network sees; None if neither plans nor card know it.

        A 2d model gives its training data's median between slices, where it does not resample.
        """
        edges = [float(edge) for edge in self.settings["spacing"]]
        return self._in_um([*self._median[: 3 - len(edges)], *edges])

    @property
    def trained_um(self) -> tuple[float, float, float] | None:
        """Median voxel size (z, y, x) of the training's images; None if nobody knows it."""
        return self._in_um(self._median)

    @property
    def _median(self) -> Sequence[float]:
        """The same, in nnU-Net's axis order and its unit."""
        default = self.settings["spacing"]
        median: Sequence[float] = self.plans.get("original_median_spacing_after_transp", default)
        return median

    def _in_um(self, edges: Sequence[float]) -> tuple[float, float, float] | None:
        """Edges in the image's axis order.

        RESPAN's training writes no voxel size, which nnU-Net reads as 1, 1, 1: then its unit is
        the voxel, whose size (`spacing_um`) the card may know.
        """
        unit: tuple[float, ...] | None = (1, 1, 1)
        if _is_unknown(self._median):
            unit = _card_spacing(self.card, self.path)
        if unit is None:
            return None
        z, y, x = (float(edges[self.transpose.index(axis)]) * unit[axis] for axis in range(3))
        return (z, y, x)

    def roles(self, scheme: int | None = None) -> dict[str, int]:
        """Class value of each structure, by label names or by RESPAN's model type.

        The type may also stand in the card, as `label_scheme`.

        Raises
        ------
        ModelError
            If a label's meaning is unknown, or the model has no class for dendrites.
        """
        scheme = scheme or self.card.get("label_scheme")
        roles = roles_of(self.labels, scheme)
        written = set(self.table.written.values())
        known = {role: value for role, value in roles.items() if value in written}
        if "dendrite" not in known:
            raise ModelError(
                f"{self.path} has {self.classes} classes, none of which is the dendrite "
                f"(value {roles['dendrite']}) of RESPAN's model type {scheme}: choose another type"
            )
        return known


def describe(folder: Path) -> ModelFolder:
    """Read and check a model folder.

    Raises
    ------
    ModelError
        If it is not one, is incomplete, or is of a kind that cannot be used; names the folder and
        the way out.
    """
    path = _trainer_folder(folder)
    try:
        return _described(folder.name, path)
    except (AttributeError, TypeError, KeyError, ValueError, IndexError) as error:
        raise ModelError(
            f"{path}: dataset.json, plans.json or card.json is not what nnU-Net and RESPAN write "
            f"({error}): copy them again"
        ) from error


def _described(name: str, path: Path, *, stages: int = 2) -> ModelFolder:
    """A model of at most so many stages."""
    dataset, plans = (read_json(path / name) for name in _REQUIRED)
    card = read_json(path / "card.json") if (path / "card.json").is_file() else {}
    configuration = _configuration(path, plans, card)
    settings = _resolved(path, plans, configuration)
    checkpoints, warnings = checkpoints_of(path)
    previous = _previous(path, settings, stages)
    model = ModelFolder(
        name=name,
        path=path,
        configuration=configuration,
        checkpoints=checkpoints,
        dataset=dataset,
        plans=plans,
        settings=settings,
        card=card,
        digest=digest_of(path, checkpoints, _facts(path, configuration, card, previous)),
        warnings=(*warnings, *(previous.warnings if previous else ())),
        previous=previous,
    )
    _check(model)
    return model


def find(root: Path) -> list[Path]:
    """Folders directly under `root` that look like a model, in name order; not yet checked.

    Names that begin with a dot are unfinished work, and no models.
    """
    if not root.is_dir():
        return []
    folders = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    return [folder for folder in folders if folder.is_dir() and _candidates(folder)]


def _trainer_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise ModelError(
            f"there is no model folder {folder}: give the folder that holds plans.json"
        )
    found = _candidates(folder)
    for configuration in _PREFERRED:
        preferred = [path for path in found if path.name.endswith(f"__{configuration}")]
        if len(found) > 1 and len(preferred) == 1:
            return preferred[0]
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise ModelError(f"{folder} holds several models ({names}): name one of them")
    if not found:
        raise ModelError(
            f"{folder} is not an nnU-Net model: neither it nor a folder in it has plans.json, "
            "dataset.json and fold_*; copy the whole result folder of the training"
        )
    return found[0]


def _candidates(folder: Path) -> list[Path]:
    """The folder itself, its children or its grandchildren: the first level that has models."""
    for level in ([folder], folder.glob("*"), folder.glob("*/*")):
        found = [path for path in sorted(level) if _looks_like_model(path)]
        if found:
            return found
    return []


def _looks_like_model(path: Path) -> bool:
    parts = [*((path / name).is_file() for name in _REQUIRED), any(path.glob("fold_*"))]
    return sum(parts) >= 2


def _configuration(path: Path, plans: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """What the folder's name or card says; else 3d_fullres; else the only one."""
    known = list(plans.get("configurations", {}))
    _, separator, from_name = path.name.rpartition("__")
    named = card.get("configuration") or (from_name if separator else "")
    if not named:
        named = _PREFERRED[0] if _PREFERRED[0] in known or len(known) != 1 else known[0]
    if named not in known:
        raise ModelError(
            f"{path / 'plans.json'} has no configuration '{named}', only "
            f"{', '.join(known) or 'none'}: plans.json belongs to another model"
        )
    return str(named)


def _resolved(path: Path, plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One configuration of the plans; what it inherits comes first and is overridden."""
    settings: dict[str, Any] = {}
    seen: set[str] = set()
    while name:
        if name in seen or name not in plans["configurations"]:
            raise ModelError(f"{path / 'plans.json'}: configuration '{name}' inherits from nowhere")
        seen.add(name)
        own = plans["configurations"][name]
        settings = {**own, **settings}
        name = own.get("inherits_from", "")
    return settings


def _previous(path: Path, settings: Mapping[str, Any], stages: int) -> ModelFolder | None:
    """First stage of a cascade: the folder of the same trainer and plans beside the second."""
    stage = settings.get("previous_stage")
    if not stage:
        return None
    path = path.absolute()
    trainer = path.name.rpartition("__")[0] or "nnUNetTrainer__nnUNetPlans"
    first = path.with_name(f"{trainer}__{stage}")
    if stages == 1:
        raise ModelError(f"{path} needs a stage before it; a cascade has two stages, no more")
    if not first.is_dir():
        raise ModelError(
            f"{path} is the second stage of a cascade and has no first stage ({stage}) beside it: "
            f"copy {first.name} of the same training to {first.parent}"
        )
    return _described(first.name, first, stages=stages - 1)


def _facts(
    path: Path, configuration: str, card: Mapping[str, Any], previous: ModelFolder | None
) -> str:
    """What a prediction or its meaning depends on besides files.

    Of the card those entries alone that change it: a corrected description is no other model.
    """
    stage = previous.digest if previous else None
    return f"{configuration}, {_card_spacing(card, path)}, {card.get('label_scheme')}, {stage}"


def _is_unknown(spacing: Iterable[float]) -> bool:
    """Whether a voxel size is what nnU-Net takes for images that have none."""
    return all(edge == 1 for edge in spacing)


def _card_spacing(card: Mapping[str, Any], path: Path) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x) in the card's words."""
    given = card.get("spacing_um")
    if given is None:
        return None
    try:
        z, y, x = (float(edge) for edge in given)
        return VoxelSpacing(z, y, x).zyx
    except (TypeError, ValueError, InputError) as error:
        raise ModelError(
            f"{path / 'card.json'}: spacing_um must be three lengths in µm (z, y, x), not {given}"
        ) from error


def _check(model: ModelFolder) -> None:
    """Refuse what would only fail, or give wrong results, later."""
    missing = {"patch_size", "spacing", "normalization_schemes"} - set(model.settings)
    if missing:
        raise ModelError(f"{model.path / 'plans.json'} lacks {', '.join(sorted(missing))}")
    channels = model.dataset.get("channel_names", model.dataset.get("modality", {}))
    if len(channels) != 1:
        raise ModelError(
            f"{model.path} expects {len(channels)} channels {channels}: "
            "only models of one channel can be used"
        )
    _ = (model.patch, model.spacing_um, model.trained_um)  # raises here, if at all
    labels = model.labels
    if model.previous is not None and model.previous.labels != labels:
        raise ModelError(
            f"{model.path} and {model.previous.path} name different labels ({labels} and "
            f"{model.previous.labels}): both stages of a cascade must come from one training"
        )
