from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from respan_common import gpus, startup
from respan_common.errors import InputError
from respan_common.settings import ServiceSettings

NOBODY = 65534


def settings(folder: Path, **other: object) -> ServiceSettings:
    return ServiceSettings(data_roots=[folder], **other)  # type: ignore[arg-type]


def fault(given: ServiceSettings, *, demands_gpu: bool = True) -> str:
    with pytest.raises(InputError) as caught:
        startup.check(given, demands_gpu=demands_gpu)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_nobody(expression: str, **names: object) -> str:
    """What a function of the module says to a user without rights."""
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    code = "import os; from pathlib import Path; from respan_common import startup\n"
    code += f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    code += "".join(f"{name} = {value!r}\n" for name, value in names.items())
    command = [sys.executable, "-c", f"{code}print({expression})"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that everybody may look into; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        yield Path(folder)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus, "_PROC", tmp_path / "absent")
    monkeypatch.setattr(gpus, "_WSL_SMI", str(tmp_path / "absent"))
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_place_where_all_is_well_starts_without_a_word(tmp_path, caplog):
    lease = tmp_path / "made" / "later"
    startup.check(settings(tmp_path, gpu_lease_folder=lease), demands_gpu=True)
    assert not caplog.records


def test_a_data_root_that_is_not_there_is_named(tmp_path):
    assert f"no folder {tmp_path / 'absent'}" in fault(settings(tmp_path / "absent"))


def test_a_data_root_of_somebody_else_names_its_owner_and_the_way_out(read_only):
    text = as_nobody("startup.data_problem([Path(root)])", root=str(read_only))
    assert f"user {NOBODY}:{NOBODY} may not write to {read_only}" in text
    assert "RESPAN_USER=0:0" in text
    (read_only / "mine").mkdir()
    (read_only / "mine").chmod(0o777)
    assert as_nobody("startup.data_problem([Path(root)])", root=str(read_only)) == ""


def test_a_lease_folder_that_cannot_be_written_to_is_named(read_only, tmp_path):
    text = as_nobody("startup.lease_problem(Path(folder))", folder=str(read_only / "leases"))
    assert "RESPAN_GPU_LEASE_FOLDER" in text
    (tmp_path / "file").touch()
    assert "GPU" in fault(settings(tmp_path, gpu_lease_folder=tmp_path / "file"))


def test_a_model_root_that_is_not_there_is_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        startup.check(settings(tmp_path, model_roots=[tmp_path / "absent"]), demands_gpu=True)
    assert str(tmp_path / "absent") in caplog.text


def test_a_gpu_that_is_asked_for_must_be_there_unless_the_service_does_without(tmp_path, no_driver):
    asking = settings(tmp_path, device="cuda")
    assert "RESPAN_DEVICE=auto" in fault(asking)
    startup.check(asking, demands_gpu=False)
    startup.check(settings(tmp_path, device="auto"), demands_gpu=True)


def test_an_old_driver_is_named(tmp_path, no_driver, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\ncase "$1" in -L) echo "GPU 0: X (UUID: GPU-1)";; *) echo 470.1;; esac\n'
    )
    smi.chmod(0o755)
    monkeypatch.setattr(startup, "cuda_of_torch", lambda: "13.0")
    assert "470.1 is too old for CUDA 13.0" in fault(settings(tmp_path, device="cuda"))


def test_the_cuda_of_pytorch_is_known_without_importing_it(tmp_path, monkeypatch):
    assert startup.cuda_of_torch() == torch.version.cuda
    code = "import sys; from respan_common.startup import cuda_of_torch as ask; ask()"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    text = "cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
    (tmp_path / "torch" / "version.py").write_text(text)
    code = "from respan_common.startup import cuda_of_torch as ask; print(ask())"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.strip() == b"13.0"
