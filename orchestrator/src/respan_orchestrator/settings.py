"""Where the orchestrator finds the services, and how it talks to them. From the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)
from pydantic_settings import NoDecode

from respan_common.settings import StoreSettings, WithToken

SERVICES = ("restoration", "segmentation", "quantification", "training")
"""Every stage service, by its short name."""
HEARTBEAT_S = 60
"""How often runs tell Prefect's server that they are alive."""


def default_model_roots() -> list[Path]:
    """The user's own models, then those that come with the project if this is a checkout of it."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    shipped = Path(__file__).resolve().parents[3] / "models"
    return [Path(base) / "respan" / "models", *([shipped] if shipped.is_dir() else [])]


class OrchestratorSettings(StoreSettings, WithToken):
    """Settings of the orchestrator."""

    restoration_address: str = ""
    """host:port of the restoration service; empty: started as a child process when needed. For
    several replicas a list with commas between, or a name that stands for all of them."""
    segmentation_address: str = ""
    """Likewise."""
    quantification_address: str = ""
    """Likewise."""
    training_address: str = ""
    """Likewise."""
    model_roots: Annotated[list[Path], NoDecode] = Field(default_factory=default_model_roots)
    """Folders with models that can be called by name, separated by the system's path separator."""
    tls_ca: Path | None = None
    """PEM file of the authority that signed the services' certificates; turns TLS on."""
    tls_client_certificate: Path | None = None
    """PEM file, for services that ask for a client certificate."""
    tls_client_key: Path | None = None
    """PEM file."""
    stage_timeout_s: PositiveFloat = 24 * 3600.0
    """Deadline of one stage on one image."""
    lost_after_s: PositiveFloat = 5 * HEARTBEAT_S
    """A run that Prefect has not heard of for so long is lost. Read when the worker starts."""
    log_level: str = "INFO"
    """Of the worker's JSON lines: DEBUG, INFO, WARNING or ERROR."""
    log_json: bool = False
    """The worker logs one JSON object per line, with the run, the image and the stage."""
    busy_wait_s: NonNegativeFloat = 12 * 3600.0
    """Longest time to ask again and again where a service or its GPU is busy with others' work."""
    gpu_slots: PositiveInt = 1
    """GPUs that services have: so many stages of all flows of a Prefect server use one at a time.
    Read when the worker starts."""

    images_at_once: NonNegativeInt = 0
    """Images of a run that are in work at the same time; 0: as many as there are replicas of the
    stage that has most."""
    share_from_voxels: NonNegativeInt = 64_000_000
    """An image of at least so many voxels is segmented and measured by all replicas that are idle;
    0: none is."""

    @field_validator(*(f"{service}_address" for service in SERVICES))
    @classmethod
    def _check_ports(cls, value: str) -> str:
        for part in filter(None, map(str.strip, value.split(","))):
            if ":" not in part:
                raise ValueError(f"'{part}' has no port: give host:port, commas between several")
        return value

    @field_validator("model_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return (
            [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value
        )

    def address_of(self, service: str) -> str:
        """host:port of a service, or a list of its replicas; empty if it has none."""
        return str(getattr(self, f"{service}_address"))
