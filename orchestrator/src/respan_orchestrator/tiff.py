"""Read a TIFF plane by plane: OME, ImageJ, BigTIFF or plain. Never the whole file at once.

A header may claim anything, so it is compared with the file before memory is asked for.
"""

from __future__ import annotations

import math
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from respan_common.errors import CapacityError, InputError, VolumeFormatError, VolumeNotFoundError
from respan_orchestrator.tiff_axes import name_axes
from respan_orchestrator.tiff_metadata import FileSpacing, channel_names, file_spacing

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")
"""Types of grey values that are kept as they are stored."""

_LARGEST_PAGE_BYTES = 8 * 2**30
# An all-black plane compresses about 20,000 times with zstd; beyond this, a header lies.
_MOST_COMPRESSION = 100_000
_BYTES_OF_TAG_TYPE = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
_NOT_DECODABLE = (
    tifffile.TiffFileError,
    ElementTree.ParseError,
    struct.error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    EOFError,
    RuntimeError,  # imagecodecs' decoders
    AssertionError,  # tifffile's own, about headers
)


class TiffImage:
    """One open image; a context manager.

    Parameters
    ----------
    path
        The file.
    axes
        Order of its axes, slowest first, if the settings say it.

    Raises
    ------
    InputError
        If the analysis cannot use such an image.
    VolumeFormatError
        If the file is damaged or no TIFF.
    """

    shape_czyx: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    spacing: FileSpacing
    channel_names: list[str]
    notes: list[str]

    def __init__(self, path: Path, axes: str = "") -> None:
        self.path = path
        _refuse_empty(path)
        with _decoding(path):
            self._tif: Any = tifffile.TiffFile(path)
        try:
            with _decoding(path), _naming(path):
                self._understand(axes)
        except BaseException:
            self._tif.close()
            raise

    def __enter__(self) -> TiffImage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tif.close()

    def read(self, channel: int, z: int) -> NDArray[Any]:
        """One plane (y, x), as stored but in this machine's byte order.

        Parameters
        ----------
        channel
            Counted from 1.
        z
            Counted from 0.

        Raises
        ------
        VolumeFormatError
            If it cannot be decoded, or has values that are no numbers.
        """
        with _decoding(self.path):
            plane = self._plane({"C": channel - 1, "Z": z, "T": 0})
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            count = int(np.count_nonzero(~np.isfinite(plane)))
            raise VolumeFormatError(
                f"{self.path}: channel {channel}, slice {z + 1} has {count} values that are no "
                f"numbers (NaN or infinite); replace them, in Fiji for example with "
                f"Process > Math > Macro"
            )
        return plane

    def _understand(self, wanted: str) -> None:
        series: Any = self._tif.series[0]
        _refuse_several_images(self._tif)
        _refuse_dtype(series)
        self._axes, shape, self.notes = name_axes(*_own_axes(series, wanted), wanted)
        sizes = dict(zip(self._axes, shape, strict=True))
        self.shape_czyx = (sizes.get("C", 1), sizes.get("Z", 1), sizes["Y"], sizes["X"])
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        self._series = series
        self._is_one_block = bool(series.is_truncated)
        _refuse_damage(self._tif, series)
        # Pages hold the fastest axes; the slower ones count pages.
        page_size = math.prod(series.keyframe.shape)
        count = math.prod(shape) // page_size
        lead = next(n for n in range(len(shape) + 1) if math.prod(shape[:n]) == count)
        self._numbers = np.arange(count).reshape(shape[:lead])
        self._page_shape = shape[lead:]
        self._kept: tuple[int, NDArray[Any]] | None = None
        self.spacing = file_spacing(self._tif)
        self.channel_names = channel_names(self._tif, self.shape_czyx[0])

    def _plane(self, at: dict[str, int]) -> NDArray[Any]:
        lead = self._numbers.ndim
        index = [at.get(axis, slice(None)) for axis in self._axes]
        numbers = np.asarray(self._numbers[tuple(index[:lead])])
        parts = [self._page(int(number))[tuple(index[lead:])] for number in numbers.flat]
        plane = parts[0] if numbers.ndim == 0 else np.stack(parts)
        plane = plane.reshape(numbers.shape + parts[0].shape)
        order = [axis for axis in self._axes if axis not in at]
        return plane.T if order == ["X", "Y"] else plane

    def _page(self, number: int) -> NDArray[Any]:
        if self._kept is None or self._kept[0] != number:
            values = self._stored(number) if self._is_one_block else self._decoded(number)
            values = values.astype(self.dtype, copy=False).reshape(self._page_shape)
            self._kept = (number, values)
        return self._kept[1]

    def _decoded(self, number: int) -> NDArray[Any]:
        return np.asarray(self._series.pages[number].asarray())

    def _stored(self, number: int) -> NDArray[Any]:
        """A page of a file that has a single header in front of all its planes."""
        dtype = self._tif.byteorder + np.dtype(self._series.dtype).char
        count = math.prod(self._page_shape)
        offset = self._series.dataoffset + number * count * self.dtype.itemsize
        return np.fromfile(self.path, dtype=dtype, count=count, offset=offset)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        yield
    except tifffile.TiffFileError as error:
        raise VolumeFormatError(f"{path} is not a TIFF file, or damaged: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except _NOT_DECODABLE as error:
        raise VolumeFormatError(
            f"{path} is damaged ({type(error).__name__}: {error}); copy it again from its source"
        ) from error
    except MemoryError as error:
        raise CapacityError(f"{path}: a plane does not fit this machine's memory") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name in front of what is wrong with it."""
    try:
        yield
    except (InputError, VolumeFormatError, CapacityError) as error:
        raise type(error)(f"{path}: {error}") from error


def _refuse_empty(path: Path) -> None:
    if not path.is_file():
        raise VolumeNotFoundError(f"there is no image {path}")
    if path.stat().st_size == 0:
        raise VolumeFormatError(f"{path} is empty (0 bytes); copy it again from its source")


def _own_axes(series: Any, wanted: str) -> tuple[str, tuple[int, ...]]:
    """Axes without those of size 1, unless the settings name all of them."""
    full = tuple(int(size) for size in series.get_shape(False))
    if wanted and len(wanted) == len(full):
        return str(series.get_axes(False)), full
    return str(series.axes), tuple(int(size) for size in series.shape)


def _refuse_several_images(tif: Any) -> None:
    """One file is one image; a smaller preview beside it does not count."""
    sizes = [series.size for series in tif.series]
    if any(size >= sizes[0] for size in sizes[1:]):
        shapes = ", ".join(str(series.shape) for series in tif.series[:4])
        raise InputError(
            f"the file holds {len(sizes)} images ({shapes}); save each as a file of its own"
        )


def _refuse_dtype(series: Any) -> None:
    name = "unknown" if series.dtype is None else np.dtype(series.dtype).name
    if name not in DTYPES:
        raise InputError(
            f"values of type {name} are not supported, only {', '.join(DTYPES)}; convert the "
            f"image, in Fiji with Image > Type"
        )


def _refuse_damage(tif: Any, series: Any) -> None:
    size = tif.filehandle.size
    if min(series.shape) < 1:
        raise VolumeFormatError(f"an axis of size 0 in {series.shape}")
    if series.is_truncated:
        _refuse_short(series.dataoffset + series.nbytes, size, series.shape)
        return
    _refuse_missing_pages(tif, series)
    for number, page in enumerate(series.pages):
        if page is None or page.parent is not tif:
            raise VolumeFormatError(
                f"plane {number + 1} of {len(series.pages)} is not in this file; save the image as "
                f"a single file"
            )
        _refuse_page(page, series.keyframe, size)


def _refuse_short(needed: int, size: int, shape: tuple[int | str, ...]) -> None:
    if needed > size:
        raise VolumeFormatError(
            f"the header promises {shape}, which needs {needed:,} bytes, but the file has "
            f"{size:,}: it is truncated or damaged; copy it again from its source"
        )


def _refuse_broken_chain(tif: Any) -> None:
    """Compare every page's header with the file.

    Each page names the next one. Where that leads nowhere, and where a tag such as the description
    lies beyond the file's end, tifffile goes on without it: a cut file would read as another image.
    """
    file, layout = tif.filehandle, tif.tiff
    file.seek(8 if layout.is_bigtiff else 4)
    seen: set[int] = set()
    while (offset := _unpacked(file, layout.offsetformat)) != 0:
        if offset in seen:
            raise VolumeFormatError(f"page {len(seen)} names an earlier page as the next one")
        seen.add(offset)
        file.seek(offset)
        for _ in range(_unpacked(file, layout.tagnoformat)):
            _refuse_cut_tag(file, layout)


def _refuse_cut_tag(file: Any, layout: Any) -> None:
    code, kind = _unpacked(file, layout.byteorder + "H"), _unpacked(file, layout.byteorder + "H")
    count = _unpacked(file, layout.offsetformat)
    place = _unpacked(file, layout.offsetformat)
    length = count * _BYTES_OF_TAG_TYPE.get(kind, 0)
    # Programs' private tags start at 32768; what they say does not matter here.
    if code < 32768 and length > layout.offsetsize and place + length > file.size:
        _refuse_short(place + length, file.size, (f"tag {code}",))


def _unpacked(file: Any, form: str) -> int:
    content = file.read(struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        raise VolumeFormatError("the file ends in a page's header: it is truncated")
    return int(struct.unpack(form, content)[0])


def _refuse_missing_pages(tif: Any, series: Any) -> None:
    """A cut file loses its last pages, and reads as a smaller image without complaint."""
    _refuse_broken_chain(tif)
    promised = 0
    if tif.is_imagej:
        promised = int((tif.imagej_metadata or {}).get("images", 0))
    elif tif.is_shaped:
        shape = (tif.shaped_metadata or [{}])[0].get("shape", [0])
        promised = math.prod(shape) // max(math.prod(series.keyframe.shape), 1)
    if promised > len(series.pages):
        raise VolumeFormatError(
            f"{promised} planes are promised, but {len(series.pages)} are there: the file is "
            f"truncated; copy it again from its source"
        )


def _refuse_page(page: Any, keyframe: Any, size: int) -> None:
    offsets, counts = page.dataoffsets, page.databytecounts
    stored = sum(counts)
    end = max((start + count for start, count in zip(offsets, counts, strict=False)), default=0)
    expected = math.prod(keyframe.chunked)
    missing = len(offsets) < expected or len(counts) < expected or 0 in counts[:expected]
    is_plain = keyframe.compression == 1 and keyframe.bitspersample % 8 == 0
    if missing or end > size or (is_plain and stored < keyframe.nbytes):
        _refuse_short(max(end, size + 1), size, keyframe.shape)
    if keyframe.nbytes > stored * _MOST_COMPRESSION:
        raise VolumeFormatError(
            f"the header promises {keyframe.shape} in {stored:,} bytes: it is damaged"
        )
    if keyframe.nbytes > _LARGEST_PAGE_BYTES:
        raise CapacityError(
            f"a page has {keyframe.nbytes / 2**30:.0f} GiB; save the image with one plane per page"
        )
