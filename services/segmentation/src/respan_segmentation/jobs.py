"""What a worker process is asked to do, with every path resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from respan_common.params import SegmentationParams
from respan_common.settings import Runtime


@dataclass(frozen=True)
class SegmentationJob:
    """One image to segment."""

    store: Path
    group: str
    """Image group: empty for the raw image, "restored" for the restored one."""
    model: Path
    params: SegmentationParams
    runtime: Runtime = field(default_factory=Runtime)
