"""Read and write TIFF volumes together with their voxel size."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from respan_common.errors import VolumeFormatError
from respan_common.geometry import VoxelSpacing

# ImageJ escapes the Greek letter; OME and ImageJ both default to µm once a size is given.
_MICRONS_IN = {
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
}


def read_volume(path: Path) -> tuple[NDArray[Any], VoxelSpacing | None]:
    """Voxels (z, y, x) of a TIFF and their size, if the file says it (ImageJ or OME metadata).

    Raises
    ------
    VolumeFormatError
        If the file is not a three-dimensional TIFF.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            array = tiff.asarray()
            spacing = _spacing_of(tiff)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise VolumeFormatError(f"{path} cannot be read as a TIFF: {error}") from error
    if array.ndim != 3:
        raise VolumeFormatError(
            f"{path} has {array.ndim} axes (shape {array.shape}); "
            "a training volume has three: z, y, x"
        )
    return array, spacing


def read_spacing(path: Path) -> VoxelSpacing | None:
    """Voxel size that a TIFF's metadata gives; None if it gives none."""
    with tifffile.TiffFile(path) as tiff:
        return _spacing_of(tiff)


def write_volume(path: Path, array: NDArray[Any], spacing: VoxelSpacing) -> None:
    """Write an ImageJ TIFF under a temporary name, then rename it.

    Parameters
    ----------
    array
        (z, y, x) or (z, c, y, x), uint8, uint16 or float32, or object numbers of any width, which
        become uint16: ImageJ knows no other types. Read plane by plane.

    Raises
    ------
    VolumeFormatError
        If an object number does not fit.
    """
    is_wide = array.dtype.kind in "ui" and array.dtype.itemsize > 2
    if is_wide and array.max(initial=0) > np.iinfo(np.uint16).max:
        raise VolumeFormatError(f"{array.max()} objects do not fit into an ImageJ TIFF (65535)")
    dtype = np.dtype(np.uint16) if is_wide else array.dtype
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    tifffile.imwrite(
        partial,
        (np.ascontiguousarray(array[place], dtype) for place in np.ndindex(array.shape[:-2])),
        shape=array.shape,
        dtype=dtype,
        imagej=True,
        compression="zlib",
        resolution=(1 / spacing.x_um, 1 / spacing.y_um),
        metadata={
            "axes": "ZCYX" if array.ndim == 4 else "ZYX",
            "spacing": spacing.z_um,
            "unit": "micron",
        },
    )
    os.replace(partial, path)


def _spacing_of(tiff: tifffile.TiffFile) -> VoxelSpacing | None:
    if tiff.ome_metadata:
        return _ome_spacing(tiff.ome_metadata)
    if tiff.imagej_metadata:
        return _imagej_spacing(tiff.imagej_metadata, tiff.pages.first)
    return None


def _imagej_spacing(metadata: dict[str, Any], page: tifffile.TiffPage) -> VoxelSpacing | None:
    microns = _MICRONS_IN.get(str(metadata.get("unit", "")).lower())
    if microns is None or "spacing" not in metadata or "XResolution" not in page.tags:
        return None
    y_um, x_um = (
        _edge_of(page.tags[name].value) * microns for name in ("YResolution", "XResolution")
    )
    return VoxelSpacing(float(metadata["spacing"]) * microns, y_um, x_um)


def _edge_of(resolution: tuple[int, int]) -> float:
    # Resolution is voxels per unit as a fraction; six digits undo its rounding.
    voxels, units = resolution
    return float(f"{units / voxels:.6g}")


def _ome_spacing(xml: str) -> VoxelSpacing | None:
    pixels = next(
        (part for part in ElementTree.fromstring(xml).iter() if re.search(r"}?Pixels$", part.tag)),
        None,
    )
    edges = [] if pixels is None else [_ome_edge(pixels.attrib, axis) for axis in "ZYX"]
    known = [edge for edge in edges if edge is not None]
    return VoxelSpacing(*known) if len(known) == 3 else None


def _ome_edge(attributes: dict[str, str], axis: str) -> float | None:
    microns = _MICRONS_IN.get(attributes.get(f"PhysicalSize{axis}Unit", "µm").lower())
    size = attributes.get(f"PhysicalSize{axis}")
    return None if size is None or microns is None else float(size) * microns
