"""Paths and markers; nothing slow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real recordings; `RESPAN_TEST_DATA` names it, else it lies beside the checkout."""
    folder = Path(os.environ.get("RESPAN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set RESPAN_TEST_DATA to the folder that holds it")
    return folder
