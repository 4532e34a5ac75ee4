"""What a worker process is asked to do, with every path resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from respan_common.buckets import Location
from respan_common.errors import ModelError
from respan_common.geometry import Box
from respan_common.model_folders import ModelFolder
from respan_common.params import SegmentationParams
from respan_common.settings import Runtime


@dataclass(frozen=True)
class SegmentationJob:
    """One image to segment."""

    store: Location
    group: str
    """Image group: empty for the raw image, "restored" for the restored one."""
    model: Path
    params: SegmentationParams
    runtime: Runtime = field(default_factory=Runtime)
    refinement_model: Path | None = None
    """Model that looks again at each spine."""
    region: Box | None = None
    """Part of the image to do now; None: all of it."""


class RegionDoneError(Exception):
    """All that was asked for is done, and others are busy with the rest of the image."""


def threshold_of(params: SegmentationParams, folder: ModelFolder) -> float | None:
    """Least probability of a spine's voxel: the params' own, or else the model's operating point.

    Raises
    ------
    ModelError
        If the card names something that is no probability.
    """
    if params.spine_threshold is not None:
        return params.spine_threshold
    given = folder.card.get("operating_point", {}).get("spine_threshold")
    if given is None:
        return None
    if not isinstance(given, (int, float)) or not 0 <= given <= 1:
        raise ModelError(
            f"{folder.path / 'card.json'}: operating_point.spine_threshold must be a number from 0 "
            f"to 1, not {given!r}"
        )
    return float(given)
