"""Self-Net: restores the axial direction of one channel. Arrays in, arrays out.

The network is two-dimensional. It sees a volume, already interpolated to isotropic voxels, twice:
as XZ slices and as YZ slices. The two answers are averaged.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import nn

from respan_common.errors import CapacityError, InputError, ModelError
from respan_common.geometry import Box, VoxelSpacing

# How far an output voxel sees: 7x7, two 3x3, six blocks of two 3x3, two 3x3, 7x7.
RADIUS_VOXELS = 3 + 2 + 6 * 2 + 2 + 3

# 64 feature maps of half a million pixels are 134 MB, and a handful of them live at a time.
PIXELS_PER_BATCH = 2**19

# Reflection padding by three needs a fourth voxel to reflect.
SMALLEST_SIDE_VOXELS = 4

# Interpolation weights below float32's resolution: without them a block reads only nearby slices.
NEGLIGIBLE_WEIGHT = 1e-7

FEATURES = 64

# What the restricted unpickler raises on files that are no checkpoints, besides its own error.
_BROKEN_PICKLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)


class ResidualBlock(nn.Module):
    """Input plus two reflected 3x3 convolutions; no activation after the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(FEATURES, FEATURES, 3),
            nn.LeakyReLU(0.2),
            nn.ReflectionPad2d(1),
            nn.Conv2d(FEATURES, FEATURES, 3),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (n, 64, h, w) to the same shape."""
        return features + cast(torch.Tensor, self.conv_block(features))


class SelfNet(nn.Module):
    """The "deblur" generator of Self-Net; names and order are those of RESPAN's checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(1, FEATURES, 7),
            nn.LeakyReLU(0.2),
            *_convolutions(2),
            *(ResidualBlock() for _ in range(6)),
            *_convolutions(2),
            nn.ReflectionPad2d(3),
            nn.Conv2d(FEATURES, 1, 7),
        )

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, h, w) to the same shape."""
        return cast(torch.Tensor, self.model(slices))


def _convolutions(count: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.LeakyReLU(0.2)]
    return layers


def load_network(path: Path, device: str | torch.device = "cpu") -> SelfNet:
    """Read a checkpoint, which must be a state dict of `SelfNet` and nothing else.

    The file is never unpickled freely: a checkpoint that carries code is refused, not run.
    """
    network = SelfNet()
    try:
        network.load_state_dict(_state_dict(path))
    except RuntimeError as error:
        raise ModelError(f"{path} is not a Self-Net deblur network: {error}") from error
    return network.float().eval().to(device)


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ModelError(f"there is no Self-Net checkpoint at {path}")
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN_PICKLE as error:
        raise ModelError(_not_a_state_dict(path, "it holds more than tensors")) from error
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise ModelError(_not_a_state_dict(path, f"it holds a {type(state).__name__}"))
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ModelError(f"{path} has weights that are not finite: {', '.join(broken)}")
    return state


def _not_a_state_dict(path: Path, found: str) -> str:
    return (
        f"{path} is not a PyTorch state dict ({found}), and was not opened any further. If you "
        "trust whoever made it, convert it where it was trained, with "
        "torch.save(network.state_dict(), 'selfnet.pkl')"
    )


def isotropic_depth(depth: int, spacing: VoxelSpacing) -> int:
    """Depth in slices after axial restoration, rounded as RESPAN does."""
    return round(depth * spacing.z_um / spacing.x_um)


def isotropic_spacing(spacing: VoxelSpacing) -> VoxelSpacing:
    """Voxel size after axial restoration: z becomes as fine as x and y.

    Raises
    ------
    InputError
        If x and y differ by more than 1 %, or z is already finer than them.
    """
    if abs(spacing.y_um - spacing.x_um) > 0.01 * spacing.x_um:
        raise InputError(
            f"axial restoration needs square pixels, but y is {spacing.y_um:g} µm "
            f"and x is {spacing.x_um:g} µm"
        )
    if spacing.z_um < spacing.x_um * (1 - 1e-6):
        raise InputError(
            f"axial restoration makes z as fine as x and y, but z ({spacing.z_um:g} µm) is finer "
            f"than x ({spacing.x_um:g} µm) already; leave axial_model empty"
        )
    return VoxelSpacing(spacing.x_um, spacing.y_um, spacing.x_um)


def axial_weights(depth: int, spacing: VoxelSpacing, order: Literal[1, 3]) -> NDArray[np.float32]:
    """Interpolation along z as a matrix, shape (isotropic depth, depth); rows add up to 1.

    Both grids share the face of their first voxel, and the new slices lie exactly one pixel apart:
    dividing the extent by the rounded depth instead would stretch z by up to half a slice.

    Parameters
    ----------
    order : 1 or 3
        Of the spline: 3 is cubic, 1 linear. Beyond the outermost slices the volume is mirrored.
    """
    step = spacing.x_um / spacing.z_um
    position = (np.arange(isotropic_depth(depth, spacing), dtype=np.float64) + 0.5) * step - 0.5
    unit = np.eye(depth)
    columns = [ndi.map_coordinates(row, position[None], order=order, mode="mirror") for row in unit]
    weights = np.stack(columns, axis=1)
    weights[np.abs(weights) < NEGLIGIBLE_WEIGHT] = 0
    return weights.astype(np.float32)


def interpolate(volume: NDArray[np.generic], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Resample a (z, y, x) volume along z; one row of `weights` per new slice."""
    return np.tensordot(weights, volume.astype(np.float32, copy=False), axes=1)


def restore_axially(
    network: SelfNet,
    volume: NDArray[np.float32],
    inner: Box,
    grey_values: tuple[float, float],
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Restore an isotropic volume.

    Parameters
    ----------
    volume : float array, shape (z, y, x)
        Isotropic. Reaches `RADIUS_VOXELS` beyond `inner`, or to the image's face: then the result
        does not depend on how the image was cut.
    inner : Box
        The part to restore, as seen from the first voxel of `volume`.
    grey_values
        Those that the network sees as 0 and as 1; what lies beyond is clipped.
    check
        Called before every batch of slices; may raise to give up.

    Returns
    -------
    float32 array, shape of `inner`
        Grey values, from 0 to the one that the network sees as 1.
    """
    if min(volume.shape) < SMALLEST_SIDE_VOXELS:
        raise InputError(
            f"Self-Net needs {SMALLEST_SIDE_VOXELS} voxels along every axis of the isotropic "
            f"volume, which has {volume.shape} (z, y, x)"
        )
    low, high = grey_values
    z, y, x = inner
    scaled = np.clip((volume - low) / (high - low), 0, 1).astype(np.float32)
    xz = _apply(network, scaled[:, y, :].transpose(1, 0, 2), check)[:, z, x]
    yz = _apply(network, scaled[:, :, x].transpose(2, 0, 1), check)[:, z, y]
    mean = (xz.transpose(1, 0, 2) + yz.transpose(1, 2, 0)) / 2
    return np.clip(mean * (high - low) + low, 0, high)


def _apply(
    network: SelfNet, slices: NDArray[np.float32], check: Callable[[], None]
) -> NDArray[np.float32]:
    """Pass slices (n, h, w) through the network, a few at a time, on the network's device."""
    device = next(network.parameters()).device
    batch = max(1, PIXELS_PER_BATCH // slices[0].size)
    restored = np.empty_like(slices, order="C")
    start = 0
    while start < len(slices):
        check()
        part = torch.from_numpy(np.ascontiguousarray(slices[start : start + batch]))
        try:
            with torch.inference_mode():
                restored[start : start + batch] = network(part[:, None].to(device))[:, 0].cpu()
        except torch.OutOfMemoryError as error:
            if batch == 1:
                raise CapacityError(
                    f"Self-Net needs more GPU memory than there is, even for one slice of "
                    f"{slices[0].shape} voxels; free the GPU or use device=cpu"
                ) from error
            batch = batch // 2
            continue
        start += batch
    return restored
