"""The models that can be named: find them, choose one, describe them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from respan_common.errors import ModelError
from respan_common.geometry import VoxelSpacing
from respan_common.model_cards import misfits, rdf_of
from respan_common.model_folders import ModelFolder, describe, find
from respan_orchestrator.model_checks import Check


def known_models(roots: Sequence[Path]) -> list[ModelFolder]:
    """Every usable model under the model roots, in order of their names."""
    return look_up(roots)[0]


def look_up(roots: Sequence[Path]) -> tuple[list[ModelFolder], list[str]]:
    """Every usable model under the model roots, and why others are not."""
    models, broken = [], []
    for folder in (folder for root in roots for folder in find(root)):
        try:
            models.append(describe(folder))
        except ModelError as error:
            broken.append(str(error))
    return models, broken


def find_model(name: str, roots: Sequence[Path]) -> ModelFolder:
    """Model with a name, or in a folder.

    Raises
    ------
    ModelError
        If there is none; lists the names that exist.
    """
    return describe(folder_of(name, roots))


def folder_of(name: str, roots: Sequence[Path]) -> Path:
    """The folder itself, or that of the model with this name.

    Raises
    ------
    ModelError
        If there is none; lists the names that exist.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.absolute()
    for root in roots:
        if (root / name).is_dir():
            return root / name
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
    models = [model for model in known_models(roots) if model.trained_um is not None]
    if not models:
        listed = ", ".join(str(root) for root in roots) or "no folder"
        raise ModelError(
            f"no model was named, and none that knows its voxel size was found in {listed}: name "
            "one with --model NAME|DIR, or import one (respan models import DIR --spacing Z,Y,X)"
        )
    return min(models, key=lambda model: spacing_ratio(model, spacing))


def spacing_ratio(model: ModelFolder, spacing: VoxelSpacing) -> float:
    """Largest ratio, over the axes, between training's and an image's voxel size; at least 1."""
    if model.trained_um is None:
        return 1.0
    ratios = (
        math.log(own / image) for own, image in zip(model.trained_um, spacing.zyx, strict=True)
    )
    return math.exp(max(abs(ratio) for ratio in ratios))


def fit_warnings(
    model: ModelFolder,
    spacing: VoxelSpacing,
    roots: Sequence[Path],
    trained_um: Sequence[float] | None = None,
) -> list[str]:
    """What to tell a user whose image is unlike those that a model was trained on.

    Parameters
    ----------
    trained_um
        Voxel size (z, y, x) of the training's images, where the user knows it better.
    """
    found = misfits(model, spacing, trained_um=trained_um)
    if not found:
        return []
    others = [other for other in known_models(roots) if other.trained_um is not None]
    fitting = [
        other for other in others if other.digest != model.digest and not misfits(other, spacing)
    ]
    if fitting:
        best = min(fitting, key=lambda other: spacing_ratio(other, spacing))
        return [*found, f"{best.name} was trained nearer to this image: --model {best.name}"]
    listed = "; ".join(f"{other.name}: {edges_of(other.trained_um)}" for other in others)
    return [*found, f"no installed model was trained near this image's voxel size ({listed} µm)"]


def edges_of(spacing_um: Sequence[float] | None) -> str:
    """A voxel size in words."""
    return " x ".join(f"{edge:.4g}" for edge in spacing_um) if spacing_um else "unknown"


def summary(model: ModelFolder) -> dict[str, Any]:
    """What `respan models show` prints."""
    first = summary(model.previous) if model.previous else None
    weights = sum(path.stat().st_size for path in model.checkpoints)
    return {
        "name": model.name,
        "path": str(model.path),
        "kind": "nnunet",
        "configuration": model.configuration,
        "labels": model.labels,
        "regions": [list(values) for values in model.regions or ()],
        "spacing_um": list(model.spacing_um) if model.spacing_um else None,
        "trained_um": list(model.trained_um) if model.trained_um else None,
        "patch": list(model.patch),
        "folds": list(model.folds),
        "first_stage": first,
        "bytes": weights + (first["bytes"] if first else 0),
        "digest": model.digest,
        "modality": model.card.get("modality"),
        "license": model.card.get("license"),
        "metrics": model.card.get("metrics", {}),
        "operating_point": model.card.get("operating_point", {}),
        "description": model.card.get("description", ""),
        "origin": origin(model),
        "card": dict(model.card),
        "warnings": list(model.warnings),
    }


def origin(model: ModelFolder) -> str:
    """Where a model came from, in words."""
    imported = model.card.get("imported")
    if not isinstance(imported, dict):
        return str(model.path.parent)
    return f"{imported.get('from')}, imported {str(imported.get('at'))[:10]}"


def checked_summary(folder: Path, found: Sequence[Check], scheme: int | None) -> dict[str, Any]:
    """What `respan models check` prints: what is known of the model, and what was looked at."""
    listed = [vars(check) for check in found]
    wrong = [check.text for check in found if check.matters and not check.ok]
    if wrong:
        return {"status": "failed", "error": wrong[0], "checks": listed}
    model = describe(folder)
    return {
        "status": "done",
        **summary(model),
        "roles": model.roles(scheme),
        "checks": listed,
        "warnings": [check.text for check in found if not check.ok],
    }


def rdf_text(model: ModelFolder) -> str:
    """A model's description for bioimage.io, as YAML."""
    text: str = yaml.safe_dump(rdf_of(model), sort_keys=False, allow_unicode=True)
    return text
