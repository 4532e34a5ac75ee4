from __future__ import annotations

import os
from pathlib import Path

import pytest

from respan_orchestrator import container_checks
from respan_orchestrator.container_checks import containers, volume, written_in
from respan_orchestrator.findings import Finding

GOOD = {
    "version": "echo 27.1.0",
    "compose": "echo v2.30.1",
    "info": """echo '{"nvidia": {}, "runc": {}}'""",
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, on a machine that describes no GPUs for containers."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(container_checks, "_SPECIFICATIONS", (tmp_path / "cdi",))
    for name in ("RESPAN_DATA", "RESPAN_USER"):
        monkeypatch.delenv(name, raising=False)
    return folder


def install_docker(folder: Path, **answers: str) -> None:
    cases = "".join(f"{name}) {does};;\n" for name, does in (GOOD | answers).items())
    (folder / "docker").write_text(f'#!/bin/sh\ncase "$1" in\n{cases}esac\n')
    (folder / "docker").chmod(0o755)


def found(folder: Path, *, has_gpu: bool = True) -> dict[str, Finding]:
    return {finding.subject: finding for finding in containers(has_gpu, folder)}


def test_a_machine_without_docker_lacks_nothing(programs, tmp_path):
    (finding,) = found(tmp_path).values()
    assert finding.state == "ok"


def test_a_machine_with_everything_is_ok(programs, tmp_path):
    install_docker(programs)
    findings = found(tmp_path)
    assert set(findings) == {"Docker", "Compose", "GPU in containers"}
    assert {finding.state for finding in findings.values()} == {"ok"}


@pytest.mark.parametrize(
    ("answers", "subject", "words"),
    [
        ({"version": "echo cannot connect >&2; exit 1"}, "Docker", "cannot connect"),
        ({"version": "echo 24.0.7"}, "Docker", "24.0.7 is too old"),
        ({"compose": "echo unknown command >&2; exit 1"}, "Compose", "unknown command"),
        ({"compose": "echo 2.23.3"}, "Compose", "2.23.3 is too old"),
        ({"info": """echo '{"runc": {}}'"""}, "GPU in containers", "toolkit is missing"),
    ],
)
def test_what_is_missing_or_old_is_a_warning_with_a_way_out(
    programs, tmp_path, answers, subject, words
):
    install_docker(programs, **answers)
    finding = found(tmp_path)[subject]
    assert finding.state == "warning"
    assert words in finding.text
    assert finding.way_out


def test_gpus_described_for_containers_need_no_runtime(programs, tmp_path):
    install_docker(programs, info="echo '{}'")
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "nvidia.yaml").touch()
    assert found(tmp_path)["GPU in containers"].state == "ok"


def test_the_folder_of_data_is_that_of_the_file_beside_compose(programs, tmp_path):
    install_docker(programs)
    (tmp_path / ".env").write_text(f"# mine\nRESPAN_DATA='{tmp_path / 'absent'}'\n")
    finding = found(tmp_path)["Data of containers"]
    assert finding.state == "problem"
    assert "absent" in finding.text


def test_a_folder_that_the_containers_user_may_not_write_to_names_its_owner(tmp_path):
    tmp_path.chmod(0o755)
    owner = f"{tmp_path.stat().st_uid}:{tmp_path.stat().st_gid}"
    finding = volume({"RESPAN_DATA": str(tmp_path), "RESPAN_USER": "12345:12345"})
    assert finding.state == "problem"
    assert f"RESPAN_USER={owner}" in finding.way_out
    assert volume({"RESPAN_DATA": str(tmp_path), "RESPAN_USER": owner}).state == "ok"


@pytest.mark.parametrize(("mode", "user"), [(0o777, "12345:12345"), (0o775, "12345:{gid}")])
def test_a_folder_may_be_written_to_by_others_or_by_its_group(tmp_path, mode, user):
    tmp_path.chmod(mode)
    user = user.format(gid=tmp_path.stat().st_gid)
    assert volume({"RESPAN_DATA": str(tmp_path), "RESPAN_USER": user}).state == "ok"


def test_an_experiment_of_the_containers_user_in_a_folder_of_another_is_enough(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "experiment").mkdir()
    os.chmod(tmp_path / "experiment", 0o777)
    assert volume({"RESPAN_DATA": str(tmp_path), "RESPAN_USER": "12345:12345"}).state == "ok"


def test_a_user_by_name_is_refused(tmp_path):
    finding = volume({"RESPAN_DATA": str(tmp_path), "RESPAN_USER": "anna"})
    assert "anna" in finding.text
    assert "id -u" in finding.way_out


def test_an_env_file_is_read_as_compose_does(tmp_path):
    (tmp_path / ".env").write_text('A=1\n#B=2\nexport C="3 4"\n\nnonsense\nD=\n')
    assert written_in(tmp_path / ".env") == {"A": "1", "C": "3 4", "D": ""}
    assert written_in(tmp_path / "absent") == {}
