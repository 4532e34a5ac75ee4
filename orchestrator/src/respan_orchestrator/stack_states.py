"""What `respan status` tells of each process of the local stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from respan_common.errors import RespanError
from respan_orchestrator import service_checks
from respan_orchestrator.clients import describe
from respan_orchestrator.settings import SERVICES, OrchestratorSettings
from respan_orchestrator.stack import StackProcess

_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ProcessState:
    """One process of the stack."""

    name: str
    state: Literal["up", "alive", "down"]
    """alive: it runs, but does not answer."""
    address: str
    version: str = ""
    device: str = ""
    busy: bool = False
    queue_length: int = 0
    note: str = ""

    @property
    def about(self) -> str:
        """The rest in words."""
        doing = f"busy, {self.queue_length} waiting" if self.busy else "idle"
        known = [self.version, self.device, doing if self.device else "", self.note]
        return "  ".join(part for part in known if part)


def state_of(process: StackProcess) -> ProcessState:
    """What a process says about itself."""
    if not process.answers:
        state: Literal["alive", "down"] = "alive" if process.is_alive else "down"
        return ProcessState(process.name, state, process.address)
    if process.name in SERVICES:
        return _service(process)
    if process.name == "prefect":
        return _prefect(process)
    return ProcessState(process.name, "up", process.address)


def _service(process: StackProcess) -> ProcessState:
    try:
        said = describe(process.name, process.address, OrchestratorSettings(), _TIMEOUT_S)
    except RespanError as error:
        return ProcessState(process.name, "up", process.address, note=str(error))
    return ProcessState(
        process.name,
        "up",
        process.address,
        said.version,
        said.device,
        said.busy,
        said.queue_length,
    )


def _prefect(process: StackProcess) -> ProcessState:
    try:
        version = service_checks.prefect_version(f"{process.address}/api")
    except (OSError, ValueError) as error:
        return ProcessState(process.name, "up", process.address, note=str(error))
    return ProcessState(process.name, "up", process.address, version)
