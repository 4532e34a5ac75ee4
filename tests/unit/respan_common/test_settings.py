from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from respan_common.buckets import BucketPath
from respan_common.settings import Runtime, ServiceSettings, from_environment
from respan_orchestrator.settings import OrchestratorSettings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [name for name in os.environ if name.startswith("RESPAN_")]:
        monkeypatch.delenv(name)


def test_the_default_listens_on_loopback_and_sees_the_working_folder():
    settings = ServiceSettings()
    assert settings.host == "127.0.0.1"
    assert settings.data_roots == [Path.cwd()]
    assert settings.token is None


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("RESPAN_PORT", "50051")
    monkeypatch.setenv("RESPAN_DATA_ROOTS", f"/data{os.pathsep}/more data{os.pathsep}")
    monkeypatch.setenv("RESPAN_DEVICE", "cpu")
    monkeypatch.setenv("RESPAN_TOKEN", "secret")
    settings = ServiceSettings()
    assert settings.port == 50051
    assert settings.data_roots == [Path("/data"), Path("/more data")]
    assert settings.runtime == Runtime("cpu", 0)
    assert "secret" not in repr(settings)


def test_empty_roots_mean_no_roots(monkeypatch):
    monkeypatch.setenv("RESPAN_DATA_ROOTS", "")
    assert ServiceSettings().data_roots == []


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "-1"), ("DEVICE", "gpu"), ("KEEP_ALIVE_S", "soon")]
)
def test_a_bad_value_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(f"RESPAN_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        ServiceSettings()


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key", "tls_client_ca"])
def test_half_of_tls_is_refused_rather_than_served_in_the_clear(name):
    with pytest.raises(ValidationError, match="tls_key"):
        ServiceSettings(**{name: Path("file.pem")})


def test_no_thread_count_means_all_that_the_process_may_use():
    assert Runtime(threads=0).thread_count == len(os.sched_getaffinity(0))
    assert Runtime(threads=3).thread_count == 3


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (ServiceSettings, {"RESPAN_TLS_KEY": "/nowhere.pem"}),
        (ServiceSettings, {"RESPAN_PORT": "many"}),
        (ServiceSettings, {"RESPAN_TOKEN": "secret\nof two lines"}),
        (ServiceSettings, {"RESPAN_TOKEN": "secret µ"}),
        (OrchestratorSettings, {"RESPAN_STAGE_TIMEOUT_S": "never"}),
        (OrchestratorSettings, {"RESPAN_TOKEN": "secret µ"}),
    ],
)
def test_settings_that_are_refused_do_not_show_the_token(monkeypatch, settings, wrong):
    for name, value in ({"RESPAN_TOKEN": "secret"} | wrong).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as caught:
        settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("settings", [ServiceSettings, OrchestratorSettings])
def test_the_token_may_come_from_a_file(monkeypatch, tmp_path, settings):
    (tmp_path / "token").write_text("sesame\n")
    monkeypatch.setenv("RESPAN_TOKEN", "")
    monkeypatch.setenv("RESPAN_TOKEN_FILE", str(tmp_path / "token"))
    assert settings().token.get_secret_value() == "sesame"
    monkeypatch.setenv("RESPAN_TOKEN_FILE", "")
    assert not settings().token


def test_a_token_file_that_is_of_no_use_is_refused_in_one_line_without_the_token(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("RESPAN_TOKEN_FILE", str(tmp_path / "token"))
    for content, words in (
        (None, "cannot be read"),
        ("", "is empty"),
        ("sesame\nsesame", "in one line"),
    ):
        if content is not None:
            (tmp_path / "token").write_text(content)
        with pytest.raises(SystemExit) as caught:
            from_environment(ServiceSettings)
        text = str(caught.value)
        assert words in text
        assert "RESPAN_TOKEN" in text
        assert "\n" not in text
        assert "sesame" not in text
    monkeypatch.setenv("RESPAN_TOKEN", "sesame")
    with pytest.raises(ValidationError, match="exclude each other"):
        ServiceSettings()


def test_volumes_are_a_place_in_a_bucket_or_nothing(monkeypatch):
    monkeypatch.setenv("RESPAN_VOLUMES", "s3://lab/My volumes/")
    assert ServiceSettings().volumes == BucketPath("lab", "My volumes")
    monkeypatch.setenv("RESPAN_VOLUMES", "")
    assert ServiceSettings().volumes is None
    monkeypatch.setenv("RESPAN_VOLUMES", "lab/volumes")
    with pytest.raises(ValidationError, match="'lab/volumes' is not a place in a bucket"):
        ServiceSettings()


def test_unfinished_work_has_a_folder_in_the_users_cache_unless_one_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("RESPAN_SCRATCH", "")
    assert ServiceSettings().scratch_folder == tmp_path / "respan" / "unfinished"
    monkeypatch.setenv("RESPAN_SCRATCH", str(tmp_path / "disk"))
    assert ServiceSettings().scratch_folder == tmp_path / "disk"
