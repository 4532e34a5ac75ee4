"""Between an image's voxel grid and a model's: the same mathematics as nnU-Net, block by block.

nnU-Net resizes whole volumes with splines along each axis. A spline resize is linear and separable,
so that any part of the result is a product of small matrices with a part of the input.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from respan_common.geometry import Box, Zyx

# A cubic spline's coefficients depend on all samples, but by 0.27 per voxel of distance: beyond
# 14 voxels by less than 1e-8.
_SPLINE_REACH = 14
_EDGE = 12
"""Voxels by which scipy repeats an image's faces before it fits a spline (mode "nearest")."""


_BAND = 64
"""Output voxels per matrix product."""
_NO_WEIGHT = 1e-9
"""Spline weights below this change nothing in single precision."""
_FLAT = 3
"""So many times as long as its shortest edge a voxel is flat (nnU-Net: `ANISO_THRESHOLD`)."""


@dataclass(frozen=True)
class Axis:
    """One axis of both grids; both span the same physical length."""

    image: int
    """Voxels of the image."""
    model: int
    """Voxels of the model's grid."""
    order_in: int = 3
    """Spline order from image to model."""
    order_out: int = 1
    """Spline order back."""


@dataclass(frozen=True)
class Regrid:
    """An image's grid and a model's grid over the same box of space."""

    axes: tuple[Axis, Axis, Axis]

    @property
    def image_shape(self) -> Zyx:
        """Voxels of the image."""
        first, second, third = (axis.image for axis in self.axes)
        return (first, second, third)

    @property
    def model_shape(self) -> Zyx:
        """Voxels of the model's grid."""
        first, second, third = (axis.model for axis in self.axes)
        return (first, second, third)

    @property
    def is_identity(self) -> bool:
        """Whether both grids are the same."""
        return self.image_shape == self.model_shape

    def model_box(self, image_box: Box) -> Box:
        """Model voxels from which an image box is interpolated."""
        first, second, third = (
            _support(axis.model, axis.image, axis.order_out, part)
            for axis, part in zip(self.axes, image_box, strict=True)
        )
        return (first, second, third)

    def image_box(self, model_box: Box) -> Box:
        """Image voxels from which a model box is interpolated."""
        first, second, third = (
            _support(axis.image, axis.model, axis.order_in, part)
            for axis, part in zip(self.axes, model_box, strict=True)
        )
        return (first, second, third)

    def ready(self, image_box: Box, axis: int, model_stop: int) -> int:
        """First image voxel of a box along an axis that needs model voxels from `model_stop` on."""
        part = image_box[axis]
        _, stops = self._supports(image_box, axis)
        return int(part.start + np.searchsorted(stops, model_stop, side="right"))

    def memory(self, image_box: Box, axis: int) -> int:
        """Model voxels behind a border that image voxels before it may still need."""
        starts, stops = self._supports(image_box, axis)
        return int((stops - starts).max()) - 1

    def _supports(self, image_box: Box, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First model voxel, and the one behind the last, of each image voxel along an axis."""
        own, part = self.axes[axis], image_box[axis]
        return _each_support(own.model, own.image, own.order_out, part)

    def to_model(self, values: torch.Tensor, model_box: Box) -> torch.Tensor:
        """Interpolate a model box.

        Parameters
        ----------
        values : float32, shape of `image_box(model_box)`

        Returns
        -------
        float32, shape of `model_box`
        """
        for number, (axis, part) in enumerate(zip(self.axes, model_box, strict=True)):
            values = _resize(values, number - 3, axis.image, axis.model, axis.order_in, part)
        return values

    def classes_to_model(
        self, classes: torch.Tensor, values: Sequence[int], model_box: Box
    ) -> torch.Tensor:
        """Each class interpolated linearly; the largest share wins, of equal ones the nearest.

        Shares are often equal but for rounding. So they are computed as scipy, and with it
        nnU-Net, does: the same products in double precision, added in the same order.

        Parameters
        ----------
        classes : uint8, shape of `image_box(model_box)`
        values
            All that occur but 0, in ascending order.

        Returns
        -------
        uint8, shape of `model_box`
        """
        near = [_nearest(axis, part) for axis, part in zip(self.axes, model_box, strict=True)]
        nearest = _taken(classes, near)
        sides = [_neighbors(axis, part) for axis, part in zip(self.axes, model_box, strict=True)]
        best = _share(classes == 0, sides)
        own = torch.where(nearest == 0, best, 0.0)
        found = torch.zeros_like(nearest)
        for value in values:
            share = _share(classes == value, sides)
            found.masked_fill_(share > best, value)
            own = torch.where(nearest == value, share, own)
            best = torch.maximum(best, share)
        return torch.where(own == best, nearest, found)

    def to_image(self, values: torch.Tensor, image_box: Box) -> torch.Tensor:
        """Interpolate an image box.

        Parameters
        ----------
        values : float32, shape (classes, *shape of `model_box(image_box)`)

        Returns
        -------
        float32, shape (classes, *shape of `image_box`)
        """
        for number, (axis, part) in enumerate(zip(self.axes, image_box, strict=True)):
            values = _resize(values, number - 3, axis.model, axis.image, axis.order_out, part)
        return values


def flat_axis_of(forced: bool | None, *spacings: Sequence[float]) -> int | None:
    """Axis that nnU-Net resamples by itself, without splines; None if it treats all alike.

    It is the longest edge of the first flat voxel, or of the first at all if `forced`; as in
    nnU-Net's `determine_do_sep_z_and_axis`, whose module would bring pandas along.
    """

    def is_flat(spacing: Sequence[float]) -> bool:
        return max(spacing) / min(spacing) > _FLAT if forced is None else forced

    chosen = next(filter(is_flat, spacings), None)
    if chosen is None:
        return None
    longest = [axis for axis, edge in enumerate(chosen) if edge == max(chosen)]
    return longest[0] if len(longest) == 1 else None


def regrid(
    image_shape: Zyx,
    image_spacing: Sequence[float],
    model_spacing: Sequence[float],
    flat_axis: int | None = None,
    orders: tuple[int, int] = (3, 1),
) -> Regrid:
    """Grids of an image and of a model with another voxel size.

    The order of the arithmetic is nnU-Net's, as it decides how halves are rounded.

    Parameters
    ----------
    image_shape
        Voxels of the image.
    image_spacing, model_spacing
        µm per voxel along each axis.
    flat_axis
        Axis that is sampled so coarsely that nnU-Net takes the nearest voxel along it.
    orders
        Spline order from image to model, and back.
    """
    axes = [
        Axis(
            size, max(round(image / model * size), 1), *(orders if number != flat_axis else (0, 0))
        )
        for number, (size, image, model) in enumerate(
            zip(image_shape, image_spacing, model_spacing, strict=True)
        )
    ]
    return Regrid((axes[0], axes[1], axes[2]))


def _positions(size: int, out: int, part: slice) -> NDArray[np.float64]:
    """Where voxel centers of one grid lie, in voxels of the other; both grids share their faces."""
    return (np.arange(part.start, part.stop) + 0.5) * (size / out) - 0.5


def _support(size: int, out: int, order: int, part: slice) -> slice:
    """Samples (of `size`) that the voxels `part` (of `out`) are interpolated from."""
    starts, stops = _each_support(size, out, order, part)
    return slice(int(starts[0]), int(stops[-1]))


def _each_support(
    size: int, out: int, order: int, part: slice
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First sample, and the one behind the last, for each voxel; both never decrease."""
    if size == out:  # interpolation at the samples gives the samples
        own = np.arange(part.start, part.stop)
        return own, own + 1
    reach = _SPLINE_REACH if order > 1 else 1
    below = np.floor(_positions(size, out, part)).astype(np.int64)
    return np.clip(below - reach + 1, 0, size - 1), np.clip(below + reach + 1, 1, size)


def _resize(
    values: torch.Tensor, axis: int, size: int, out: int, order: int, part: slice
) -> torch.Tensor:
    """Interpolate the voxels `part` along one axis from the samples of their support."""
    if size == out:
        return values
    support = _support(size, out, order, part)
    positions = _positions(size, out, part)
    length = support.stop - support.start
    if order > 1:
        return _along(values, _spline_weights(positions - support.start, length), axis)
    inside = np.clip(positions, 0, size - 1) - support.start
    if order == 1:
        distances = np.abs(inside[:, None] - np.arange(length)[None])
        return _along(values, np.maximum(1 - distances, 0).astype(np.float32), axis)
    nearest = np.floor(inside + 0.5).astype(np.int64)
    return values.index_select(axis, torch.from_numpy(nearest).to(values.device))


_Samples = tuple[NDArray[np.int64], NDArray[np.float64]]
"""For each voxel along an axis a sample of the support, and what it weighs."""


def _inside(axis: Axis, part: slice) -> tuple[NDArray[np.float64], int]:
    """Where voxels of the model lie in their support, and how long that is."""
    support = _support(axis.image, axis.model, axis.order_in, part)
    positions = np.clip(_positions(axis.image, axis.model, part), 0, axis.image - 1)
    return positions - support.start, support.stop - support.start


def _nearest(axis: Axis, part: slice) -> NDArray[np.int64]:
    return np.floor(_inside(axis, part)[0] + 0.5).astype(np.int64)


def _neighbors(axis: Axis, part: slice) -> list[_Samples]:
    """Both neighbors of each voxel of the model, or the nearest one alone."""
    inside, length = _inside(axis, part)
    if axis.order_in == 0 or axis.image == axis.model:
        return [(_nearest(axis, part), np.ones(len(inside)))]
    below = np.floor(inside).astype(np.int64)
    weight = 1 - (inside - below)
    return [(below, weight), (np.minimum(below + 1, length - 1), 1 - weight)]


def _taken(values: torch.Tensor, places: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    for axis, own in enumerate(places):
        values = values.index_select(axis, torch.from_numpy(own).to(values.device))
    return values


def _share(mask: torch.Tensor, sides: Sequence[Sequence[_Samples]]) -> torch.Tensor:
    """A mask interpolated linearly, float64."""
    share: torch.Tensor | None = None
    for z, y, x in itertools.product(*sides):
        weight = z[1][:, None, None] * y[1][:, None] * x[1]
        part = _taken(mask, (z[0], y[0], x[0])) * torch.from_numpy(weight).to(mask.device)
        share = part if share is None else share.add_(part)
    assert share is not None
    return share


def _spline_weights(positions: NDArray[np.float64], length: int) -> NDArray[np.float32]:
    """Weights of an interpolating cubic B-spline with repeated faces, as scipy and nnU-Net have it.

    Coefficients come from scipy's own filter on unit samples, the basis from its closed form.
    Shape (positions, length); rows add up to 1.
    """
    unit = np.pad(np.eye(length), ((_EDGE, _EDGE), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(unit, order=3, axis=0, mode="nearest")
    grid = np.arange(len(coefficients)) - _EDGE
    distances = np.abs(positions[:, None] - grid[None])
    near = 2 / 3 - distances**2 + distances**3 / 2
    far = np.maximum(2 - distances, 0) ** 3 / 6
    basis = np.where(distances < 1, near, far)
    return np.asarray(basis @ coefficients, dtype=np.float32)


def _along(values: torch.Tensor, weights: NDArray[np.float32], axis: int) -> torch.Tensor:
    """Multiply one of the last three axes by a matrix, band by band.

    Weights are 0 far from the diagonal. Small dense products of the rest took a quarter of the time
    of one dense product (cubic) or of gathering both neighbors (linear): 65 x 1024 x 1024 voxels.
    """
    rows = len(weights)
    shape = [*values.shape[:axis], rows, *values.shape[values.ndim + axis + 1 :]]
    result = values.new_empty(shape)
    for start in range(0, rows, _BAND):
        band = weights[start : start + _BAND]
        used = np.flatnonzero(np.abs(band).max(axis=0) > _NO_WEIGHT)
        low, high = int(used[0]), int(used[-1]) + 1
        factor = torch.from_numpy(np.ascontiguousarray(band[:, low:high])).to(values.device)
        part = _multiplied(values.narrow(axis, low, high - low), factor, axis)
        result.narrow(axis, start, len(band)).copy_(part)
    return result


def _multiplied(values: torch.Tensor, factor: torch.Tensor, axis: int) -> torch.Tensor:
    if axis == -1:
        return values @ factor.T
    if axis == -2:
        return factor @ values
    product = factor @ values.flatten(-2)
    return product.reshape(*values.shape[:-3], -1, *values.shape[-2:])
