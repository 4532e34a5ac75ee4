"""An nnU-Net v2 model folder whose weights are set by hand, and drawings that it understands.

Every convolution passes its center voxel on, and nothing normalizes in between: a voxel's class
follows from its own grey value alone. Below 200 is background, up to 450 spine, above dendrite.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from tests.nnunet_models import write_random_model

LABELS = {"background": 0, "spine": 1, "dendrite": 2}
SPACING_UM = (0.3, 0.1, 0.1)
SHAPE = (16, 64, 96)
DARK, SPINE, DENDRITE = 60, 320, 620

_MEAN, _DEVIATION = 300.0, 120.0
_SPINE_FROM = (200 - _MEAN) / _DEVIATION
_DENDRITE_FROM = (450 - _MEAN) / _DEVIATION
_ABOVE_ZERO = 10.0
"""Added to grey values on their way, so that rectifiers leave them as they are."""


def write_hand_model(folder: Path, *, patch: Sequence[int] = (8, 32, 32)) -> Path:
    """Write the model folder and return it."""
    write_random_model(
        folder, labels=LABELS, spacing=SPACING_UM, patch=patch, normalization="CTNormalization"
    )
    _remove_norms(folder / "plans.json")
    path = folder / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["network_weights"] = _by_hand(checkpoint["network_weights"])
    torch.save(checkpoint, path)
    return folder


def draw(
    spines: Sequence[int] = (20, 48, 76), shape: Sequence[int] = SHAPE, *, shaft: bool = True
) -> NDArray[np.uint16]:
    """A bright tube along x, with a dimmer ball on it at each x of `spines`; uint16 (z, y, x)."""
    z, y, x = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    middle_z, middle_y = shape[0] // 2, shape[1] // 2
    image = np.full(tuple(shape), DARK, np.uint16)
    for center in spines:
        # Radius 0.4 µm, touching a tube of radius 0.7 µm.
        away = ((z - middle_z) * 3) ** 2 + (y - middle_y - 10) ** 2 + (x - center) ** 2
        image[away <= 4**2] = SPINE
    if shaft:
        image[((z - middle_z) * 3) ** 2 + (y - middle_y) ** 2 <= 7**2] = DENDRITE
    noise = np.random.default_rng(0).integers(-15, 16, image.shape)
    return (image + noise).astype(np.uint16)


def write_image(path: Path, image: NDArray[Any] | None = None) -> Path:
    """Write a drawing, (z, y, x) or (z, c, y, x), as Fiji does; its folders are made."""
    pixels = draw() if image is None else image
    path.parent.mkdir(parents=True, exist_ok=True)
    z_um, _, x_um = SPACING_UM
    tifffile.imwrite(
        path,
        pixels,
        imagej=True,
        resolution=(1 / x_um, 1 / x_um),
        metadata={
            "axes": "ZCYX" if pixels.ndim == 4 else "ZYX",
            "spacing": z_um,
            "unit": "um",
        },
    )
    return path


def _remove_norms(path: Path) -> None:
    plans = json.loads(path.read_text())
    for configuration in plans["configurations"].values():
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments.update(norm_op=None, norm_op_kwargs=None)
    path.write_text(json.dumps(plans))


def _by_hand(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that turn a grey value into three lines; where they cross, the class changes."""
    norms = (".norm.", ".all_modules.1.")
    made = {
        name: torch.zeros_like(value)
        for name, value in weights.items()
        if not any(part in name for part in norms)
    }
    for name, value in made.items():
        layer = name.removeprefix("decoder.encoder.").removeprefix("encoder.")
        if layer.startswith("stages.0.") or layer.startswith("decoder.stages.0."):
            _pass_on(value, lift=0.0 if layer.startswith("decoder") else _ABOVE_ZERO)
        elif layer.startswith("decoder.seg_layers.0."):
            _set_lines(value)
    return made


def _pass_on(value: torch.Tensor, lift: float) -> None:
    """Have a convolution's first output be its image input: the last half is the skip's."""
    if value.ndim == 1:
        value[0] = lift
    else:
        center = tuple(size // 2 for size in value.shape[2:])
        value[(0, value.shape[1] // 2, *center)] = 1.0


def _set_lines(value: torch.Tensor) -> None:
    spine_from, dendrite_from = _SPINE_FROM + _ABOVE_ZERO, _DENDRITE_FROM + _ABOVE_ZERO
    if value.ndim == 1:
        value[:] = torch.tensor([0.0, -spine_from, -2 * dendrite_from - spine_from])
    else:
        value[:, 0, 0, 0, 0] = torch.tensor([0.0, 1.0, 3.0])
