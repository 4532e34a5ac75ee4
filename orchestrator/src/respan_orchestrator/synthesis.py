"""Phantoms, made by the training service."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from respan_common.params import SynthesisParams
from respan_orchestrator import clients
from respan_orchestrator.analysis import call_stage
from respan_orchestrator.outcomes import StageOutcome
from respan_orchestrator.services import service_pool
from respan_orchestrator.settings import OrchestratorSettings


class SynthesisRequest(BaseModel):
    """Which phantoms to make."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    out: str
    """Folder to write."""
    params: SynthesisParams = SynthesisParams()
    """Parameters of the phantoms."""


def make_phantoms(request: SynthesisRequest) -> StageOutcome:
    """Make phantom volumes with exact truth; those that are there already stay."""
    out = Path(request.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with service_pool(OrchestratorSettings(), [out]) as pool:
        call = clients.synthesize(out, request.params)
        return call_stage(out.name, "synthesis", call, pool)
