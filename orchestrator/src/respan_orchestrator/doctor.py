"""What this machine has, what is missing, and how to get it. Looks, and changes nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from respan_common.errors import StorageError
from respan_common.gpus import driver_problem
from respan_common.settings import refusal
from respan_common.startup import cuda_of_torch
from respan_orchestrator import service_checks, stack
from respan_orchestrator.container_checks import containers
from respan_orchestrator.findings import Finding, State
from respan_orchestrator.listeners import is_taken, listener
from respan_orchestrator.models import known_models
from respan_orchestrator.settings import OrchestratorSettings

_LEAST_MEMORY_GIB, _ENOUGH_MEMORY_GIB = 4.0, 12.0
_LEAST_DISK_GIB, _ENOUGH_DISK_GIB = 2.0, 20.0
_LEAST_SCRATCH_GIB, _ENOUGH_SCRATCH_GIB = 0.1, 1.0
"""For logs, and for networks in the form that processors want."""
_SMI_TIMEOUT_S = 20.0
_TORCH_TIMEOUT_S = 120.0
"""The first import of PyTorch from a slow disk takes a while."""
_STACK_PORTS = (4200, 50051, 50052, 50053, 50054)
"""Where `respan up` has Prefect and the services listen."""
_PACKAGES = {
    "orchestrator": ("prefect", "tifffile", "pandas", "matplotlib"),
    "restoration": ("csbdeep", "tensorflow-cpu", "torch"),
    "segmentation": ("nnunetv2", "torch"),
    "quantification": ("connected-components-3d", "edt", "scikit-image", "trimesh"),
    "training": ("nnunetv2", "torch"),
}
_ASK_TORCH = """
import json, torch
names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
print(json.dumps({"version": torch.__version__, "names": names}))
"""


def examine() -> list[Finding]:
    """Everything that an analysis needs of this machine; takes seconds, as PyTorch is asked."""
    here, smi = Path.cwd(), gpu()
    has_gpu = smi.state == "ok"
    findings = [python(), processors(), memory(), disk(here), *own_folders(), temporary_folder()]
    findings += [smi, driver(), torch_gpu(has_gpu=has_gpu), *containers(has_gpu, here)]
    findings += [packages(part) for part in _PACKAGES]
    findings += [ports(), service_checks.prefect()]
    try:
        settings = OrchestratorSettings()
    except ValidationError as error:
        return [*findings, _refused_settings(error)]
    findings += [*object_store(settings), models(settings), service_checks.encrypted(settings)]
    return [*findings, *service_checks.services(settings)]


def python() -> Finding:
    """The interpreter; the project's packages are made for 3.11."""
    version = platform.python_version()
    if sys.version_info[:2] == (3, 11):
        return Finding("Python", "ok", f"{version}, {platform.platform()}")
    return Finding("Python", "problem", version, "use Python 3.11: `make setup` does")


def processors() -> Finding:
    """Processor cores that this process may use."""
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if usable > 1:
        return Finding("Processor", "ok", f"{usable} cores")
    return Finding("Processor", "warning", "1 core", "give it more: images take long on one")


def memory() -> Finding:
    """Memory of the machine, or of the container that this is."""
    try:
        total_gib = _memory_bytes() / 2**30
    except (OSError, ValueError):
        return Finding("Memory", "warning", "unknown on this system")
    text = f"{total_gib:.1f} GiB"
    if total_gib >= _ENOUGH_MEMORY_GIB:
        return Finding("Memory", "ok", text)
    state: State = "warning" if total_gib >= _LEAST_MEMORY_GIB else "problem"
    way_out = f"{_ENOUGH_MEMORY_GIB:g} GiB suit most images; close other programs for large ones"
    return Finding("Memory", state, text, way_out)


def disk(folder: Path) -> Finding:
    """Free space where results of a folder's images would go, and whether they may be written."""
    if not os.access(folder, os.W_OK):
        way_out = "harmless if experiments lie elsewhere; else let this user write, or copy them"
        return Finding("Disk", "warning", f"{folder} cannot be written to", way_out)
    way_out = "free some: results need about 3 times the size of the images"
    return _space("Disk", folder, _LEAST_DISK_GIB, _ENOUGH_DISK_GIB, way_out)


def own_folders() -> list[Finding]:
    """Folders that are written to beside results: state with logs, and the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "respan"
    return [
        own_folder("State folder", stack.state_folder(), "RESPAN_STATE_FOLDER"),
        own_folder("Cache folder", cache, "XDG_CACHE_HOME"),
    ]


def own_folder(subject: str, folder: Path, variable: str) -> Finding:
    """Whether a folder, or the nearest one above that exists, takes files and has space."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    way_out = f"free some space, or name another folder in {variable}"
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        way_out = f"let this user write to it, or name another folder in {variable}"
        return Finding(subject, "problem", f"{folder} cannot be written to", way_out)
    return _space(subject, nearest, _LEAST_SCRATCH_GIB, _ENOUGH_SCRATCH_GIB, way_out)


def _space(subject: str, folder: Path, least: float, enough: float, way_out: str) -> Finding:
    free_gib = shutil.disk_usage(folder).free / 2**30
    text = f"{free_gib:.1f} GiB free at {folder}"
    if free_gib >= enough:
        return Finding(subject, "ok", text)
    return Finding(subject, "warning" if free_gib >= least else "problem", text, way_out)


def temporary_folder() -> Finding:
    """Whether temporary files can be written."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"RESPAN")
    except OSError as error:
        way_out = "set TMPDIR to a folder that can be written to and has space"
        return Finding("Temporary folder", "problem", f"cannot be written to: {error}", way_out)
    return Finding("Temporary folder", "ok", tempfile.gettempdir())


def object_store(settings: OrchestratorSettings) -> list[Finding]:
    """Whether the bucket for the images' stores answers; nothing if they lie beside the images."""
    if settings.volumes is None:
        return []
    try:
        settings.volumes.is_dir()
    except StorageError as error:
        return [Finding("Object store", "problem", str(error))]
    return [Finding("Object store", "ok", f"{settings.volumes} can be listed")]


def gpu() -> Finding:
    """NVIDIA GPUs and their driver, as nvidia-smi knows them."""
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    way_out = "none is needed, but a GPU is many times faster; if there is one, install its driver"
    try:
        answer = subprocess.run(
            ["nvidia-smi", *query], capture_output=True, text=True, timeout=_SMI_TIMEOUT_S
        )
    except FileNotFoundError:
        return Finding("GPU", "warning", "no NVIDIA driver (there is no nvidia-smi)", way_out)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("GPU", "warning", f"nvidia-smi does not answer: {error}", way_out)
    lines = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not lines:
        said = (answer.stderr or answer.stdout).strip()
        return Finding("GPU", "warning", f"nvidia-smi finds none: {said}", way_out)
    return Finding("GPU", "ok", "; ".join(lines))


def driver() -> Finding:
    """Whether NVIDIA's driver is new enough for the PyTorch that is installed here."""
    if problem := driver_problem(cuda_of_torch()):
        text, _, way_out = problem.partition(": ")
        return Finding("Driver", "warning", text, way_out)
    return Finding("Driver", "ok", "nothing speaks against it")


def torch_gpu(*, has_gpu: bool) -> Finding:
    """Whether PyTorch can use the GPU; asked in a process of its own, to stay light."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH],
            capture_output=True,
            text=True,
            timeout=_TORCH_TIMEOUT_S,
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        way_out = "services on this machine need it: `make setup` installs it"
        return Finding("PyTorch", "warning", "cannot be imported here", way_out)
    if found["names"]:
        return Finding("PyTorch", "ok", f"{found['version']} on {', '.join(found['names'])}")
    text = f"{found['version']} uses the processor"
    if not has_gpu:
        return Finding("PyTorch", "ok", text)
    way_out = "install PyTorch's CUDA build (see the README), or a driver that is new enough for it"
    return Finding("PyTorch", "warning", f"{text}, although there is a GPU", way_out)


def packages(part: str) -> Finding:
    """Versions of what the orchestrator or a service stands on."""
    subject = f"Packages of {part}"
    if importlib.util.find_spec(f"respan_{part}") is None:
        variable = f"RESPAN_{part.upper()}_ADDRESS"
        way_out = f"`make setup` installs it; or give the address of one elsewhere ({variable})"
        return Finding(subject, "warning", f"respan_{part} is not installed here", way_out)
    versions = {name: _version(name) for name in _PACKAGES[part]}
    missing = [name for name, version in versions.items() if not version]
    text = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    if missing:
        return Finding(subject, "problem", text, f"`make setup` installs {', '.join(missing)}")
    return Finding(subject, "ok", text)


def models(settings: OrchestratorSettings) -> Finding:
    """Segmentation models that can be called by name."""
    names = [model.name for model in known_models(settings.model_roots)]
    if names:
        return Finding("Models", "ok", ", ".join(names))
    roots = ", ".join(str(root) for root in settings.model_roots) or "no folder"
    way_out = "set RESPAN_MODEL_ROOTS to a folder with nnU-Net models, or name one with --model"
    return Finding("Models", "warning", f"none in {roots}", way_out)


def ports() -> Finding:
    """Whether `respan up` finds its ports free, or is up already."""
    if any(process.is_alive for process in stack.processes()):
        return Finding("Ports", "ok", "the stack is up")
    taken = [port for port in _STACK_PORTS if is_taken(port)]
    if not taken:
        return Finding("Ports", "ok", f"{', '.join(map(str, _STACK_PORTS))} are free")
    holders = [f"{port} by {listener(port) or 'another program'}" for port in taken]
    way_out = "end it before `respan up`; `respan run` alone does not need them"
    return Finding("Ports", "warning", f"taken: {'; '.join(holders)}", way_out)


def _memory_bytes() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no container, or "max": without limit
            continue
    return total


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _refused_settings(error: ValidationError) -> Finding:
    return Finding("Settings", "problem", refusal(error), "correct these environment variables")
