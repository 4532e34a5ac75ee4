"""Choose the device that a stage computes on; never quietly another than asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respan_common.errors import CapacityError

if TYPE_CHECKING:
    import torch

    from respan_common.settings import Runtime


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
    if runtime.device == "cuda":
        raise CapacityError(
            "a GPU was asked for (device=cuda), but PyTorch sees none: check `nvidia-smi`, "
            "or say device=auto or device=cpu"
        )
    return torch.device("cpu")
