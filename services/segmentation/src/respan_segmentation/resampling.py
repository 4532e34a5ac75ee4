"""Between an image's voxel grid and a model's: the same mathematics as nnU-Net, block by block.

nnU-Net resizes whole volumes with splines along each axis. A spline resize is linear and separable,
so that any part of the result is a product of small matrices with a part of the input.
"""

from __future__ import annotations

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


def regrid(
    image_shape: Zyx,
    image_spacing: Sequence[float],
    model_spacing: Sequence[float],
    flat_axis: int | None = None,
    orders: tuple[int, int] = (3, 1),
) -> Regrid:
    """Grids of an image and of a model with another voxel size.

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
        Axis(size, max(round(size * image / model), 1), *orders)
        if number != flat_axis
        else Axis(size, max(round(size * image / model), 1), 0, 0)
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
    if size == out:
        return part  # interpolation at the samples gives the samples
    reach = _SPLINE_REACH if order > 1 else 1
    positions = _positions(size, out, part)
    start = int(np.floor(positions[0])) - reach + 1
    stop = int(np.floor(positions[-1])) + reach + 1
    return slice(min(max(start, 0), size - 1), min(max(stop, 1), size))


def _resize(
    values: torch.Tensor, axis: int, size: int, out: int, order: int, part: slice
) -> torch.Tensor:
    """Interpolate the voxels `part` along one axis from the samples of their support."""
    if size == out:
        return values
    support = _support(size, out, order, part)
    positions = _positions(size, out, part)
    if order > 1:
        weights = _spline_weights(positions - support.start, support.stop - support.start)
        return _along(values, torch.from_numpy(weights).to(values.device), axis)
    inside = np.clip(positions, 0, size - 1) - support.start
    return _nearest(values, axis, inside) if order == 0 else _linear(values, axis, inside)


def _nearest(values: torch.Tensor, axis: int, positions: NDArray[np.float64]) -> torch.Tensor:
    index = torch.from_numpy(np.floor(positions + 0.5).astype(np.int64)).to(values.device)
    return values.index_select(axis, index)


def _linear(values: torch.Tensor, axis: int, positions: NDArray[np.float64]) -> torch.Tensor:
    low = np.minimum(np.floor(positions).astype(np.int64), max(values.shape[axis] - 2, 0))
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shares = torch.from_numpy((positions - low).astype(np.float32)).to(values.device)
    before = values.index_select(axis, torch.from_numpy(low).to(values.device))
    after = values.index_select(axis, torch.from_numpy(high).to(values.device))
    return before.lerp_(after, shares.reshape(-1, *[1] * (-1 - axis)))


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


def _along(values: torch.Tensor, weights: torch.Tensor, axis: int) -> torch.Tensor:
    """Multiply one of the last three axes by a matrix."""
    if axis == -1:
        return values @ weights.T
    if axis == -2:
        return weights @ values
    product = weights @ values.flatten(-2)
    return product.reshape(*values.shape[:-3], -1, *values.shape[-2:])
