from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.unit.respan_common.stores import publish_image, ramp

from respan_common.errors import VolumeFormatError
from respan_common.records import StageKey, read_record, record_of, write_text_durably

KEY = StageKey("segmentation", {"raw": "a"}, {"channel": 1, "step": 0.5}, "model")


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "restoration"},
        {"inputs": {"raw": "b"}},
        {"inputs": {"restored": "a"}},
        {"params": {"channel": 2, "step": 0.5}},
        {"params": {"channel": 1}},
        {"model_digest": "another"},
        {"version": "99"},
    ],
)
def test_whatever_a_result_depends_on_changes_its_digest(change):
    assert dataclasses.replace(KEY, **change).digest != KEY.digest


def test_the_order_of_parameters_does_not_matter():
    turned = dataclasses.replace(KEY, params={"step": 0.5, "channel": 1})
    assert turned.digest == KEY.digest


def test_a_record_is_found_by_what_it_vouches_for(tmp_path):
    store = tmp_path / "x.ome.zarr"
    record = publish_image(store, ramp((1, 2, 8, 8), np.uint8))
    assert record_of(store, "") == record
    assert record_of(store, "labels/classes") is None
    assert read_record(store, "segmentation") is None
    assert record.outputs[""].shape == (1, 2, 8, 8)
    assert record.outputs[""].dtype == "uint8"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"stage": "x"}', b"\xff\xfe"])
def test_a_spoiled_record_is_an_error_that_says_what_to_do(tmp_path, text):
    (tmp_path / ".respan").mkdir()
    (tmp_path / ".respan" / "ingest.json").write_bytes(text)
    with pytest.raises(VolumeFormatError, match="delete it to redo"):
        read_record(tmp_path, "ingest")


def test_an_interrupted_write_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "record.json"
    write_text_durably(path, "old")

    def full(_: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("respan_common.records.os.fsync", full)
    with pytest.raises(OSError, match="full"):
        write_text_durably(path, "new")
    assert path.read_text() == "old"
