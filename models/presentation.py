"""What a person sees first of a model: README.md and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from respan_training.inference import load_network, probabilities, standardized

EDGE = 192
ZOOM = 2
COLORS = {1: (255, 80, 80), 2: (80, 200, 255), 3: (255, 220, 80), 4: (255, 160, 255)}
"""Of the classes: spine, dendrite, soma, neck."""


def readme(card: dict[str, Any]) -> str:
    """The card in sentences and tables."""
    lines = [
        f"# {card['name']}",
        "",
        f"{card['description']} nnU-Net v2, {card['license']}. {card['training_data']}",
        "",
        "![A phantom, and the classes found in it](cover.png)",
        "",
        f"Voxels {' x '.join(f'{e:g}' for e in card['spacing_um'])} µm (z, y, x). Operating point: "
        f"{json.dumps(card['operating_point'])}. Trained on {card['training_cases']} phantoms.",
        "",
        "## Measured",
        "",
        *(f"- {name}: {_said(values)}" for name, values in card["metrics"].items()),
        "",
        "What the numbers mean, and the commands: docs/models.md.",
        "",
        "## What it is bad at",
        "",
        *(f"- {limit}" for limit in card["limits"]),
    ]
    return "\n".join(lines) + "\n"


def _said(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values)
    return ", ".join(f"{name} {value}" for name, value in values.items())


def cover(model: Path, image: NDArray[Any], patch: list[int]) -> Image.Image:
    """A plane of a phantom, and beside it the same with the classes found."""
    classes = probabilities(load_network(model), standardized(image), patch).argmax(axis=0)
    z = int((classes == 1).sum(axis=(1, 2)).argmax())
    middle = np.median(np.argwhere(classes[z] > 0), axis=0).astype(int)
    y, x = np.clip(middle - EDGE // 2, 0, np.array(image.shape[1:]) - EDGE)
    part = (z, slice(y, y + EDGE), slice(x, x + EDGE))
    white = max(float(np.quantile(image[z], 0.998)), 1.0)
    grey = (image[part] / white * 255).clip(0, 255).astype(np.uint8)
    plain = np.stack([grey] * 3, axis=-1)
    painted = plain.copy()
    for value, color in COLORS.items():
        where = classes[part] == value
        painted[where] = plain[where] // 2 + np.array(color, dtype=np.uint8) // 2
    both = np.concatenate([plain, painted], axis=1)
    return Image.fromarray(both.repeat(ZOOM, 0).repeat(ZOOM, 1))
