"""Spines that a second model looks at again."""

import numpy as np
import pytest
import torch
from tests.nnunet_models import write_random_cascade, write_random_model
from tests.unit.respan_segmentation.stage_runs import SPACING, classes_of, publish, rows_of, segment

from respan_common.errors import CancelledError, InputError
from respan_common.events import Accepted, Reporter
from respan_segmentation import walk


class Greys:
    """A stand-in for a model: spine from a grey value on."""

    devices, least_batch = (torch.device("cpu"),), None

    def __init__(self, least):
        self.least = least

    def predictor(self, **options):
        def predict(windows):
            for window in windows:
                nothing = torch.zeros_like(window)
                yield torch.cat([nothing, window - self.least, nothing - 1, nothing - 1])

        return predict


@pytest.fixture
def strict_second(tmp_path, monkeypatch):
    """Two models: spines are what is above 100, but at a second look above 200."""
    raw = {"spacing": SPACING.zyx, "patch": (4, 16, 16), "normalization": "NoNormalization"}
    first, second = (write_random_model(tmp_path / name, **raw) for name in ("one", "two"))
    least = {"one": 100, "two": 200}
    monkeypatch.setattr(walk, "load", lambda folder, *rest: Greys(least[folder.name]))
    return first, str(second)


def spines_along_y():
    """Bright spines with a dim border, one across shards; dim ones; and what is too large."""
    image = np.full((6, 1050, 40), 20, np.uint16)
    for y in (100, 505, 700, 1020):
        image[1:5, y : y + 12, 4:12] = 150
        image[2:4, y + 2 : y + 10, 6:10] = 300
    for y in (300, 900):
        image[1:5, y : y + 12, 20:28] = 150
    image[2:4, 560:640, 30:36] = 150
    return image


def test_spines_are_looked_at_again(tmp_path, strict_second):
    first, second = strict_second
    image = spines_along_y()
    store = publish(tmp_path / "spines.ome.zarr", [image])
    plain = segment(store, first, channel=1)
    np.testing.assert_array_equal(classes_of(store), image > 100)
    record = segment(store, first, channel=1, refinement_model=second)
    expected = image > 200
    expected[:, 560:640] = (image > 100)[:, 560:640]
    np.testing.assert_array_equal(classes_of(store), expected)
    assert record.numbers["refined"] == 6
    assert "over more than 8 µm" in record.warnings[0]
    assert record.digest != plain.digest
    assert "refined" not in plain.numbers
    assert list(record.outputs) == ["confidence", "labels/classes"]


@pytest.mark.parametrize("step", ["classes", "refined"])
def test_a_canceled_refinement_goes_on_where_it_was(tmp_path, strict_second, step):
    first, second = strict_second
    store = publish(tmp_path / "spines.ome.zarr", [spines_along_y()])
    log = store / ".respan" / "partial" / "segmentation" / ".respan" / "done.log"
    begun = lambda: log.exists() and f"{step} " in log.read_text()  # noqa: E731
    how = {"channel": 1, "refinement_model": second}
    with pytest.raises(CancelledError):
        segment(store, first, Reporter(lambda event: None, begun), **how)
    events = []
    record = segment(store, first, Reporter(events.append, lambda: False), **how)
    accepted = next(event for event in events if isinstance(event, Accepted))
    assert (accepted.blocks, accepted.blocks_done) == (3, 1 if step == "refined" else 0)
    assert record.numbers["refined"] == 6
    interrupted = classes_of(store)
    again = publish(tmp_path / "again.ome.zarr", [spines_along_y()])
    segment(again, first, **how)
    np.testing.assert_array_equal(interrupted, classes_of(again))


def test_regions_share_the_refinement(tmp_path, strict_second):
    first, second = strict_second
    store = publish(tmp_path / "spines.ome.zarr", [spines_along_y()])
    how = {"channel": 1, "refinement_model": second}
    for start, stop in ((512, 1050), (0, 512)):
        record = segment(store, first, region=rows_of(start, stop), **how)
    assert record.numbers["refined"] == 6


def test_any_two_models_go_together(store, model, tmp_path):
    second = write_random_model(tmp_path / "second", patch=(8, 16, 16), seed=5)
    segment(store, model)
    plain = classes_of(store)
    record = segment(store, model, refinement_model=str(second), refinement_margin_um=0.12)
    assert record.numbers["refined"] > 0
    assert (classes_of(store) != plain).any()


def test_a_cascade_cannot_refine(store, model, tmp_path):
    cascade = write_random_cascade(tmp_path / "cascade")
    with pytest.raises(InputError, match=r"refinement_model.*cascade"):
        segment(store, model, refinement_model=str(cascade))
