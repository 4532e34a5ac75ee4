"""What a stage did, once: the completion record that is written last and believed afterwards.

`<store>/.respan/<stage>.json` names every group and file that the stage published, with an
inventory of each. A group without a record, or one that no longer agrees with it, is not a result.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from respan_common import __version__
from respan_common.buckets import BucketPath, Location
from respan_common.errors import VolumeFormatError

FOLDER = ".respan"
"""Folder in a store that holds records, and on a file system also locks and unfinished work."""


@dataclass(frozen=True)
class StageKey:
    """Everything that a stage's result depends on."""

    stage: str
    inputs: Mapping[str, str]
    """Digest of each input: a volume's record, or a file's content."""
    params: Mapping[str, Any] = field(default_factory=dict)
    model_digest: str = ""
    version: str = __version__

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over all of it; equal keys give equal results."""
        content = [
            self.stage,
            dict(self.inputs),
            dict(self.params),
            self.model_digest,
            self.version,
        ]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Inventory(BaseModel):
    """Files of one published group or file."""

    model_config = ConfigDict(frozen=True)

    files: int
    bytes: int
    shape: tuple[int, ...] = ()
    dtype: str = ""


class StageRecord(BaseModel):
    """Completion record of one stage on one image."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    stage: str
    digest: str
    version: str
    inputs: dict[str, str]
    params: dict[str, Any]
    model_digest: str
    outputs: dict[str, Inventory]
    """Group or file, relative to the store; the raw image is the empty name."""
    numbers: dict[str, float] = {}
    warnings: list[str] = []
    seconds: float = 0.0
    finished_at: str = ""
    is_old: bool = Field(default=False, exclude=True)
    """Whether this record was found, rather than written by the present attempt."""


def record_path(store: Location, stage: str) -> Location:
    """Where a stage's record lies."""
    return store / FOLDER / f"{stage}.json"


def read_record(store: Location, stage: str) -> StageRecord | None:
    """A stage's record, or None if the stage has not finished."""
    path = record_path(store, stage)
    try:
        return StageRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as error:
        raise VolumeFormatError(
            f"{path} is not a completion record; delete it to redo the stage"
        ) from error


def record_of(store: Location, output: str) -> StageRecord | None:
    """The record that vouches for a group or file of a store, or None."""
    for stage in sorted(path.stem for path in (store / FOLDER).glob("*.json")):
        record = read_record(store, stage)
        if record is not None and output in record.outputs:
            return record
    return None


def write_text_durably(path: Location, text: str) -> None:
    """Write a small file so that a crash leaves either the old or the new one, never a part."""
    if isinstance(path, BucketPath):
        path.write_bytes(text.encode())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def take_inventory(
    folder: Path, output: str, shape: tuple[int, ...] = (), dtype: str = ""
) -> Inventory:
    """Count the files of a group (or a single file) that is to be published, and their bytes."""
    sizes = _sizes(folder, output)
    return Inventory(files=len(sizes), bytes=sum(sizes), shape=shape, dtype=dtype)


def verify(store: Location, output: str, record: StageRecord) -> None:
    """Compare a published output with its record's inventory.

    Raises
    ------
    VolumeFormatError
        If files are missing, were added or changed their size: a missing chunk would otherwise
        read as background.
    """
    _compare(store, output, record, _sizes(store, output))


def is_intact(store: Location, record: StageRecord) -> bool:
    """Whether every output of a record is still as it was published."""
    # One list of a bucket is quicker than a question for each of a thousand meshes.
    listed = store.files() if isinstance(store, BucketPath) else None
    try:
        for output in record.outputs:
            _compare(store, output, record, _sizes(store, output, listed))
    except VolumeFormatError:
        return False
    return True


def _compare(store: Location, output: str, record: StageRecord, sizes: list[int]) -> None:
    promised = record.outputs[output]
    if promised.shape and not (store / output / "zarr.json").is_file():
        raise VolumeFormatError(
            f"'{output or 'the raw image'}' of {store} has lost its metadata (zarr.json); "
            f"delete {record_path(store, record.stage)} to redo it"
        )
    if (len(sizes), sum(sizes)) != (promised.files, promised.bytes):
        raise VolumeFormatError(
            f"'{output or 'the raw image'}' of {store} is damaged: {len(sizes)} files with "
            f"{sum(sizes)} bytes, but {promised.files} with {promised.bytes} were written; "
            f"delete {record_path(store, record.stage)} to redo it"
        )


def _sizes(store: Location, output: str, listed: Mapping[str, int] | None = None) -> list[int]:
    """Bytes of each file of an output; `listed` is what the store holds, if that is known."""
    if isinstance(store, BucketPath):
        found = listed if listed is not None else _listed(store, output)
        return [size for name, size in found.items() if _counts(name, output)]
    return [path.stat().st_size for path in _files_of(store, output)]


def _listed(store: BucketPath, output: str) -> dict[str, int]:
    target = store / output
    found = {f"{output}/{name}".lstrip("/"): size for name, size in target.files().items()}
    size = target.size() if output and not found else None
    return found if size is None else {output: size}


def _counts(name: str, output: str) -> bool:
    """Whether a file of a store belongs to an output, as `_files_of` finds them."""
    if name == output:
        return True
    level, _, rest = name.removeprefix(f"{output}/" if output else "").partition("/")
    return (not output or name.startswith(f"{output}/")) and level[:1].isdigit() and bool(rest)


def _files_of(store: Path, output: str) -> list[Path]:
    target = store / output
    if target.is_file():
        return [target]
    # The raw image's levels are folders 0, 1, ... beside other groups; other groups are whole.
    folders = [part for part in target.glob("[0-9]*") if part.is_dir()]
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]
