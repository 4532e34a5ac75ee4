"""Paths and markers; nothing slow."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.object_store import make_bucket, serving_objects

from respan_common.buckets import BucketPath

ROOT = Path(__file__).parents[1]

# What a test asserts is never how long it took: machines are busy at times.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# A shell makes what it starts in the background deaf to Ctrl+C, and so all that this starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real recordings; `RESPAN_TEST_DATA` names it, else it lies beside the checkout."""
    folder = Path(os.environ.get("RESPAN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set RESPAN_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def object_store() -> Iterator[dict[str, str]]:
    """Environment that leads to an object store (S3) of this session."""
    with serving_objects() as environment:
        yield environment


@pytest.fixture
def bucket(
    object_store: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> BucketPath:
    """An empty folder in a new bucket, which this process is let into."""
    for name, value in object_store.items():
        monkeypatch.setenv(name, value)
    place = BucketPath(f"lab-{uuid.uuid4().hex[:12]}", "My Volumes")
    make_bucket(object_store, place.bucket)
    monkeypatch.setenv("RESPAN_VOLUMES", str(place))
    monkeypatch.setenv("RESPAN_SCRATCH", str(tmp_path / "scratch"))
    return place
