"""What a model's training images were like, by the numbers that a run compares.

The numbers are the segmentation service's own (`respan_segmentation.plausibility.FEATURES`), taken
from the training's phantoms as it takes them from a user's image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.errors import InputError
from respan_common.geometry import VoxelSpacing
from respan_segmentation.plausibility import image_features
from respan_segmentation.survey import survey
from respan_training.inference import load_network, probabilities, standardized
from respan_training.tiffs import read_volume

PERCENT = (0.1, 99.9)
"""Of the training's images, so many percent lie below the lower and the upper bound."""

OPEN: dict[str, tuple[float | None, float | None]] = {
    "skewness": (None, 1000.0),
    "occupied_share": (0.0, None),
    "foreground_share": (0.0, None),
    "confidence": (None, 1.0),
}
"""Bounds that are not the training's: users' fields are larger and emptier than phantoms, and to be
surer than in training is no fault."""

SPACING_FACTORS = (0.6, 1.4)
"""Voxel sizes, over the model's own, at which models are tested (bench.models)."""

ASKED = 40
"""Phantoms of the model's own voxel size that it is asked about, for its confidence."""


def trained_range(data: Path, model: Path, patch: list[int], spacing: VoxelSpacing) -> Any:
    """Bounds of every number over the training's images, for a model's card.

    Returns
    -------
    dict
        Of each number its [low, high]; of `spacing_um` two voxel sizes (z, y, x).
    """
    seen = [_of_image(*case) for case in _cases(data)]
    own = (image for image, _, other in _cases(data) if np.allclose(other.zyx, spacing.zyx))
    asked = [*islice(own, ASKED)]
    sure = [{"confidence": value} for value in _confidences(asked, model, patch)]
    low, high = ([_short(edge * factor) for edge in spacing.zyx] for factor in SPACING_FACTORS)
    return {"spacing_um": {"low": low, "high": high}, **bounds(seen), **bounds(sure)}


def bounds(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """The range of each number, open where no bound makes sense."""
    found = {}
    for name in rows[0]:
        low, high = np.percentile([row[name] for row in rows if name in row], PERCENT)
        open_low, open_high = OPEN.get(name, (None, None))
        found[name] = [
            _short(low if open_low is None else open_low),
            _short(high if open_high is None else open_high),
        ]
    return found


def _of_image(
    image: NDArray[Any], labels: NDArray[np.uint8], spacing: VoxelSpacing
) -> dict[str, float]:
    z, y, x = image.shape
    seen = survey(lambda box: image[box], (z, y, x), spacing)
    return {**image_features(seen), "foreground_share": float((labels > 0).mean())}


def _confidences(images: list[NDArray[Any]], model: Path, patch: list[int]) -> Iterator[float]:
    """Mean probability of the classes found, as the service's `confidence`."""
    network = load_network(model)
    for image in images:
        probability = probabilities(network, standardized(image), patch)
        found = probability.argmax(axis=0) > 0
        if found.any():
            yield float(probability.max(axis=0)[found].mean())


def _cases(data: Path) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8], VoxelSpacing]]:
    for path in sorted((data / "labelsTr").glob("*.tif")):
        image, spacing = read_volume(data / "imagesTr" / f"{path.stem}_0000.tif")
        if spacing is None:
            raise InputError(f"{path.stem}: its image does not say how large a voxel is")
        labels, _ = read_volume(path)
        yield image, labels.astype(np.uint8), spacing


def _short(value: float) -> float:
    return float(f"{value:.4g}")
