"""Builders of small stores for the tests in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.blocks import grid
from respan_common.drafts import Draft, drafting, drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.records import StageKey, StageRecord
from respan_common.volumes import LevelWriter

SPACING = VoxelSpacing(0.3, 0.1, 0.1)
FOUR_SHARDS = (5, 600, 530)
"""Shape (z, y, x) of an array with four shard files."""
KEY = StageKey("segmentation", {"raw": "abc"}, {"channel": 1})


def ramp(shape: tuple[int, ...], dtype: Any = np.uint16) -> NDArray[Any]:
    """An array in which neighbors differ and no block repeats another."""
    return (np.arange(np.prod(shape)) % 251 + 1).reshape(shape).astype(dtype)


def write_blocks(draft: Draft, writer: LevelWriter, values: NDArray[Any], name: str) -> list[int]:
    """Write what is missing; the numbers of the blocks that were."""
    written = []
    for block in grid(writer.shape_zyx, writer.block_zyx):
        token = f"{name} {block.number}"
        if not draft.is_done(token):
            if values.ndim == 4:
                for channel in range(values.shape[0]):
                    writer.write(block.inner, values[channel][block.inner], channel + 1)
            else:
                writer.write(block.inner, values[block.inner])
            draft.mark_done(token)
            written.append(block.number)
    return written


def publish_image(store: Path, values: NDArray[Any], raw: str = "abc") -> StageRecord:
    """A new store with a raw image (c, z, y, x)."""
    names = [f"channel {n + 1}" for n in range(values.shape[0])]
    with drafting_store(store, StageKey("ingest", {"file": raw}), SilentReporter()) as draft:
        if draft.finished is not None:
            return draft.finished
        writer = draft.image("", values.shape, SPACING, values.dtype, names)
        write_blocks(draft, writer, values, "raw")
        return draft.publish()


def publish_labels(
    store: Path, values: NDArray[Any], key: StageKey = KEY, group: str = "labels/classes"
) -> StageRecord:
    """A label image (z, y, x) and a table in an existing store."""
    with drafting(store, key, SilentReporter()) as draft:
        if draft.finished is not None:
            return draft.finished
        writer = draft.labels(
            group,
            values.shape,
            SPACING,
            values.dtype,
            names={1: "spine", 2: "dendrite"},
            attributes={"roles": {"spine": 1, "dendrite": 2}},
        )
        write_blocks(draft, writer, values, group)
        draft.file("tables/spines.parquet").write_bytes(b"a table")
        return draft.publish({"spines": 3.0}, ["a warning"])


def content(store: Path) -> dict[str, bytes]:
    """Every published file and its bytes."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in files
        if ".respan" not in path.parts
    }
