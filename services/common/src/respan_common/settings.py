"""Where and how a process runs. Never part of a request, never of a result.

Read from the environment: `RESPAN_PORT`, `RESPAN_DATA_ROOTS=/data:/more`, and so on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from respan_common.buckets import BucketPath
from respan_common.errors import InputError

Device = Literal["auto", "cpu", "cuda"]
Roots = Annotated[list[Path], NoDecode]


def _sendable(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a token consists of letters, digits and signs of ASCII, in one line")
    return token


Token = Annotated[SecretStr, AfterValidator(_sendable)]
"""Goes into a header, which takes no other letters, and whose error would show it."""


class WithToken(BaseSettings):
    """Settings with the secret between orchestrator and services."""

    model_config = SettingsConfigDict(
        env_prefix="RESPAN_",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        hide_input_in_errors=True,  # the token may be among it
    )

    token: Token | None = None
    """Bearer token that every call must carry."""
    token_file: Path | None = None
    """File with the token, instead of the token itself."""

    @model_validator(mode="before")
    @classmethod
    def _read_token(cls, values: dict[str, Any]) -> dict[str, Any]:
        path = values.get("token_file")
        if not path:  # compose files pass an empty variable on
            return values | {"token_file": None}
        if values.get("token"):
            raise ValueError("RESPAN_TOKEN and RESPAN_TOKEN_FILE exclude each other: give one")
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"RESPAN_TOKEN_FILE {path} cannot be read: {error}") from error
        if not token:
            raise ValueError(f"RESPAN_TOKEN_FILE {path} is empty: write the token into it")
        return values | {"token": token}


def _bucket_path(value: object) -> object:
    try:
        return (BucketPath.parse(value) if value else None) if isinstance(value, str) else value
    except InputError as error:
        raise ValueError(str(error)) from error


class StoreSettings(BaseSettings):
    """Where the images' stores are."""

    model_config = SettingsConfigDict(
        env_prefix="RESPAN_", use_attribute_docstrings=True, protected_namespaces=()
    )

    volumes: Annotated[BucketPath | None, NoDecode, BeforeValidator(_bucket_path)] = None
    """s3://bucket/folder that holds the images' stores; absent: they lie beside the images."""
    scratch: Path | None = None
    """Folder for unfinished work on stores in a bucket; absent: one in the user's cache."""

    @property
    def scratch_folder(self) -> Path:
        """The folder for unfinished work."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return self.scratch or Path(cache) / "respan" / "unfinished"

    @field_validator("scratch", mode="before")
    @classmethod
    def _no_scratch(cls, value: object) -> object:
        return value or None  # compose files pass an empty variable on


@dataclass(frozen=True)
class Runtime:
    """What a stage may use of its machine."""

    device: Device = "auto"
    threads: int = 0
    """Processor threads; 0: all that this process may use."""
    gpu_lease_folder: Path | None = None
    """Where processes that share GPUs take turns; None: nobody shares."""
    gpu_wait_s: float = 600.0
    """Longest wait for a GPU that others use."""

    @property
    def thread_count(self) -> int:
        """Threads to start."""
        return self.threads or len(os.sched_getaffinity(0))


class ServiceSettings(StoreSettings, WithToken):
    """Settings of one service."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback should have TLS and a token."""
    port: NonNegativeInt = 0
    """Port to listen on; 0: any free one."""
    port_file: Path | None = None
    """File that receives the port once the service is ready."""
    data_roots: Roots = Field(default_factory=lambda: [Path.cwd()])
    """Folders that requests may name, separated by the system's path separator."""
    model_roots: Roots = Field(default_factory=list)
    """Folders with models, likewise. Models may also lie under the data roots."""
    device: Device = "auto"
    """auto: the GPU when there is one. cuda: the GPU or an error."""
    threads: NonNegativeInt = 0
    """Processor threads of the worker; 0: all."""
    keep_alive_s: NonNegativeFloat = 300.0
    """An idle worker process, and the GPU memory it holds, goes after this time."""
    queue_limit: Annotated[int, Field(ge=0, le=48)] = 16
    """Stages that may wait for their turn; further ones are told to come back later."""
    gpu_lease_folder: Path | None = None
    """Folder on a local disk, common to all services that share GPUs: one at a time uses a GPU.
    Absent: the GPU is this service's own."""
    gpu_wait_s: NonNegativeFloat = 600.0
    """Longest wait for a GPU that another service uses; then the caller is told to come back."""
    grace_s: NonNegativeFloat = 10.0
    """Time that running stages get after SIGTERM."""
    tls_certificate: Path | None = None
    """PEM file; with `tls_key` turns TLS on."""
    tls_key: Path | None = None
    """PEM file."""
    tls_client_ca: Path | None = None
    """PEM file; clients must then show a certificate that it signed (mTLS)."""
    ends_with_input: bool = False
    """Stop when standard input ends: a child process then never outlives its parent."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""
    log_json: bool = False
    """One JSON object per log line, with the run, the image and the stage that it is about."""
    metrics_port: NonNegativeInt = 0
    """Port where Prometheus reads metrics, on the same address; 0: nowhere."""

    @field_validator("gpu_lease_folder", mode="before")
    @classmethod
    def _nothing_is_none(cls, value: object) -> object:
        return value or None  # compose files pass an empty variable on

    @field_validator("data_roots", "model_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return (
            [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value
        )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> ServiceSettings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both or neither")
        if self.tls_client_ca is not None and self.tls_key is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key as well")
        return self

    @property
    def runtime(self) -> Runtime:
        """The part of the settings that stages see."""
        return Runtime(self.device, self.threads, self.gpu_lease_folder, self.gpu_wait_s)


Settings = TypeVar("Settings", bound=BaseSettings)


def from_environment(kind: type[Settings]) -> Settings:
    """Settings of a process from its environment; ends the process in one line if they are bad."""
    try:
        return kind()
    except ValidationError as error:
        raise SystemExit(f"cannot start: {refusal(error)}") from None


def refusal(error: ValidationError) -> str:
    """Which environment variables are wrong and why, in one line, without their values."""
    return "; ".join(
        ": ".join(
            part
            for part in (
                f"RESPAN_{'_'.join(map(str, detail['loc'][:1])).upper()}" if detail["loc"] else "",
                detail["msg"].removeprefix("Value error, "),
            )
            if part
        )
        for detail in error.errors()
    )
