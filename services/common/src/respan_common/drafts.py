"""Publish, then believe: a stage's unfinished work, kept where nobody mistakes it for a result.

    with drafting(store, key, report) as draft:
        if draft.finished is not None:
            return draft.finished                      # same input, parameters and model
        labels = draft.labels("labels/classes", shape_zyx, spacing, np.uint8)
        for block in grid(shape_zyx, labels.block_zyx):
            if not draft.is_done(f"classes {block.number}"):
                labels.write(block.inner, ...)
                draft.mark_done(f"classes {block.number}")
        return draft.publish(numbers={...})

A draft lives in `<store>/.respan/partial/<stage>/`; of a store in a bucket, on the scratch disk. A
killed stage finds its finished blocks there again if its key is the same; another key wipes them.
Publishing brings every output into the store and writes the completion record last. A crash in
between is finished by the next attempt.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from respan_common import ngff
from respan_common.buckets import Location
from respan_common.errors import VolumeFormatError
from respan_common.events import Reporter
from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.locks import exclusive
from respan_common.pieces import Pieces
from respan_common.publication import intent_of, publish, workspace
from respan_common.records import (
    StageKey,
    StageRecord,
    is_intact,
    read_record,
    take_inventory,
    write_text_durably,
)
from respan_common.volumes import (
    LevelWriter,
    build_pyramid,
    read_level,
    shard_files,
    write_group_attributes,
)


@dataclass
class _Group:
    writer: LevelWriter
    spacing: VoxelSpacing
    averaged: bool
    attributes: Callable[[list[Zyx]], dict[str, Any]]


@dataclass
class Draft:
    """Unfinished work of one stage on one image."""

    store: Location
    key: StageKey
    folder: Path
    finished: StageRecord | None
    """The record, if this very work has been done before."""
    is_new_store: bool = False
    _groups: dict[str, _Group] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)

    def image(
        self,
        group: str,
        shape_czyx: tuple[int, int, int, int],
        spacing: VoxelSpacing,
        dtype: DTypeLike,
        channel_names: Sequence[str],
        *,
        averaged: bool = True,
    ) -> LevelWriter:
        """Start, or take up again, an image group ("" is the raw image, of a new store only).

        `averaged`: whether coarse levels hold means. Where NaN says "nothing here" they must not.
        """
        assert group or self.is_new_store, "the raw image would replace everything in its store"
        writer = LevelWriter(self.folder / group, shape_czyx, dtype)

        def attributes(factors: list[Zyx]) -> dict[str, Any]:
            windows = _windows(self.folder / group, len(factors) - 1)
            return ngff.image_attributes(
                self.store.name.removesuffix(".ome.zarr"),
                spacing,
                factors,
                channel_names,
                windows,
                writer.dtype,
                averaged=averaged,
            )

        self._groups[group] = _Group(writer, spacing, averaged, attributes)
        return writer

    def labels(
        self,
        group: str,
        shape_zyx: Zyx,
        spacing: VoxelSpacing,
        dtype: DTypeLike,
        *,
        names: Mapping[int, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> LevelWriter:
        """Start, or take up again, a label group such as "labels/spines".

        `names` says what single values mean; `attributes` are added to the group's own.
        """
        writer = LevelWriter(self.folder / group, shape_zyx, dtype)

        def all_attributes(factors: list[Zyx]) -> dict[str, Any]:
            own = ngff.label_attributes(group.rpartition("/")[2], spacing, factors, names or {})
            return own | dict(attributes or {})

        self._groups[group] = _Group(writer, spacing, averaged=False, attributes=all_attributes)
        return writer

    def file(self, name: str) -> Path:
        """Where to write a plain file, such as "tables/spines.parquet", that is to be published."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def table(self, name: str, attributes: Mapping[str, Any]) -> Path:
        """Where to write a table as Parquet; `attributes` are those of its group."""
        write_group_attributes(self.folder / "tables" / name, dict(attributes))
        return self.file(f"tables/{name}/{ngff.TABLE}")

    @property
    def pieces(self) -> Pieces:
        """Its pieces, for stages that several processes share."""
        return Pieces(self.folder)

    def is_done(self, token: str) -> bool:
        """Whether a piece of work was finished by this or an earlier attempt."""
        return token in self._done

    def mark_done(self, token: str) -> None:
        """Remember that a piece of work is finished and on disk."""
        self.pieces.mark_done([token])
        self._done.add(token)

    def publish(
        self, numbers: Mapping[str, float] | None = None, warnings: Sequence[str] = ()
    ) -> StageRecord:
        """Build pyramids, move everything into the store, and write the record.

        Numbers that are not finite were not measured, and are left out.

        Raises
        ------
        VolumeFormatError
            If a shard was never written.
        """
        for name, group in self._groups.items():
            _finish(self.folder, name, group)
        record = StageRecord(
            stage=self.key.stage,
            digest=self.key.digest,
            version=self.key.version,
            inputs=dict(self.key.inputs),
            params=dict(self.key.params),
            model_digest=self.key.model_digest,
            outputs={
                name: take_inventory(
                    self.folder,
                    name,
                    self._groups[name].writer.shape if name in self._groups else (),
                    self._groups[name].writer.dtype.name if name in self._groups else "",
                )
                for name in [*self._groups, *self._files()]
            },
            numbers={n: value for n, value in (numbers or {}).items() if math.isfinite(value)},
            warnings=list(warnings),
            seconds=round(time.monotonic() - self._started, 3),
            finished_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        write_text_durably(intent_of(self.folder), record.model_dump_json(indent=1))
        publish(self.store, self.folder, record, is_new_store=self.is_new_store)
        return record

    def _files(self) -> list[str]:
        paths = (
            path.relative_to(self.folder)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        )
        groups = tuple(self._groups)
        return [
            str(path)
            for path in paths
            if not path.parts[0].startswith(".")
            and (path.name != "zarr.json" or (self.folder / path.parent / ngff.TABLE).is_file())
            and not any(str(path).startswith(f"{group}/") for group in groups if group)
            and not ("" in groups and path.parts[0].isdigit())
        ]


@contextmanager
def drafting(
    store: Location,
    key: StageKey,
    report: Reporter,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[Draft]:
    """Work of one stage inside an existing store; waits while another process does the same.

    `meanwhile` is called again and again during the wait: it may help the other process.
    """

    def wait() -> None:
        report.check()
        meanwhile()

    with exclusive(workspace(store) / f"{key.stage}.lock", wait):
        yield _open_draft(store, key, draft_folder(store, key.stage), is_new_store=False)


def finished_before(store: Location, key: StageKey) -> StageRecord | None:
    """The record, if this very work has been done before and its outputs are as they were.

    A look without the lock: None may also mean that another process is publishing just now.
    """
    record = read_record(store, key.stage)
    if record is None or record.digest != key.digest or not is_intact(store, record):
        return None
    return record.model_copy(update={"is_old": True})


def draft_folder(store: Location, stage: str) -> Path:
    """Where a stage's unfinished work on a store lies."""
    return workspace(store) / "partial" / stage


@contextmanager
def drafting_store(store: Location, key: StageKey, report: Reporter) -> Iterator[Draft]:
    """Work that makes a whole new store; an older store of that name is replaced at the end."""
    if isinstance(store, Path):  # the store itself is replaced, with all that is in it
        lock = store.parent / f".{store.name}.lock"
        folder = store.parent / f".{store.name}.partial"
    else:
        lock, folder = workspace(store) / f"{key.stage}.lock", draft_folder(store, key.stage)
    with exclusive(lock, report.check):
        yield _open_draft(store, key, folder, is_new_store=True)


def _open_draft(store: Location, key: StageKey, folder: Path, *, is_new_store: bool) -> Draft:
    _finish_interrupted_publication(store, folder, key, is_new_store=is_new_store)
    if old := finished_before(store, key):
        return Draft(store, key, folder, finished=old, is_new_store=is_new_store)
    done = _finished_pieces(folder, key)
    return Draft(store, key, folder, finished=None, is_new_store=is_new_store, _done=done)


def _finished_pieces(folder: Path, key: StageKey) -> set[str]:
    """Tokens of an earlier attempt with the same key; an attempt with another key is wiped."""
    pieces = Pieces(folder)
    if pieces.belong_to(key.digest):
        return pieces.done()
    shutil.rmtree(folder, ignore_errors=True)
    write_text_durably(pieces.marker, key.digest)
    return set()


def _finish(root: Path, name: str, group: _Group) -> None:
    folder = root / name
    for leftover in folder.rglob("*.partial"):  # a write that was killed
        leftover.unlink()
    shape = group.writer.shape
    written = sum(
        1 for path in (folder / "0").rglob("*") if path.is_file() and path.name != "zarr.json"
    )
    if written != shard_files(shape):
        # The list of finished pieces is wrong: the next attempt starts anew.
        Pieces(root).marker.unlink()
        raise VolumeFormatError(
            f"{folder} has {written} of {shard_files(shape)} shards: a block was never written"
        )
    z, y, x = shape[-3:]
    factors = ngff.pyramid_factors((z, y, x), group.spacing)
    build_pyramid(folder, factors, averaged=group.averaged)
    write_group_attributes(folder, group.attributes(factors))


def _finish_interrupted_publication(
    store: Location, folder: Path, key: StageKey, *, is_new_store: bool
) -> None:
    intent = intent_of(folder)
    if intent.is_file():
        record = StageRecord.model_validate_json(intent.read_text(encoding="utf-8"))
        if record.digest == key.digest:
            publish(store, folder, record, is_new_store=is_new_store)


def _windows(folder: Path, level: int) -> list[tuple[float, float]]:
    """Grey values (1st and 99.8th percentile of the coarsest level) for a viewer's contrast."""
    windows = []
    for values in read_level(folder, level):
        known = values[~np.isnan(values)]
        low, high = np.percentile(known, (1.0, 99.8)) if known.size else (0.0, 1.0)
        windows.append((float(low), float(high)))
    return windows
