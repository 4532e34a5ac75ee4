"""Whether an image is of the kind that a model was trained on, judged by a few numbers.

A network answers whatever it is shown. These numbers, taken from the image and from the answer, are
compared with the range that they had in training (`trained_range` in the model's card).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from respan_segmentation.survey import Survey

FEATURES = {
    "skewness": "skewness of the grey values",
    "roughness": "change of grey values from one 0.35 µm cell to the next, by their variance",
    "occupied_share": "share of the field that is brighter than its background",
    "foreground_share": "share of the field that was taken for structure",
    "confidence": "mean probability of the classes found",
}
"""Names in a card's `trained_range`, and what they are."""

_MEANINGS = {
    ("skewness", "low"): "it may be inverted, or all of it stained",
    ("skewness", "high"): "a few voxels outshine everything",
    ("roughness", "low"): "it may be blurred (widefield, out of focus), or its voxels are smaller "
    "than they are said to be",
    ("roughness", "high"): "it may be noise, or its voxels are larger than they are said to be",
    ("occupied_share", "low"): "it may be empty",
    ("occupied_share", "high"): "it may be inverted, or much denser than the model knows",
    ("foreground_share", "low"): "hardly anything was found",
    ("foreground_share", "high"): "far more was found than dendrites fill",
    ("confidence", "low"): "the model is not sure of what it found",
}


def image_features(survey: Survey) -> dict[str, float]:
    """What can be told before segmentation; empty for an image of zeros."""
    if survey.statistics.box is None:
        return {}
    return {
        "skewness": survey.statistics.skewness,
        "roughness": survey.roughness,
        "occupied_share": survey.occupancy.share,
    }


def complaints(features: Mapping[str, float], trained_range: Mapping[str, Any]) -> list[str]:
    """A sentence for every number outside the range of the training.

    Parameters
    ----------
    features
        Numbers by the names in `FEATURES`.
    trained_range
        Lowest and highest value of each in training; others are not judged.
    """
    found = []
    for name, value in features.items():
        limits = _range(trained_range.get(name))
        if limits is None:
            continue
        low, high = limits
        side = "low" if value < low else "high" if value > high else ""
        if side and (name, side) in _MEANINGS:
            found.append(
                f"the image is unlike what the model was trained on: {FEATURES[name]} is "
                f"{value:.3g}, in training it was {low:.3g} to {high:.3g}; "
                f"{_MEANINGS[name, side]}. Look at the pictures before you believe the numbers"
            )
    return found


def _range(limits: Any) -> tuple[float, float] | None:
    """Two numbers, or None if they are anything else."""
    if not isinstance(limits, Sequence) or len(limits) != 2:
        return None
    if not all(isinstance(limit, (int, float)) for limit in limits):
        return None
    return float(limits[0]), float(limits[1])
