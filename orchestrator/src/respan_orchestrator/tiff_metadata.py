"""Voxel size and channel names that a TIFF carries: OME, ImageJ or plain resolution tags.

What is not a length is not a voxel size: no unit, "pixel", a screen's 72 dpi, or the placeholder of
1 x 1 x 1 that some programs write when they know nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

_UM_PER_UNIT = {
    "m": 1e6,
    "meter": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "pm": 1e-6,
    "å": 1e-4,
    "inch": 25400.0,
    "in": 25400.0,
}
# A light microscope's pixels are far smaller than 20 µm; 1200 dpi of a scanner is 21 µm.
_PLAUSIBLE_XY_UM = (0.001, 20.0)
_PLAUSIBLE_Z_UM = (0.001, 100.0)
_INCH, _CENTIMETER = 2, 3


@dataclass(frozen=True)
class FileSpacing:
    """Voxel size as far as a file says it, µm; None: it does not."""

    z_um: float | None = None
    y_um: float | None = None
    x_um: float | None = None

    @property
    def zyx(self) -> tuple[float | None, float | None, float | None]:
        """The three as a tuple."""
        return (self.z_um, self.y_um, self.x_um)


def file_spacing(tif: Any) -> FileSpacing:
    """Voxel size of an open file; implausible edges are left out."""
    if tif.is_ome:
        found = _ome_spacing(_ome_pixels(tif))
    elif tif.is_imagej:
        found = _spacing_with_unit(tif, tif.imagej_metadata or {})
    elif tif.is_shaped and (tif.shaped_metadata or [{}])[0].get("unit"):
        found = _spacing_with_unit(tif, tif.shaped_metadata[0])
    else:
        x_um, y_um = (_tag_edge_um(tif, name) for name in ("XResolution", "YResolution"))
        found = FileSpacing(None, y_um, x_um)
    if found.zyx == (1.0, 1.0, 1.0):
        return FileSpacing()
    return FileSpacing(
        _plausible(found.z_um, _PLAUSIBLE_Z_UM),
        _plausible(found.y_um, _PLAUSIBLE_XY_UM),
        _plausible(found.x_um, _PLAUSIBLE_XY_UM),
    )


def channel_names(tif: Any, channels: int) -> list[str]:
    """Names of the channels from OME metadata; C1, C2, ... for those without."""
    names: list[str] = []
    if tif.is_ome:
        pixels = _ome_pixels(tif)
        found = pixels.findall("{*}Channel") if pixels is not None else []
        names = [channel.get("Name") or "" for channel in found]
    names += [""] * channels
    return [name.strip() or f"C{number + 1}" for number, name in enumerate(names[:channels])]


def _ome_pixels(tif: Any) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tif.ome_metadata or "").find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None


def _ome_spacing(pixels: ElementTree.Element | None) -> FileSpacing:
    if pixels is None:
        return FileSpacing()
    z_um, y_um, x_um = (
        _edge_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "ZYX"
    )
    return FileSpacing(z_um, y_um, x_um)


def _spacing_with_unit(tif: Any, metadata: Mapping[str, Any]) -> FileSpacing:
    """ImageJ's way: `unit` and `spacing` in the description, pixels per unit in the tags."""
    unit = str(metadata.get("unit", ""))
    x_um, y_um = (
        _edge_um(_inverse(_ratio(tif, name)), unit) for name in ("XResolution", "YResolution")
    )
    z_unit = str(metadata.get("zunit", unit))
    return FileSpacing(_edge_um(metadata.get("spacing"), z_unit), y_um, x_um)


def _tag_edge_um(tif: Any, name: str) -> float | None:
    tag = tif.pages[0].tags.get("ResolutionUnit")
    unit = {_INCH: "inch", _CENTIMETER: "cm"}.get(int(tag.value) if tag is not None else 0, "")
    return _edge_um(_inverse(_ratio(tif, name)), unit)


def _ratio(tif: Any, name: str) -> float | None:
    tag = tif.pages[0].tags.get(name)
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or not tag.value[1]:
        return None
    return float(tag.value[0] / tag.value[1])


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _edge_um(value: Any, unit: str) -> float | None:
    factor = _UM_PER_UNIT.get(_plain_unit(unit))
    try:
        # ImageJ writes a negative spacing for stacks that run downwards.
        length = abs(float(value)) * factor if factor is not None else math.nan
    except (TypeError, ValueError):
        return None
    return length if math.isfinite(length) and length > 0 else None


def _plain_unit(unit: str) -> str:
    # ImageJ writes the letter µ as an escape in its description.
    return unit.replace("\\u00B5", "µ").replace("\\u00b5", "µ").strip().lower()


def _plausible(edge_um: float | None, limits: tuple[float, float]) -> float | None:
    return edge_um if edge_um is not None and limits[0] <= edge_um <= limits[1] else None
