import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from respan_common.buckets import BucketPath
from respan_orchestrator import doctor, service_checks
from respan_orchestrator.findings import Finding
from respan_orchestrator.settings import SERVICES, OrchestratorSettings


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def health_server() -> Iterator[tuple[health.HealthServicer, int]]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield checks, port
    server.stop(0).wait()


def write_program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def segmentation(address: str) -> Finding:
    settings = OrchestratorSettings(segmentation_address=address)
    return dict(zip(SERVICES, service_checks.services(settings), strict=True))["segmentation"]


def test_a_machine_without_nvidia_smi_has_a_warning_and_no_problem(program: Path) -> None:
    assert doctor.gpu().state == "warning"


def test_the_bucket_of_the_stores_is_looked_at_if_there_is_one(
    bucket: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [found.state for found in doctor.object_store(OrchestratorSettings())] == ["ok"]
    (found,) = doctor.object_store(OrchestratorSettings(volumes=BucketPath("nobodys", "")))
    assert found.state == "problem"
    assert "no bucket 'nobodys'" in found.text
    monkeypatch.delenv("RESPAN_VOLUMES")
    assert doctor.object_store(OrchestratorSettings()) == []


def test_gpus_are_listed_with_memory_and_driver(program: Path) -> None:
    write_program(program / "nvidia-smi", "echo 'NVIDIA X1, 8192 MiB, 570.1'")
    assert doctor.gpu() == Finding("GPU", "ok", "NVIDIA X1, 8192 MiB, 570.1")


def test_a_driver_that_fails_is_a_warning_with_its_words(program: Path) -> None:
    write_program(program / "nvidia-smi", "echo 'version mismatch' >&2; exit 9")
    finding = doctor.gpu()
    assert finding.state == "warning"
    assert "version mismatch" in finding.text


@pytest.mark.parametrize(
    ("names", "has_gpu", "state"),
    [('["X1"]', True, "ok"), ("[]", True, "warning"), ("[]", False, "ok")],
)
def test_a_gpu_that_pytorch_does_not_see_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, has_gpu: bool, state: str
) -> None:
    answer = f'echo \'{{"version": "9.9", "names": {names}}}\''
    monkeypatch.setattr(sys, "executable", str(write_program(tmp_path / "python", answer)))
    finding = doctor.torch_gpu(has_gpu=has_gpu)
    assert finding.state == state
    assert "9.9" in finding.text


def test_a_machine_without_pytorch_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(write_program(tmp_path / "python", "exit 1")))
    finding = doctor.torch_gpu(has_gpu=False)
    assert finding.state == "warning"
    assert finding.way_out


def test_looking_at_the_machine_imports_no_pytorch() -> None:
    code = "import sys, respan_orchestrator.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_service_without_address_is_started_when_needed() -> None:
    finding = segmentation("")
    assert finding.state == "ok"
    assert "when needed" in finding.text


def test_a_service_that_does_not_serve_is_a_problem(
    health_server: tuple[health.HealthServicer, int],
) -> None:
    checks, port = health_server
    checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert segmentation(f"127.0.0.1:{port}").state == "problem"


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_service_that_is_not_there_is_a_problem_with_a_way_out(host: str) -> None:
    finding = segmentation(f"{host}:{free_port()}")
    assert finding.state == "problem"
    assert "RESPAN_SEGMENTATION_ADDRESS" in finding.way_out


def test_a_missing_certificate_is_a_problem(tmp_path: Path) -> None:
    settings = OrchestratorSettings(
        segmentation_address="127.0.0.1:1", tls_ca=tmp_path / "absent.pem"
    )
    found = dict(zip(SERVICES, service_checks.services(settings), strict=True))
    assert "absent.pem" in found["segmentation"].text


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESPAN_STATE_FOLDER", str(tmp_path))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(doctor, "_STACK_PORTS", (port,))
        assert f"{port} by " in doctor.ports().text
        assert f"process {os.getpid()}" in doctor.ports().text
        assert doctor.ports().state == "warning"
    assert doctor.ports().state == "ok"


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_LEAST_DISK_GIB", 1e9)
    monkeypatch.setattr(doctor, "_ENOUGH_DISK_GIB", 1e9)
    assert doctor.disk(tmp_path).state == "problem"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("only root can mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_nearly_full_is_a_problem(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESPAN_STATE_FOLDER", str(tiny_disk / "respan"))
    state, _ = doctor.own_folders()
    assert state.state == doctor.disk(tiny_disk).state == "problem"
    assert str(tiny_disk) in state.text
    assert "RESPAN_STATE_FOLDER" in state.way_out


def test_a_folder_that_cannot_be_made_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    _, cache = doctor.own_folders()
    assert cache.state == "problem"
    assert "XDG_CACHE_HOME" in cache.way_out


def test_an_old_driver_is_a_warning_that_names_the_needed_one(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "cuda_of_torch", lambda: "13.0")
    assert doctor.driver().state == "ok"
    write_program(program / "nvidia-smi", "echo 470.1")
    finding = doctor.driver()
    assert finding.state == "warning"
    assert "470.1" in finding.text
    assert "update the driver" in finding.way_out


def test_no_finding_shows_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(write_program(tmp_path / "python", "exit 1")))
    monkeypatch.setenv("RESPAN_TOKEN", "open-sesame")
    monkeypatch.setenv("RESPAN_SEGMENTATION_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "respan:open-sesame")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    assert "sesame" not in str(doctor.examine())
    monkeypatch.setenv("RESPAN_TOKEN", "open-sesame µ")
    last = doctor.examine()[-1]
    assert (last.subject, last.state) == ("Settings", "problem")
    assert "sesame" not in str(last)


def test_an_unknown_model_folder_is_a_warning(tmp_path: Path) -> None:
    finding = doctor.models(OrchestratorSettings(model_roots=[tmp_path / "absent"]))
    assert finding.state == "warning"
    assert "absent" in finding.text


def test_a_package_that_is_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._PACKAGES, "orchestrator", ("numpy", "no-such-package"))
    finding = doctor.packages("orchestrator")
    assert finding.state == "problem"
    assert "no-such-package" in finding.way_out


def test_a_service_that_is_not_installed_may_run_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(doctor._PACKAGES, "telepathy", ())
    finding = doctor.packages("telepathy")
    assert finding.state == "warning"
    assert "RESPAN_TELEPATHY_ADDRESS" in finding.way_out


def test_settings_that_are_refused_are_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESPAN_STAGE_TIMEOUT_S", "soon")
    monkeypatch.setattr(sys, "executable", str(write_program(tmp_path / "python", "exit 1")))
    last = doctor.examine()[-1]
    assert (last.subject, last.state) == ("Settings", "problem")
    assert "RESPAN_STAGE_TIMEOUT_S" in last.text


def test_every_subject_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(write_program(tmp_path / "python", "exit 1")))
    findings = doctor.examine()
    subjects = [finding.subject for finding in findings]
    assert len(set(subjects)) == len(subjects)
    assert {"Python", "Memory", "Disk", "GPU", "PyTorch", "Models", "Ports"} <= set(subjects)
    assert all(finding.way_out for finding in findings if finding.state == "problem")
