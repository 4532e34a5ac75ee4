"""A trained nnU-Net model as the start of another training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from respan_common.checkpoints import read_checkpoint
from respan_common.errors import ModelError
from respan_common.model_folders import describe
from respan_common.model_networks import architecture


@dataclass(frozen=True)
class Start:
    """Network and weights to start from."""

    settings: dict[str, Any]
    """Its configuration in the plans, inheritance resolved."""
    weights: dict[str, torch.Tensor]
    digest: str


def read_start(folder: Path) -> Start:
    """Load a model's first fold without running any code that its file may hold.

    Raises
    ------
    ModelError
        If the folder is no 3D nnU-Net model, or its file holds more than weights and numbers.
    """
    model = describe(folder)
    if model.is_2d:
        raise ModelError(f"{folder} is a 2D model; training starts from 3D models only")
    if tuple(model.transpose) != (0, 1, 2):
        raise ModelError(f"{folder} was trained with other axes first ({model.transpose})")
    architecture(model)  # refuses plans that name code
    weights = read_checkpoint(model.checkpoints[0])["network_weights"]
    return Start(dict(model.settings), weights, model.digest)
