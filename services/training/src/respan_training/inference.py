"""Run a trained network over one array, without blocks or files: to test and to tune a model.

The segmentation service does it for images of any size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from numpy.typing import NDArray

from respan_common.devices import half_precision
from respan_training.nnunet_plan import CONFIGURATION

STEP = 0.75
"""Distance of windows over their size: the segmentation service's fast preset."""


def load_network(model: Path, weights: Path | None = None) -> torch.nn.Module:
    """The network of a model folder, for inference.

    Parameters
    ----------
    weights
        Checkpoint of a training that goes on; absent: the folder's own.
    """
    plans = json.loads((model / "plans.json").read_text())
    classes = len(json.loads((model / "dataset.json").read_text())["labels"])
    design = plans["configurations"][CONFIGURATION]["architecture"]
    network: torch.nn.Module = get_network_from_plans(
        design["network_class_name"],
        design["arch_kwargs"],
        design["_kw_requires_import"],
        1,
        classes,
        deep_supervision=False,
    )
    path = weights or model / "fold_all" / "checkpoint_final.pth"
    network.load_state_dict(_weights(torch.load(path, map_location="cpu", weights_only=True)))
    network.eval()
    return network


def _weights(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of a published model, or of a training's checkpoint: averaged ones where there are any."""
    average = content.get("average") or {}
    found = content.get("network_weights") or average.get("weights") or content["network"]
    return {key: value.float() for key, value in found.items()}


def standardized(image: NDArray[Any]) -> NDArray[np.float32]:
    """Grey values with mean 0 and standard deviation 1, as nnU-Net's ZScoreNormalization."""
    grey = image.astype(np.float32)
    return np.asarray((grey - grey.mean()) / max(float(grey.std()), 1e-8), dtype=np.float32)


def probabilities(
    network: torch.nn.Module, image: NDArray[np.float32], patch: list[int]
) -> NDArray[np.float32]:
    """Probability of every class: (c, z, y, x) for a standardized image (z, y, x).

    Windows overlap by a quarter and count most in their middle. Multiplies in bfloat16 where
    the processor has instructions for that.
    """
    short = [max(size - have, 0) for size, have in zip(patch, image.shape, strict=True)]
    padded = np.pad(image, [(0, more) for more in short])
    weight = _bell(patch)
    logits: NDArray[np.float32] | None = None
    total = np.zeros(padded.shape, dtype=np.float32)
    for box in _windows(padded.shape, patch):
        found = _logits(network, padded[box])
        if logits is None:
            logits = np.zeros((len(found), *padded.shape), dtype=np.float32)
        logits[(slice(None), *box)] += found * weight
        total[box] += weight
    assert logits is not None
    kept = tuple(slice(0, size) for size in image.shape)
    mean = torch.from_numpy((logits / total)[(slice(None), *kept)])
    return np.asarray(torch.softmax(mean, dim=0).numpy())


def _logits(network: torch.nn.Module, window: NDArray[np.float32]) -> NDArray[np.float32]:
    given = torch.from_numpy(np.ascontiguousarray(window[None, None]))
    dtype = half_precision("cpu")
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        answer: torch.Tensor = network(given)[0]
    return np.asarray(answer.float().numpy())


def _windows(shape: tuple[int, ...], patch: list[int]) -> list[tuple[slice, slice, slice]]:
    starts = []
    for size, edge in zip(shape, patch, strict=True):
        count = int(np.ceil((size - edge) / (edge * STEP))) + 1
        starts.append(np.rint(np.linspace(0, size - edge, count)).astype(int).tolist())
    return [
        (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
        for z in starts[0]
        for y in starts[1]
        for x in starts[2]
    ]


def _bell(patch: list[int]) -> NDArray[np.float32]:
    """Weight of a window's voxels: a Gaussian of an eighth of its size."""
    sides = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in patch]
    bell = sides[0][:, None, None] * sides[1][:, None] * sides[2]
    return np.asarray(np.maximum(bell, 1e-3), dtype=np.float32)
