"""RESPAN's spine arrays: a small picture of every spine, all of the same size.

Channels: this spine's neck, its head, its dendrite (1 where they are), then every channel of the
raw image. Spines are grouped by where they lie, so that each part of the image is read about once;
within a file they rise by id. The index beside the files says which spine is where.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.buckets import Location
from respan_common.events import Reporter
from respan_common.geometry import Box, VoxelSpacing, Zyx, relative
from respan_common.volumes import Volume, exists, open_volume
from respan_orchestrator.fiji import complete_or_absent, fiji_dtype, write_fiji_tiff
from respan_orchestrator.ledger import Ledger

INDEX_COLUMNS = (
    "spine_id",
    "dendrite_id",
    "file",
    "position",
    "z_start",
    "y_start",
    "x_start",
    "padded",
    "cut",
)
"""Columns of the index: id, file (of volumes) and place in it, from 1; first voxel of the box in
the image, which may lie outside it; whether a part of the box does, and is filled with 0; whether
the box cuts the spine."""

_MASKS = ("neck", "head", "dendrite")
_GROUPS = ("labels/necks", "labels/heads", "labels/dendrites")
_BATCH_BYTES = 64 * 2**20
# Spines of a shard share a batch where they can, and those of a chunk are read together.
_SHARD: Zyx = (64, 512, 512)
_CHUNK: Zyx = (32, 128, 128)


@dataclass(frozen=True)
class _Source:
    """The image's volumes, all on the grid of its labels."""

    labels: list[Volume]
    raw: Volume

    @classmethod
    def of(cls, store: Location) -> _Source:
        return cls([open_volume(store, group) for group in _GROUPS], open_volume(store))

    @property
    def shape_zyx(self) -> Zyx:
        return self.labels[0].shape_zyx

    @property
    def spacing(self) -> VoxelSpacing:
        return self.labels[0].spacing

    @property
    def channels(self) -> list[str]:
        return [*_MASKS, *self.raw.channel_names]

    def grey(self, box: Box, channel: int) -> NDArray[Any]:
        """Raw voxels; axial restoration makes the labels' grid finer, and repeats raw slices."""
        if self.raw.shape_zyx == self.shape_zyx:
            return self.raw.read(box, channel)
        edges = zip(self.spacing.zyx, self.raw.spacing.zyx, strict=True)
        wanted = [
            # Both grids share the face of their first voxel.
            np.minimum(
                ((np.arange(part.start, part.stop) + 0.5) * fine / raw).astype(int), size - 1
            )
            for part, (fine, raw), size in zip(box, edges, self.raw.shape_zyx, strict=True)
        ]
        z, y, x = (slice(int(index[0]), int(index[-1]) + 1) for index in wanted)
        found = self.raw.read((z, y, x), channel)
        return np.asarray(found[np.ix_(*(index - index[0] for index in wanted))])


@dataclass(frozen=True)
class _Crop:
    """One spine's box; it may reach beyond the image."""

    spine_id: int
    dendrite_id: int
    start_zyx: Zyx


@dataclass(frozen=True)
class _Batch:
    """Spines of one set of files, by rising ids."""

    number: int
    crops: list[_Crop]


def write_spine_arrays(
    store: Location,
    folder: Path,
    spines: pd.DataFrame,
    box_um: float,
    report: Reporter,
    ledger: Ledger | None = None,
) -> list[Path]:
    """Write volumes and projections of every spine, masked and not, and their index.

    Parameters
    ----------
    folder
        Where `Spine_vols_NAME_bN.tif` (t z c y x, t counts spines), `Spine_MIPs_NAME_bN.tif`
        (z c y x, z counts spines), the same with `_masked` at the end of the name (grey values
        only inside the spine), and `Spine_index_NAME.csv` are written; those of an older export
        are removed.
    spines
        The image's spine table.
    box_um
        Edge of the box around the center of each head; whole voxels that cover it are taken.
    """
    name = store.name.removesuffix(".ome.zarr")
    if not all(exists(store, group) for group in _GROUPS):
        return remove_spine_arrays(folder, name)
    source, notes = _Source.of(store), ledger or Ledger()
    shape = _box_shape(box_um, source.spacing)
    batches = _batches(spines, shape, source)
    written: list[Path] = []
    rows: list[tuple[Any, ...]] = []
    for done, batch in enumerate(batches):
        report.progress(done, len(batches), "writing Spine_Arrays")
        files = _files(folder, name, batch.number)
        cut = _cut_in(files, notes)
        if cut is None:
            cut = _write_batch(batch, source, shape, files, report)
            for file in files.values():
                notes.add(file, {"cut": cut})
        written += files.values()
        rows += _rows(batch, files["vols"].name, set(cut), shape, source.shape_zyx)
    index = folder / f"Spine_index_{name}.csv"
    remove_spine_arrays(folder, name, keep={*written, index})
    return [*written, _write_index(rows, index)]


def remove_spine_arrays(folder: Path, name: str, keep: set[Path] | None = None) -> list[Path]:
    """Remove an image's arrays but for those to keep; nothing is left to be listed."""
    ours = re.compile(
        rf"Spine_(vols|MIPs)_{re.escape(name)}_b\d+(_masked)?\.tif|"
        rf"Spine_index_{re.escape(name)}\.csv"
    )
    for path in folder.glob("Spine_*") if folder.is_dir() else ():
        if ours.fullmatch(path.name) and path not in (keep or ()):
            path.unlink()
    return []


def _box_shape(box_um: float, spacing: VoxelSpacing) -> Zyx:
    """The least odd numbers of voxels that cover the box: the head's center is in the middle."""
    z, y, x = (2 * ceil((box_um / edge - 1) / 2 - 1e-6) + 1 for edge in spacing.zyx)
    return (max(z, 1), max(y, 1), max(x, 1))


def _batches(spines: pd.DataFrame, shape: Zyx, source: _Source) -> list[_Batch]:
    """Spines by place, as many together as memory allows."""
    centers = np.rint(spines[["z", "y", "x"]].to_numpy(np.float64)).astype(np.int64)
    order = np.lexsort(np.hstack([centers // _SHARD, centers // _CHUNK])[:, ::-1].T)
    ids = spines["spine_id"].to_numpy(np.int64)
    dendrites = spines["dendrite_id"].to_numpy(np.int64)
    starts = centers - np.array(shape) // 2
    itemsize = fiji_dtype(source.raw.dtype).itemsize
    spine_bytes = int(np.prod(shape)) * len(source.channels) * itemsize
    count = max(_BATCH_BYTES // spine_bytes, 1)
    batches = []
    for number, first in enumerate(range(0, len(order), count), start=1):
        rows = sorted(order[first : first + count], key=lambda row: ids[row])
        crops = [_Crop(int(ids[r]), int(dendrites[r]), _three(starts[r])) for r in rows]
        batches.append(_Batch(number, crops))
    return batches


def _files(folder: Path, name: str, batch: int) -> dict[str, Path]:
    return {
        "vols": folder / f"Spine_vols_{name}_b{batch}.tif",
        "MIPs": folder / f"Spine_MIPs_{name}_b{batch}.tif",
        "vols masked": folder / f"Spine_vols_{name}_b{batch}_masked.tif",
        "MIPs masked": folder / f"Spine_MIPs_{name}_b{batch}_masked.tif",
    }


def _cut_in(files: dict[str, Path], ledger: Ledger) -> list[int] | None:
    """Spines that their boxes cut, if all of these files are there already."""
    known = [ledger.facts(file) for file in files.values()]
    return None if None in known else list((known[0] or {})["cut"])


def _write_batch(
    batch: _Batch, source: _Source, shape: Zyx, files: dict[str, Path], report: Reporter
) -> list[int]:
    """Write the four files of a batch; ids of the spines that their boxes cut."""
    pictures = np.zeros(
        (len(batch.crops), len(source.channels), *shape), fiji_dtype(source.raw.dtype)
    )
    order = sorted(range(len(batch.crops)), key=lambda n: _cell(batch.crops[n]))
    for _, together in itertools.groupby(order, key=lambda n: _cell(batch.crops[n])):
        report.check()
        _fill([(pictures[n], batch.crops[n]) for n in together], source)
    cut = [
        crop.spine_id
        for crop, picture in zip(batch.crops, pictures, strict=True)
        if _is_cut(picture[:2].max(axis=0) > 0, crop.start_zyx, source.shape_zyx)
    ]
    _write_pair(pictures, batch, source, files["vols"], files["MIPs"])
    # In place: a second copy would double what a batch needs.
    pictures[:, len(_MASKS) :] *= pictures[:, :2].max(axis=1, keepdims=True)
    _write_pair(pictures, batch, source, files["vols masked"], files["MIPs masked"])
    return cut


def _cell(crop: _Crop) -> tuple[int, ...]:
    """The chunk that a box begins in."""
    return tuple((np.array(crop.start_zyx) // _CHUNK).tolist())


def _fill(pairs: list[tuple[NDArray[Any], _Crop]], source: _Source) -> None:
    """Read neighboring spines' boxes into (c, z, y, x); what lies outside the image stays 0.

    One box around all of them is read: each by itself would decode the same chunks again.
    """
    shape = _three(pairs[0][0].shape[1:])
    places = [_clipped(crop.start_zyx, shape, source.shape_zyx) for _, crop in pairs]
    around = _around([inside for inside, _ in places])
    for channel, labels in enumerate(source.labels):
        ids = labels.read(around)
        for (picture, crop), (inside, here) in zip(pairs, places, strict=True):
            number = crop.dendrite_id if _MASKS[channel] == "dendrite" else crop.spine_id
            picture[channel][here] = ids[relative(inside, around)] == number
    for channel in range(1, source.raw.channels + 1):
        grey = source.grey(around, channel)
        for (picture, _), (inside, here) in zip(pairs, places, strict=True):
            picture[len(_MASKS) + channel - 1][here] = grey[relative(inside, around)]


def _around(boxes: list[Box]) -> Box:
    z, y, x = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )
    return (z, y, x)


def _clipped(start: Zyx, shape: Zyx, limits: Zyx) -> tuple[Box, Box]:
    """The part of a box that is inside the image: in the image, and in the box."""
    low = [max(s, 0) for s in start]
    high = [min(s + n, size) for s, n, size in zip(start, shape, limits, strict=True)]
    z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
    hz, hy, hx = (slice(a - s, max(b - s, 0)) for a, b, s in zip(low, high, start, strict=True))
    return (z, y, x), (hz, hy, hx)


def _is_cut(spine: NDArray[np.bool_], start: Zyx, limits: Zyx) -> bool:
    """Whether a spine reaches a side of its box beyond which there is more image."""
    for axis in range(3):
        last = spine.shape[axis] - 1
        if start[axis] > 0 and np.take(spine, 0, axis).any():
            return True
        if start[axis] + last + 1 < limits[axis] and np.take(spine, last, axis).any():
            return True
    return False


def _write_pair(
    pictures: NDArray[Any], batch: _Batch, source: _Source, volumes: Path, mips: Path
) -> None:
    count, channels, depth, height, width = pictures.shape
    labels = [[f"spine {crop.spine_id} {name}" for name in source.channels] for crop in batch.crops]
    write_fiji_tiff(
        volumes,
        _planes(pictures),
        "TZCYX",
        (count, depth, channels, height, width),
        pictures.dtype,
        source.spacing,
        labels=[label for spine in labels for _ in range(depth) for label in spine],
    )
    write_fiji_tiff(
        mips,
        (plane for picture in pictures for plane in picture.max(axis=1)),
        "ZCYX",
        (count, channels, height, width),
        pictures.dtype,
        source.spacing,
        labels=[label for spine in labels for label in spine],
    )


def _planes(pictures: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Planes in the order t z c of pictures (t, c, z, y, x)."""
    for picture in pictures:
        for z in range(picture.shape[1]):
            yield from picture[:, z]


def _rows(
    batch: _Batch, file: str, cut: set[int], shape: Zyx, limits: Zyx
) -> list[tuple[Any, ...]]:
    return [
        (
            crop.spine_id,
            crop.dendrite_id,
            file,
            position,
            *crop.start_zyx,
            any(
                start < 0 or start + edge > size
                for start, edge, size in zip(crop.start_zyx, shape, limits, strict=True)
            ),
            crop.spine_id in cut,
        )
        for position, crop in enumerate(batch.crops, start=1)
    ]


def _write_index(rows: list[tuple[Any, ...]], path: Path) -> Path:
    table = pd.DataFrame(rows, columns=list(INDEX_COLUMNS)).sort_values("spine_id")
    with complete_or_absent(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")
    return path


def _three(values: Sequence[int] | NDArray[np.int64]) -> Zyx:
    z, y, x = (int(value) for value in values)
    return (z, y, x)
