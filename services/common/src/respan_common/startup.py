"""What must hold before a service starts; each fault is one line that says the way out."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from respan_common import certificates
from respan_common.errors import InputError
from respan_common.gpus import driver_problem, visible_gpus
from respan_common.settings import ServiceSettings

logger = logging.getLogger(__name__)

_MOST_FOLDERS = 1000
_CUDA_OF_TORCH = re.compile(r"^cuda\b[^=]*= '([\d.]+)'", re.MULTILINE)


def check(settings: ServiceSettings, *, demands_gpu: bool) -> None:
    """Refuse to start where nothing could work; warn where something will not.

    Parameters
    ----------
    settings
        Of the service.
    demands_gpu
        Whether device=cuda means that the service is of no use without one.

    Raises
    ------
    InputError
        On the first fault, in one line.
    """
    faults = (
        certificate_problem(settings)
        or data_problem(settings.data_roots)
        or lease_problem(settings.gpu_lease_folder)
        or (gpu_problem() if demands_gpu and settings.device == "cuda" else "")
    )
    if faults:
        raise InputError(faults)
    for root in settings.model_roots:
        if not root.is_dir():
            logger.warning("no folder %s: it has no models (RESPAN_MODEL_ROOTS)", root)
    if settings.tls_certificate and (soon := certificates.warning(settings.tls_certificate)):
        logger.warning("%s", soon)


def certificate_problem(settings: ServiceSettings) -> str:
    """What is wrong with the files of TLS."""
    found = ""
    if settings.tls_certificate and settings.tls_key:
        found = certificates.problem(settings.tls_certificate, settings.tls_key)
    if not found and settings.tls_client_ca:
        found = certificates.problem(settings.tls_client_ca)
    return found


def data_problem(roots: Sequence[Path]) -> str:
    """What is wrong with the folders of experiments.

    A root that belongs to somebody else is good as long as a folder in it can be written to.
    """
    for root in roots:
        if not root.is_dir():
            return f"no folder {root} with data: make or mount it, or correct RESPAN_DATA_ROOTS"
    if not roots or any(can_hold_results(root) for root in roots):
        return ""
    return (
        f"user {user()} may not write to {roots[0]} nor to a folder in it: "
        f"{_owner_way_out(roots[0])}"
    )


def can_hold_results(root: Path) -> bool:
    """Whether this user may write to a folder, or to one that lies in it."""
    if os.access(root, os.W_OK | os.X_OK):
        return True
    try:
        with os.scandir(root) as entries:
            folders = (entry.path for _, entry in zip(range(_MOST_FOLDERS), entries, strict=False))
            return any(os.path.isdir(path) and os.access(path, os.W_OK) for path in folders)
    except OSError:
        return False


def user() -> str:
    """Numbers of this process's user and group, as RESPAN_USER has them."""
    return f"{os.geteuid()}:{os.getegid()}"


def _owner_way_out(root: Path) -> str:
    owner = root.stat()
    if owner.st_uid == os.geteuid():
        return "it is mounted read only, or its owner may not write: change that"
    return (
        f"it belongs to {owner.st_uid}:{owner.st_gid}; run as that user (in containers: "
        f"RESPAN_USER={owner.st_uid}:{owner.st_gid} in .env), or give the folder to {user()}"
    )


def lease_problem(folder: Path | None) -> str:
    """What is wrong with the folder where services take turns on the GPU."""
    if folder is None:
        return ""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return ""
    return (
        f"user {user()} may not write to {folder}, where services take turns on the GPU: make it "
        "writable, or name another folder in RESPAN_GPU_LEASE_FOLDER"
    )


def gpu_problem() -> str:
    """Why there is no GPU to compute on."""
    if not visible_gpus():
        return (
            "a GPU was asked for (RESPAN_DEVICE=cuda), but NVIDIA's driver shows none: install it "
            "(in containers also its container toolkit), or say RESPAN_DEVICE=auto"
        )
    return driver_problem(cuda_of_torch())


def cuda_of_torch() -> str | None:
    """Version of CUDA that the installed PyTorch is made for; None without. Imports nothing."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    version = _CUDA_OF_TORCH.search(text)
    return version.group(1) if version else None
