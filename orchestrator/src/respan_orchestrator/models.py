"""The models that can be named: find them, choose one, describe them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from respan_common.errors import ModelError
from respan_common.geometry import VoxelSpacing
from respan_common.model_folders import ModelFolder, describe, find

_FAR_SPACING = 1.6
"""Ratio of voxel sizes beyond which a model sees an image unlike those it was trained on."""


def known_models(roots: Sequence[Path]) -> Iterator[ModelFolder]:
    """Every usable model under the model roots, in order of their names."""
    for root in roots:
        for folder in find(root):
            try:
                yield describe(folder)
            except ModelError:
                continue


def find_model(name: str, roots: Sequence[Path]) -> ModelFolder:
    """Model with a name, or in a folder.

    Raises
    ------
    ModelError
        If there is none; lists the names that exist.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return describe(folder.absolute())
    for root in roots:
        if (root / name).is_dir():
            return describe(root / name)
    names = ", ".join(model.name for model in known_models(roots)) or "none"
    raise ModelError(
        f"there is no model '{name}': it is neither a folder nor one of the known models ({names})"
    )


def nearest_model(spacing: VoxelSpacing, roots: Sequence[Path]) -> ModelFolder:
    """The known model whose training voxels are most like an image's.

    Raises
    ------
    ModelError
        If no model with a voxel size is known.
    """
    models = [model for model in known_models(roots) if model.spacing_um is not None]
    if not models:
        listed = ", ".join(str(root) for root in roots) or "no folder"
        raise ModelError(
            f"no model was named and none was found in {listed}; give one with --model NAME|DIR"
        )
    return min(models, key=lambda model: spacing_ratio(model, spacing))


def spacing_ratio(model: ModelFolder, spacing: VoxelSpacing) -> float:
    """Largest ratio, over the axes, between a model's and an image's voxel size; at least 1."""
    if model.spacing_um is None:
        return 1.0
    ratios = (
        math.log(own / image) for own, image in zip(model.spacing_um, spacing.zyx, strict=True)
    )
    return math.exp(max(abs(ratio) for ratio in ratios))


def spacing_warning(model: ModelFolder, spacing: VoxelSpacing) -> str:
    """What to tell a user whose image is sampled very differently; empty if it is not."""
    if spacing_ratio(model, spacing) <= _FAR_SPACING:
        return ""
    own = " x ".join(f"{edge:g}" for edge in model.spacing_um or ())
    image = " x ".join(f"{edge:g}" for edge in spacing.zyx)
    return (
        f"model {model.name} was trained at {own} µm (z, y, x), this image has {image} µm: "
        "expect poor results, or choose another model"
    )


def import_model(folder: Path, name: str, roots: Sequence[Path]) -> ModelFolder:
    """Copy what a prediction needs of a model folder into the first model root, under a name.

    Raises
    ------
    ModelError
        If the folder is not a usable model, the name is taken, or there is no model root.
    """
    model = describe(folder.expanduser().absolute())
    if not roots:
        raise ModelError("there is no model root to import into: set RESPAN_MODEL_ROOTS")
    target = roots[0] / (name or model.name)
    if target.parent != roots[0] or target.exists():
        raise ModelError(f"'{target.name}' cannot be imported to {target}: choose another --name")
    unfinished = target.with_name(f".{target.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    for file in (*_described_in(model.path), *model.checkpoints):
        copy = unfinished / file.relative_to(model.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    card = {**model.card, "configuration": model.configuration}
    (unfinished / "card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    unfinished.rename(target)
    return describe(target)


def _described_in(folder: Path) -> list[Path]:
    names = ("dataset.json", "plans.json", "dataset_fingerprint.json")
    return [folder / name for name in names if (folder / name).is_file()]


def summary(model: ModelFolder) -> dict[str, Any]:
    """What `respan models show` prints."""
    return {
        "name": model.name,
        "path": str(model.path),
        "kind": "nnunet",
        "labels": model.labels,
        "spacing_um": list(model.spacing_um) if model.spacing_um else None,
        "patch": list(model.patch),
        "folds": list(model.folds),
        "digest": model.digest,
        "license": model.card.get("license"),
        "metrics": model.card.get("metrics", {}),
        "description": model.card.get("description", ""),
        "warnings": list(model.warnings),
    }
