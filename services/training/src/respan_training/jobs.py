"""What a worker process is asked to do, with every path resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from respan_common.params import NnunetTrainingParams, SynthesisParams
from respan_common.settings import Runtime


@dataclass(frozen=True)
class TrainingJob:
    """Train on `data`; write the model, and all that resuming needs, below `out`."""

    data: Path
    out: Path
    params: NnunetTrainingParams
    start: Path | None = None
    """Folder of the model to start from: `params.initial_model`, resolved."""
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class SynthesisJob:
    """Write phantoms below `out`."""

    out: Path
    params: SynthesisParams
