"""Read checkpoints of nnU-Net v2 without running what they may hold.

Checkpoints are pickles, and pickles can run code. They are read with PyTorch's restricted reader,
which knows tensors, plain containers and what is listed below, and refuses everything else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from respan_common.errors import ModelError

_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_ARRAY = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
# What nnU-Net's training log may hold besides tensors; numpy 1 wrote the other path.
_HARMLESS: list[Any] = [
    np.dtype,
    np.ndarray,
    _SCALAR,
    _ARRAY,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_ARRAY, "numpy.core.multiarray._reconstruct"),
    *(type(np.dtype(name)) for name in ("bool", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8")),
]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint; its `network_weights` are tensors by name.

    Raises
    ------
    ModelError
        If it needs more than tensors and numbers, or is not a checkpoint of nnU-Net v2.
    """
    import torch  # heavy: only a process that computes pays for it

    try:
        with torch.serialization.safe_globals([*_HARMLESS, torch.device]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ModelError(f"{path} {_complaint(error)}") from error
    if not isinstance(content, dict) or "network_weights" not in content:
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v2: it has no 'network_weights'")
    return content


def _complaint(error: Exception) -> str:
    """What is wrong, without the restricted reader's advice on how to switch it off."""
    forbidden = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
    if not forbidden:
        return f"is not a readable checkpoint ({str(error).splitlines()[0]}): copy it again"
    return (
        "is refused: reading it would run code from the file "
        f"({forbidden[0].split(' was not an allowed')[0]}). If you trust its origin, save its "
        "weights again with torch.save({'network_weights': ..., 'init_args': "
        "{'configuration': ...}}, path)"
    )
