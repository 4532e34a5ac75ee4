"""Choose the device that a stage computes on; never quietly another than asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from respan_common.errors import CapacityError
from respan_common.gpus import driver_problem

if TYPE_CHECKING:
    import torch

    from respan_common.settings import Runtime


logger = logging.getLogger(__name__)


def torch_device(runtime: Runtime) -> torch.device:
    """PyTorch's device for a runtime; sets the number of processor threads as well.

    Raises
    ------
    CapacityError
        If a GPU is demanded and there is none.
    """
    import torch  # heavy: only a process that computes pays for it

    torch.set_num_threads(runtime.thread_count)
    if torch.cuda.is_available() and runtime.device != "cpu":
        return torch.device("cuda")
    if runtime.device == "cpu":
        return torch.device("cpu")
    problem = driver_problem(torch.version.cuda)
    if runtime.device == "cuda":
        raise CapacityError(
            "a GPU was asked for (device=cuda), but PyTorch sees none: "
            f"{problem or 'check `nvidia-smi`'}, or say device=auto or device=cpu"
        )
    if problem:
        logger.warning("computing on the processor: %s", problem)
    return torch.device("cpu")


def half_precision(device_type: str) -> torch.dtype | None:
    """What PyTorch multiplies in faster than in float32: float16 on a GPU, bfloat16 on a processor.

    None for a processor without AMX: with AVX-512 BF16 alone float32 is as fast or a tenth faster,
    and without AVX-512 PyTorch takes a way that is a hundred times slower.
    """
    import torch

    if device_type == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else None
