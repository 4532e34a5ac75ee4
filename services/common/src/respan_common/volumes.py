"""Read and write OME-Zarr arrays. The only module that knows Zarr and tensorstore.

Voxels only: what they mean is in `ngff`, whether to believe them in `records`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BloscCodec

from respan_common import ngff
from respan_common.blocks import grid
from respan_common.buckets import BucketPath, Location
from respan_common.errors import (
    InputError,
    StorageError,
    VolumeFormatError,
    VolumeNotFoundError,
)
from respan_common.geometry import Box, VoxelSpacing, Zyx, whole
from respan_common.records import record_of, verify

# 32 x 128 x 128 voxels decode in about a millisecond and are what a viewer asks for; shards of
# 64 x 512 x 512 keep the number of files small. A shard has one writer, always.
_CHUNK: Zyx = (32, 128, 128)
_CHUNKS_PER_SHARD: Zyx = (2, 4, 4)
_CACHE_BYTES = 32 * 2**20
# As long as it takes a server to start over; the default, many minutes, seems to hang.
_S3_RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "10s"}
_AWAY = ("UNAVAILABLE", "PERMISSION_DENIED", "UNAUTHENTICATED", "DEADLINE_EXCEEDED", "ABORTED")
"""How tensorstore's errors begin that say nothing of the data."""


@dataclass(frozen=True)
class Volume:
    """One level of a published image or label image."""

    store: Location
    group: str
    level: int
    digest: str
    """Digest of the record that vouches for it."""
    attributes: dict[str, Any]

    @cached_property
    def _array(self) -> Any:
        return _open_for_reading(self.store / self.group / str(self.level))

    @property
    def has_channels(self) -> bool:
        """Whether the array is (c, z, y, x)."""
        return len(self._array.shape) == 4

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels along each axis."""
        z, y, x = self._array.shape[-3:]
        return (z, y, x)

    @property
    def channels(self) -> int:
        """Number of channels; 1 for label images."""
        return int(self._array.shape[0]) if self.has_channels else 1

    @property
    def channel_names(self) -> list[str]:
        """Labels of the channels."""
        return ngff.channel_names_of(self.attributes) or [str(n + 1) for n in range(self.channels)]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel's value."""
        dtype: np.dtype[Any] = np.dtype(self._array.dtype.numpy_dtype)
        return dtype

    @property
    def spacing(self) -> VoxelSpacing:
        """Voxel size of this level."""
        return ngff.spacing_of(self.attributes, self.level)

    def read(self, box: Box | None = None, channel: int = 1) -> NDArray[Any]:
        """Voxels of one channel, shape (z, y, x).

        Parameters
        ----------
        box
            What to read; absent: everything.
        channel
            Counted from 1; label images have only one.

        Raises
        ------
        InputError
            If there is no such channel.
        VolumeFormatError
            If a shard does not decode (its checksum is wrong, say).
        StorageError
            If it lies in a bucket that is away.
        """
        if not 1 <= channel <= self.channels:
            raise InputError(
                f"channel {channel} does not exist: {self.store.name} has {self.channels} "
                f"channel{'s' if self.channels > 1 else ''}"
            )
        part = box if box is not None else whole(self.shape_zyx)
        selected = self._array[(channel - 1, *part)] if self.has_channels else self._array[part]
        try:
            return np.asarray(selected.read().result())
        except ValueError as error:
            _raise_if_away(self.store, error)
            raise VolumeFormatError(
                f"'{self.group or 'the raw image'}' of {self.store} is damaged: {error}"
            ) from error


def open_volume(store: Location, group: str = "", level: int = 0) -> Volume:
    """Open a published image ("" is the raw one) or label image that agrees with its record.

    Raises
    ------
    VolumeNotFoundError
        If the store or the group does not exist or was never finished.
    VolumeFormatError
        If it no longer agrees with its record.
    """
    if not store.is_dir():
        raise VolumeNotFoundError(f"there is no OME-Zarr at {store}")
    record = record_of(store, group)
    if record is None:
        raise VolumeNotFoundError(f"{store} has no finished '{group or 'raw image'}'")
    verify(store, group, record)
    volume = Volume(store, group, level, record.digest, _read_attributes(store / group))
    if volume.shape_zyx != record.outputs[group].shape[-3:] and level == 0:
        raise VolumeFormatError(f"'{group}' of {store} has another shape than its record says")
    return volume


@dataclass(frozen=True)
class ForeignArray:
    """The full resolution of somebody else's label image."""

    _array: Any

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels along each axis."""
        z, y, x = self._array.shape[-3:]
        return (z, y, x)

    def read(self, box: Box) -> NDArray[Any]:
        """Voxels, shape (z, y, x)."""
        lead = (0,) * (len(self._array.shape) - 3)
        return np.asarray(self._array[(*lead, *box)].read().result())


def open_foreign_array(folder: Path) -> ForeignArray:
    """Open level 0 of an OME-Zarr (0.4 or 0.5) that has no completion record of ours.

    Raises
    ------
    VolumeFormatError
        If it is none, or has several channels or time points.
    """
    for driver, marker in (("zarr3", "zarr.json"), ("zarr", ".zarray")):
        if (folder / "0" / marker).is_file():
            array = _open_for_reading(folder / "0", driver)
            if len(array.shape) < 3 or any(size != 1 for size in array.shape[:-3]):
                raise VolumeFormatError(f"{folder} has the shape {array.shape}, not (z, y, x)")
            return ForeignArray(array)
    raise VolumeFormatError(f"{folder} is not an OME-Zarr image: it has no array called 0")


def exists(store: Location, group: str) -> bool:
    """Whether a group has been published."""
    return store.is_dir() and record_of(store, group) is not None


class LevelWriter:
    """Writes level 0 of an unpublished group, shard by shard.

    Parameters
    ----------
    folder
        The group's folder; created, or taken up again if the same array is already there.
    shape
        (z, y, x) or (c, z, y, x).
    dtype
        Type of a voxel's value.
    """

    def __init__(self, folder: Path, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.folder = folder
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.block_zyx = shard_shape(self.shape_zyx)
        self._array = _array_at(folder / "0", self.shape, self.dtype)

    @classmethod
    def existing(cls, folder: Path) -> LevelWriter:
        """Take up a group that another process began."""
        array = _open_for_reading(folder / "0")
        return cls(folder, array.shape, array.dtype.numpy_dtype)

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels along each axis."""
        z, y, x = self.shape[-3:]
        return (z, y, x)

    def write(self, box: Box, values: NDArray[Any], channel: int = 1) -> None:
        """Write whole shards of one channel.

        `box` must start on shard borders and end on them or at the array's end: a shard that is
        written in parts, or by two writers, can be lost in a crash.
        """
        for part, edge, size in zip(box, self.block_zyx, self.shape_zyx, strict=True):
            assert part.start % edge == 0, f"{box} does not start on a shard"
            assert part.stop % edge == 0 or part.stop == size, f"{box} does not end on a shard"
        target = (channel - 1, *box) if len(self.shape) == 4 else box
        self._array[target] = values.astype(self.dtype, copy=False)

    def read(self, box: Box, channel: int = 1) -> NDArray[Any]:
        """Voxels that were written before; only for the stage that writes them."""
        array = _open_for_reading(self.folder / "0")
        return np.asarray(array[(channel - 1, *box) if array.ndim == 4 else box].read().result())


def build_pyramid(folder: Path, factors: Sequence[Zyx], *, averaged: bool) -> None:
    """Write the coarser levels of a group from its level 0.

    Parameters
    ----------
    folder
        The group's folder.
    factors
        Factor of every level against level 0, starting with (1, 1, 1).
    averaged
        Mean of the fine voxels (images), or the first of them (labels: never a value that the
        fine level does not have).
    """
    for level in range(1, len(factors)):
        step = _ratio(factors[level], factors[level - 1])
        fine = _open_for_reading(folder / str(level - 1))
        z, y, x = ngff.level_shape(fine.shape[-3:], step)
        coarse = _array_at(folder / str(level), (*fine.shape[:-3], z, y, x), fine.dtype.numpy_dtype)
        for channel in range(fine.shape[0]) if len(fine.shape) == 4 else [...]:
            for block in grid((z, y, x), shard_shape((z, y, x))):
                values = _coarse(fine[channel], block.inner, step, averaged=averaged)
                coarse[(channel, *block.inner) if channel is not ... else block.inner] = values


def _coarse(fine: Any, box: Box, step: Zyx, *, averaged: bool) -> NDArray[Any]:
    region = tuple(
        slice(part.start * factor, min(part.stop * factor, size))
        for part, factor, size in zip(box, step, fine.shape, strict=True)
    )
    if not averaged:
        stepped = tuple(
            slice(part.start, part.stop, factor) for part, factor in zip(region, step, strict=True)
        )
        return np.asarray(fine[stepped].read().result())
    # One layer of chunks at a time: a whole shard would need eight shards' worth of fine voxels.
    depth = max(_CHUNK[0] // step[0], 1) * step[0]
    layers = range(region[0].start, region[0].stop, depth)
    return np.concatenate(
        [
            _mean(fine[slice(z, min(z + depth, region[0].stop)), region[1], region[2]], step)
            for z in layers
        ]
    )


def _mean(fine: Any, step: Zyx) -> NDArray[Any]:
    """Mean of each cell of fine voxels, in their own type; a partial cell repeats its last one."""
    values = np.asarray(fine.read().result())
    missing = [(0, -size % factor) for size, factor in zip(values.shape, step, strict=True)]
    if any(after for _, after in missing):
        values = np.pad(values, missing, mode="edge")
    z, y, x = (size // factor for size, factor in zip(values.shape, step, strict=True))
    # float32 holds every mean of 16-bit values, but not every 32-bit whole number.
    is_wide = np.issubdtype(values.dtype, np.integer) and values.itemsize > 2
    exact = np.float64 if is_wide else np.float32
    mean = values.reshape(z, step[0], y, step[1], x, step[2]).mean(axis=(1, 3, 5), dtype=exact)
    whole_numbers = np.issubdtype(values.dtype, np.integer)
    coarse: NDArray[Any] = (np.rint(mean) if whole_numbers else mean).astype(values.dtype)
    return coarse


def read_level(folder: Path, level: int) -> NDArray[Any]:
    """A whole level of an unpublished group; only for levels that fit memory."""
    return np.asarray(_open_for_reading(folder / str(level)).read().result())


def write_group_attributes(folder: Path, attributes: dict[str, Any]) -> None:
    """Create a Zarr v3 group at `folder`, or replace its attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "zarr.json.tmp"
    temporary.write_text(group_json(attributes), encoding="utf-8")
    temporary.replace(folder / "zarr.json")


def group_json(attributes: dict[str, Any]) -> str:
    """Content of a Zarr v3 group's zarr.json."""
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(content, indent=1)


def shard_files(shape: Sequence[int]) -> int:
    """Number of shard files of an array of that shape, when every one of them is written."""
    z, y, x = shape[-3:]
    channels = shape[0] if len(shape) == 4 else 1
    return channels * len(grid((z, y, x), shard_shape((z, y, x))))


def _raise_if_away(place: Location, error: Exception) -> None:
    if isinstance(place, BucketPath) and str(error).startswith(_AWAY):
        raise StorageError(f"{place} cannot be read now (AWS_ENDPOINT_URL): {error}") from error


def _read_attributes(folder: Location) -> dict[str, Any]:
    try:
        content = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VolumeNotFoundError(f"{folder} is not a Zarr group") from error
    except ValueError as error:
        raise VolumeFormatError(f"{folder / 'zarr.json'} is not JSON: {error}") from error
    return dict(content.get("attributes", {}))


@cache
def _context() -> Any:
    """One pool of decoded chunks per process, however many arrays are open."""
    return tensorstore.Context(
        {
            "cache_pool": {"total_bytes_limit": _CACHE_BYTES},
            "s3_request_retries": _S3_RETRIES,
        }
    )


def _open_for_reading(folder: Location, driver: str = "zarr3") -> Any:
    spec: dict[str, Any] = {"driver": driver}
    if isinstance(folder, BucketPath):
        # An object may go while it is read, and would else pass for background.
        spec |= {"kvstore": folder.kvstore(), "fill_missing_data_reads": False}
    else:
        spec["kvstore"] = {"driver": "file", "path": f"{folder}/"}
    try:
        return tensorstore.open(spec, context=_context(), read=True, open=True).result()
    except (ValueError, OSError) as error:
        _raise_if_away(folder, error)
        raise VolumeFormatError(f"{folder} cannot be opened as a Zarr array: {error}") from error


def _array_at(folder: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    lead = (1,) * (len(shape) - 3)
    z, y, x = shape[-3:]
    if (folder / "zarr.json").exists():
        # zarr 3.1 does not listen to `config` when it opens an array.
        return zarr.open_array(folder, mode="r+").with_config({"write_empty_chunks": True})
    return zarr.create_array(
        folder,
        shape=tuple(shape),
        dtype=dtype,
        chunks=lead + _chunk_shape((z, y, x)),
        shards=lead + shard_shape((z, y, x)),
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
        fill_value=0,
        dimension_names=["c", "z", "y", "x"][-len(shape) :],
        # An absent chunk would be read as background: every one is written.
        config={"write_empty_chunks": True},
    )


def _chunk_shape(shape_zyx: Zyx) -> Zyx:
    z, y, x = (min(chunk, max(size, 1)) for chunk, size in zip(_CHUNK, shape_zyx, strict=True))
    return (z, y, x)


def shard_shape(shape_zyx: Zyx) -> Zyx:
    """Voxels of a shard in an array of that shape; a shard has one writer."""
    chunk = _chunk_shape(shape_zyx)
    z, y, x = (
        edge * min(most, -(-size // edge))
        for edge, most, size in zip(chunk, _CHUNKS_PER_SHARD, shape_zyx, strict=True)
    )
    return (z, y, x)


def _ratio(coarse: Zyx, fine: Zyx) -> Zyx:
    z, y, x = (one // other for one, other in zip(coarse, fine, strict=True))
    return (z, y, x)
