"""OME-NGFF metadata: what the voxels of a group mean. The only module that knows the version."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from respan_common.columns import Column
from respan_common.errors import VolumeFormatError
from respan_common.geometry import VoxelSpacing, Zyx

VERSION = "0.5"
TABLE = "table.parquet"
"""Name of a table's file in its group, as ngio has it."""
_COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF", "FFFFFF")
_LARGEST_TOP_LEVEL = 256
_MOST_LEVELS = 6


def pyramid_factors(shape_zyx: Zyx, spacing: VoxelSpacing) -> list[Zyx]:
    """Factor (z, y, x) of every level against level 0.

    Each step halves the axes that are still finely sampled, so that voxels grow towards cubes,
    until the level fits a screen.
    """
    factors: list[Zyx] = [(1, 1, 1)]
    while len(factors) < _MOST_LEVELS:
        shape = level_shape(shape_zyx, factors[-1])
        if max(shape) <= _LARGEST_TOP_LEVEL:
            break
        edges = [edge * factor for edge, factor in zip(spacing.zyx, factors[-1], strict=True)]
        z, y, x = (
            factor * 2 if edge < 2 * min(edges) and size > 1 else factor
            for factor, edge, size in zip(factors[-1], edges, shape, strict=True)
        )
        if (z, y, x) == factors[-1]:
            break
        factors.append((z, y, x))
    return factors


def level_shape(shape_zyx: Zyx, factor: Zyx) -> Zyx:
    """Shape of a level; partial cells at the end count."""
    z, y, x = (-(-size // step) for size, step in zip(shape_zyx, factor, strict=True))
    return (z, y, x)


def multiscales(
    name: str, spacing: VoxelSpacing, factors: Sequence[Zyx], *, has_channels: bool, averaged: bool
) -> list[dict[str, Any]]:
    """The `multiscales` list of one image.

    `averaged`: a coarse voxel's center is the mean of its fine voxels' centers (images); otherwise
    it is its first fine voxel's (labels).
    """
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    lead: list[float] = []
    if has_channels:
        axes.insert(0, {"name": "c", "type": "channel"})
        lead = [1.0]
    datasets = []
    for level, factor in enumerate(factors):
        scale = [edge * step for edge, step in zip(spacing.zyx, factor, strict=True)]
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": lead + scale}]
        if averaged and level > 0:
            shift = [edge * (step - 1) / 2 for edge, step in zip(spacing.zyx, factor, strict=True)]
            shift = [0.0 for _ in lead] + shift
            transformations.append({"type": "translation", "translation": shift})
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    return [{"name": name, "axes": axes, "datasets": datasets}]


def image_attributes(
    name: str,
    spacing: VoxelSpacing,
    factors: Sequence[Zyx],
    channel_names: Sequence[str],
    windows: Sequence[tuple[float, float]],
    dtype: np.dtype[Any],
    *,
    averaged: bool = True,
) -> dict[str, Any]:
    """Attributes of an image group with axes (c, z, y, x).

    `windows` are the grey values (low, high) that a viewer should map to black and full color.
    """
    lowest, highest = _range(dtype)
    channels = [
        {
            "label": label,
            "color": _COLORS[number % len(_COLORS)] if len(channel_names) > 1 else "FFFFFF",
            "active": True,
            "window": {
                "min": min(lowest, low),
                "max": max(highest, high),
                "start": low,
                "end": max(high, low + 1),
            },
        }
        for number, (label, (low, high)) in enumerate(zip(channel_names, windows, strict=True))
    ]
    scales = multiscales(name, spacing, factors, has_channels=True, averaged=averaged)
    return {"ome": {"version": VERSION, "multiscales": scales, "omero": {"channels": channels}}}


def label_attributes(
    name: str, spacing: VoxelSpacing, factors: Sequence[Zyx], names: Mapping[int, str]
) -> dict[str, Any]:
    """Attributes of a label group with axes (z, y, x); `names` says what single values mean."""
    image_label: dict[str, Any] = {"source": {"image": "../../"}}
    if names:
        image_label["colors"] = [
            {"label-value": value, "rgba": label_color(value)} for value in sorted(names)
        ]
        image_label["properties"] = [
            {"label-value": value, "name": names[value]} for value in sorted(names)
        ]
    scales = multiscales(name, spacing, factors, has_channels=False, averaged=False)
    return {"ome": {"version": VERSION, "multiscales": scales, "image-label": image_label}}


def labels_group_attributes(names: Sequence[str]) -> dict[str, Any]:
    """Attributes of the `labels` group that lists its label images."""
    return {"ome": {"version": VERSION, "labels": sorted(names)}}


def table_attributes(
    columns: Sequence[Column], index: str = "", labels: str = ""
) -> dict[str, Any]:
    """Attributes of a table's group, after ngio's specification of tables, version 1.

    NGFF itself has none yet. `index` is the column that holds the values of the label image
    `labels`; without it, the table describes no objects of an image. `columns` is our own addition.
    """
    described = {column.name: column.metadata() for column in columns}
    kind: dict[str, Any] = {"type": "generic_table"}
    if index:
        kind = {
            "type": "feature_table",
            "region": {"path": f"../labels/{labels}"},
            "index_key": index,
            "index_type": "int",
            # What ngio called the index before, and what the proposal for NGFF calls it.
            "instance_key": index,
        }
    return {"table_version": "1", "backend": "parquet", **kind, "columns": described}


def tables_group_attributes(names: Sequence[str]) -> dict[str, Any]:
    """Attributes of the `tables` group that lists its tables."""
    return {"tables": sorted(names)}


def label_color(value: int) -> list[int]:
    """Color (r, g, b, a) of a label value; neighboring values are far apart in hue."""
    hue = (value * 0.618034) % 1.0
    return [round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8, 1.0)] + [255]


def spacing_of(attributes: Mapping[str, Any], level: int = 0) -> VoxelSpacing:
    """Voxel size of a level.

    Raises
    ------
    VolumeFormatError
        If the attributes are not those of an NGFF image with z, y and x axes.
    """
    try:
        dataset = attributes["ome"]["multiscales"][0]["datasets"][level]
        scale = next(
            part["scale"]
            for part in dataset["coordinateTransformations"]
            if part["type"] == "scale"
        )
        z, y, x = scale[-3:]
    except (KeyError, IndexError, StopIteration, ValueError, TypeError) as error:
        raise VolumeFormatError(f"not the metadata of an OME-Zarr image: {error!r}") from error
    return VoxelSpacing(float(z), float(y), float(x))


def channel_names_of(attributes: Mapping[str, Any]) -> list[str]:
    """Labels of an image's channels; empty for label images."""
    channels = attributes.get("ome", {}).get("omero", {}).get("channels", [])
    return [str(channel.get("label", number + 1)) for number, channel in enumerate(channels)]


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        return float(info.min), float(info.max)
    return 0.0, 1.0
