"""What became of stages, images and experiments."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from respan_common.errors import RespanError
from respan_common.settings import refusal

_WAYS_OUT = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some space and run again",
    errno.EACCES: "change its permissions for this user",
    errno.EPERM: "change its permissions for this user",
    errno.EROFS: "copy the experiment to a place that can be written to",
    errno.ENAMETOOLONG: "give the image a shorter name",
}


class StageOutcome(BaseModel):
    """What one stage did to one image."""

    stage: str
    seconds: float = 0.0
    peak_rss_mb: float | None = None
    skipped: bool = False
    numbers: dict[str, float] = {}
    warnings: list[str] = []


class ImageOutcome(BaseModel):
    """What became of one image."""

    sub_folder: str
    name: str
    status: Literal["done", "failed", "skipped"]
    error: str = ""
    stages: list[StageOutcome] = []

    @property
    def numbers(self) -> dict[str, float]:
        """Numbers of all stages: spines, dendrite_length_um, ..."""
        return {key: value for stage in self.stages for key, value in stage.numbers.items()}

    @property
    def warnings(self) -> list[str]:
        """Warnings of all stages, each once."""
        return list(dict.fromkeys(text for stage in self.stages for text in stage.warnings))


class ExperimentOutcome(BaseModel):
    """What became of an experiment."""

    experiment: Path
    images: list[ImageOutcome]
    tables: list[Path] = []
    report: Path | None = None
    warnings: list[str] = []

    @property
    def failed(self) -> list[ImageOutcome]:
        """Images that have no result."""
        return [image for image in self.images if image.status == "failed"]


def explained(error: BaseException) -> str:
    """What to tell people of an error; one that nobody foresaw is called by its name."""
    if isinstance(error, RespanError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _WAYS_OUT:
        return f"{error.filename or 'a file'}: {error.strerror}; {_WAYS_OUT[error.errno]}"
    if isinstance(error, ValidationError) and error.title == "OrchestratorSettings":
        return f"{refusal(error)}: correct the environment of this command"
    return (
        f"unforeseen {type(error).__name__}: {error} "
        "(with --log-level DEBUG the same command shows where it happened)"
    )
