"""A trained nnU-Net model as the start of another training."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from respan_common.errors import ModelError
from respan_common.model_folders import describe
from respan_common.model_networks import architecture

# What nnU-Net's own checkpoints hold beside tensors: numbers of NumPy in their training log.
_HARMLESS: list[Any] = [
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    torch.device,
]


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
    path = model.checkpoints[0]
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
        weights = dict(content["network_weights"])
    except (pickle.UnpicklingError, RuntimeError, KeyError) as error:
        raise ModelError(f"{path} cannot be read as weights of nnU-Net: {error}") from error
    return Start(dict(model.settings), weights, model.digest)
