"""Picture of one image: its maximum projection, alone and with what was found drawn over.

A store is read block by block and shrunk on the way, so its size does not matter.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from respan_common.blocks import grid
from respan_common.buckets import Location
from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.ngff import label_color
from respan_common.records import StageRecord, read_record
from respan_common.volumes import Volume, open_volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = ("ingest", "restoration", "segmentation", "quantification", "export")
"""Every stage that leaves a record in an image's store, in order."""

_IMAGES = {"raw", "restored", "classes", "labels/classes"}
"""What stages call those of their inputs that other stages have made."""
_LARGEST_PANEL_PX = (900, 780)
"""Height and width; two panels and their margins are about 1600 pixels wide."""
_NARROWEST_COLUMN_PX = 330
"""Room for the words above and below a panel."""
_MARGIN_PX, _CAPTION_PX, _FOOTER_PX = 14, 30, 44
_DPI = 100
_BLOCK: Zyx = (64, 512, 512)
_BACKGROUND, _INK, _QUIET_INK = "#15171a", "#f2f2f2", "#a9b0b8"
_DENDRITE, _SKELETON = "#2f9bff", "#ffd60a"
_SPINE_OPACITY = 0.6
_DARKEST, _BRIGHTEST = 5.0, 99.7
"""Percentiles of the projection that become black and white."""
_GAMMA = 0.7
"""Below 1: dim spines beside a bright shaft stay visible."""


@dataclass(frozen=True)
class _Panel:
    """Size of one panel on paper and in the field."""

    height_px: int
    width_px: int
    height_um: float
    width_um: float

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom, top in µm; the first row is on top."""
        return (0.0, self.width_um, self.height_um, 0.0)


@dataclass(frozen=True)
class _Found:
    """Projections (y, x) of the label images that there are."""

    spines: NDArray[np.uint32] | None
    dendrites: NDArray[np.uint32] | None
    skeleton: NDArray[np.uint32] | None


def write_overview(store: Location, target: Path) -> Path:
    """Draw one image: on the left its projection, on the right the same with spines and dendrites.

    Parameters
    ----------
    store
        The image's OME-Zarr. Label images that are not there are not drawn.
    target
        Picture to write; its suffix (.png, .webp, .jpg) decides the format.

    Raises
    ------
    VolumeNotFoundError
        If the image was never ingested.
    VolumeFormatError
        If the image or one of its label images is damaged.
    """
    raw = open_volume(store)
    panel = _panel(raw.shape_zyx, raw.spacing)
    image = stretched(_image_projection(raw, neuron_channel(store, raw), panel))
    figure = _drawn(image, _found(store, panel), panel)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        options = {"quality": 85} if target.suffix.lower() in (".webp", ".jpg") else {}
        figure.savefig(temporary, facecolor=_BACKGROUND, dpi=_DPI, pil_kwargs=options)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def current_records(store: Location) -> list[StageRecord]:
    """Records, in the order of stages, of results that belong together.

    A stage that was done again leaves the results of later stages behind until these are done
    again, too; such leftovers are not listed.
    """
    current: list[StageRecord] = []
    for stage in STAGES:
        record = read_record(store, stage)
        if record is not None:
            digests = {found.digest for found in current}
            if all(record.inputs[name] in digests for name in _IMAGES & set(record.inputs)):
                current.append(record)
    return current


def neuron_channel(store: Location, raw: Volume) -> int:
    """Channel, counted from 1, that was analyzed; the first if none was."""
    for stage in ("quantification", "segmentation"):
        record = read_record(store, stage)
        channel = int(record.params.get("channel", 1)) if record is not None else 0
        if 1 <= channel <= raw.channels:
            return channel
    return 1


def projection(volume: Volume, shape_yx: tuple[int, int], channel: int = 1) -> NDArray[Any]:
    """Maximum over z, and over the voxels that share a pixel: the smallest spine leaves a trace.

    Parameters
    ----------
    shape_yx
        Pixels (y, x) of the result; at most the volume's voxels.
    channel
        Counted from 1.
    """
    shape = volume.shape_zyx
    lowest = -np.inf if volume.dtype.kind == "f" else np.iinfo(volume.dtype).min
    picture = np.full(shape_yx, lowest, volume.dtype)
    for block in grid(shape, _BLOCK):
        values = volume.read(block.inner, channel).max(axis=0)
        _, rows, columns = (
            _pixels(part, size, pixels)
            for part, size, pixels in zip(block.inner, shape, (1, *shape_yx), strict=True)
        )
        values = np.maximum.reduceat(values, rows[1], axis=0)
        values = np.maximum.reduceat(values, columns[1], axis=1)
        # Two blocks may share a pixel at their border.
        part = picture[rows[0], columns[0]]
        np.maximum(part, values, out=part)
    return picture


def stretched(values: NDArray[Any]) -> NDArray[np.float32]:
    """Grey values as brightness from 0 to 1; an image of a single value is black."""
    low, high = np.percentile(values, (_DARKEST, _BRIGHTEST))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.shape, np.float32)
    scaled = (values.astype(np.float32) - low) / (high - low)
    return np.asarray(np.clip(scaled, 0, 1) ** _GAMMA, np.float32)


def colored(labels: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Picture (y, x, rgba) in which every label has its color and 0 is transparent."""
    ids, index = np.unique(labels, return_inverse=True)
    table = np.array([label_color(int(number)) for number in ids], np.uint8)
    table[:, 3] = np.where(ids > 0, round(255 * _SPINE_OPACITY), 0)
    return np.asarray(table[index.reshape(labels.shape)])


def scale_bar_um(width_um: float) -> float:
    """Round length (1, 2 or 5 times a power of ten) of at most a quarter of a width."""
    longest = width_um / 4
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9))


def _pixels(part: slice, size: int, pixels: int) -> tuple[slice, NDArray[np.intp]]:
    """Pixels that a run of voxels falls into, and where in the run each of them starts."""
    owner = np.arange(part.start, part.stop) * pixels // size
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return slice(int(owner[0]), int(owner[-1]) + 1), starts


def _panel(shape_zyx: Zyx, spacing: VoxelSpacing) -> _Panel:
    height_um, width_um = (
        size * edge for size, edge in zip(shape_zyx[1:], spacing.zyx[1:], strict=True)
    )
    most = min(
        limit / length
        for limit, length in zip(_LARGEST_PANEL_PX, (height_um, width_um), strict=True)
    )
    pixel_um = min(spacing.zyx[1:])
    # A small image is enlarged by a whole number, so that all its voxels look alike.
    times = math.floor(most * pixel_um + 1e-9)
    per_um = times / pixel_um if times >= 1 else most
    height_px, width_px = (max(1, round(length * per_um)) for length in (height_um, width_um))
    return _Panel(height_px, width_px, height_um, width_um)


def _image_projection(raw: Volume, channel: int, panel: _Panel) -> NDArray[Any]:
    """Projection of the coarsest level that still has a voxel for every pixel."""
    levels = len(raw.attributes["ome"]["multiscales"][0]["datasets"])
    best = raw
    for level in range(1, levels):
        volume = Volume(raw.store, raw.group, level, raw.digest, raw.attributes)
        _, height, width = volume.shape_zyx
        if height >= panel.height_px and width >= panel.width_px:
            best = volume
    return projection(best, _fitting(best, panel), channel)


def _found(store: Location, panel: _Panel) -> _Found:
    # Coarse levels of labels are every other voxel: small spines are missing there.
    groups = (f"labels/{name}" for name in ("spines", "dendrites", "skeleton"))
    there = {output for record in current_records(store) for output in record.outputs}
    volumes = [open_volume(store, group) if group in there else None for group in groups]
    return _Found(
        *(None if one is None else projection(one, _fitting(one, panel)) for one in volumes)
    )


def _fitting(volume: Volume, panel: _Panel) -> tuple[int, int]:
    _, height, width = volume.shape_zyx
    return (min(height, panel.height_px), min(width, panel.width_px))


def _drawn(image: NDArray[np.float32], found: _Found, panel: _Panel) -> Figure:
    # A figure of its own, without pyplot: nothing global, so reports can be drawn in any thread.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    column = max(panel.width_px, _NARROWEST_COLUMN_PX)
    width = 2 * column + 3 * _MARGIN_PX
    height = panel.height_px + _CAPTION_PX + _FOOTER_PX
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    for number, caption in enumerate(("maximum projection", _caption(found))):
        left = _MARGIN_PX + number * (column + _MARGIN_PX)
        axes = _axes(figure, left + (column - panel.width_px) / 2, panel)
        axes.imshow(
            image, cmap="gray", vmin=0, vmax=1, extent=panel.extent, interpolation="nearest"
        )
        _write(figure, left, height - _CAPTION_PX / 2, caption, _INK)
        if number == 1:
            _draw_found(axes, found, panel)
            _draw_legend(figure, left, found)
    _draw_scale_bar(figure, panel)
    return figure


def _axes(figure: Figure, left_px: float, panel: _Panel) -> Axes:
    width, height = figure.get_size_inches() * _DPI
    box = (
        left_px / width,
        _FOOTER_PX / height,
        panel.width_px / width,
        panel.height_px / height,
    )
    axes = figure.add_axes(box)
    axes.set_axis_off()
    return axes


def _caption(found: _Found) -> str:
    if found.spines is None and found.dendrites is None:
        return "nothing found yet"
    return "with what was found"


def _draw_found(axes: Axes, found: _Found, panel: _Panel) -> None:
    if found.spines is not None:
        axes.imshow(colored(found.spines), extent=panel.extent, interpolation="nearest")
    if found.dendrites is not None and found.dendrites.any():
        _draw_outline(axes, found.dendrites > 0, panel)
    if found.skeleton is not None:
        line = np.zeros((*found.skeleton.shape, 4), np.uint8)
        line[found.skeleton > 0] = [*bytes.fromhex(_SKELETON[1:]), 255]
        axes.imshow(line, extent=panel.extent, interpolation="nearest")
    axes.set_xlim(*panel.extent[:2])
    axes.set_ylim(*panel.extent[2:])


def _draw_outline(axes: Axes, mask: NDArray[np.bool_], panel: _Panel) -> None:
    # The rim of zeros closes the outline of what touches the picture's border.
    rim = np.pad(mask, 1).astype(np.float32)
    y_um, x_um = (
        (np.arange(-1, size + 1) + 0.5) * length / size
        for size, length in zip(mask.shape, (panel.height_um, panel.width_um), strict=True)
    )
    axes.contour(x_um, y_um, rim, levels=[0.5], colors=[_DENDRITE], linewidths=1.2)


def _draw_legend(figure: Figure, left_px: float, found: _Found) -> None:
    entries = [
        ("● spines", _QUIET_INK, found.spines),
        ("— dendrites", _DENDRITE, found.dendrites),
        ("— skeleton", _SKELETON, found.skeleton),
    ]
    for text, color, there in entries:
        if there is not None:
            _write(figure, left_px, _FOOTER_PX / 2, text, color)
            left_px += 100


def _draw_scale_bar(figure: Figure, panel: _Panel) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches() * _DPI
    length_um = scale_bar_um(panel.width_um)
    end_px = _MARGIN_PX + length_um * panel.width_px / panel.width_um
    y = _FOOTER_PX / 2 / height
    ends = [_MARGIN_PX / width, end_px / width]
    figure.add_artist(Line2D(ends, [y, y], color=_INK, linewidth=3, solid_capstyle="butt"))
    _write(figure, end_px + 8, _FOOTER_PX / 2, f"{length_um:g} µm", _INK)


def _write(figure: Figure, x_px: float, y_px: float, text: str, color: str) -> None:
    width, height = figure.get_size_inches() * _DPI
    # matplotlib's own font has all these signs on every machine.
    figure.text(
        x_px / width,
        y_px / height,
        text,
        color=color,
        family="DejaVu Sans",
        size=9.5,
        va="center_baseline",
    )
