"""Write TIFFs that Fiji opens with their scale: pixels per µm, unit and distance of slices.

One plane is in memory at a time, and a file appears under its name only when it is complete.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing

# Offsets in a classic TIFF have 32 bits; RESPAN, too, leaves room for headers.
_LARGEST_CLASSIC_BYTES = int(3.5 * 2**30)


def fiji_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type that Fiji can show and that holds the values: ids and signs do not wrap.

    float32 is exact for whole numbers up to 16,777,216.
    """
    return dtype if dtype.name in ("uint8", "uint16", "float32") else np.dtype(np.float32)


def write_fiji_tiff(
    path: Path,
    planes: Iterable[NDArray[Any]],
    axes: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    spacing: VoxelSpacing,
    names: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> Path:
    """Write planes (y, x) in the order of `axes`.

    Parameters
    ----------
    planes
        As many as the axes before y and x count; converted to `dtype`.
    axes
        ZYX, CYX, ZCYX or TZCYX.
    dtype
        One of uint8, uint16, float32.
    names
        Names of the channels.
    labels
        A label for every plane, instead of its channel's name.

    Notes
    -----
    Above 3.5 GiB it is a BigTIFF with OME metadata, which Fiji opens with Bio-Formats; ImageJ's own
    metadata has no room for more. It has no labels.
    """
    is_big = math.prod(shape) * dtype.itemsize > _LARGEST_CLASSIC_BYTES
    # ImageJ has one label per plane.
    every = labels or list(names) * (math.prod(shape[:-2]) // max(len(names), 1))
    options = _ome(axes, spacing, names) if is_big else _imagej(axes, spacing, every)
    with complete_or_absent(path) as temporary:
        tifffile.imwrite(
            temporary,
            (np.ascontiguousarray(plane, dtype) for plane in planes),
            shape=shape,
            dtype=dtype,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1},
            maxworkers=1,
            **options,
        )
    return path


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """Temporary name to write to; it becomes `path` if all went well, and is removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _imagej(axes: str, spacing: VoxelSpacing, labels: Sequence[str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": axes, "unit": "micron", "spacing": spacing.z_um}
    if labels:
        metadata["Labels"] = list(labels)
        metadata["mode"] = "grayscale"
    resolution = (1 / spacing.x_um, 1 / spacing.y_um)
    return {"imagej": True, "resolution": resolution, "metadata": metadata}


def _ome(axes: str, spacing: VoxelSpacing, names: Sequence[str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": axes}
    for axis, edge_um in zip("ZYX", spacing.zyx, strict=True):
        metadata |= {f"PhysicalSize{axis}": edge_um, f"PhysicalSize{axis}Unit": "µm"}
    if names:
        metadata["Channel"] = {"Name": list(names)}
    return {
        "ome": True,
        "bigtiff": True,
        "resolution": (1e4 / spacing.x_um, 1e4 / spacing.y_um),
        "resolutionunit": "CENTIMETER",
        "metadata": metadata,
    }
