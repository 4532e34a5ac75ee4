"""An image that is segmented in pieces, with interruptions, or by several at once."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.unit.respan_segmentation.prediction import ours, textured
from tests.unit.respan_segmentation.stage_runs import SPACING, classes_of, publish, rows_of, segment
from tests.waiting import becomes_true

from respan_common.errors import CancelledError, InputError
from respan_common.events import Accepted, Reporter
from respan_segmentation import passes

LONG = textured((6, 1050, 40))
"""Three shards, one after the other."""


@pytest.fixture
def long_store(tmp_path):
    return publish(tmp_path / "long.ome.zarr", [LONG])


@pytest.fixture(scope="module")
def long_classes(model):
    return ours(model, LONG, SPACING, step=0.75)


def test_a_canceled_stage_resumes_at_its_first_unfinished_row(long_store, model, long_classes):
    log = long_store / ".respan" / "partial" / "segmentation" / ".respan" / "done.log"
    with pytest.raises(CancelledError):
        segment(long_store, model, Reporter(lambda event: None, log.exists), channel=1)
    events = []
    segment(long_store, model, Reporter(events.append, lambda: False), channel=1)
    accepted = next(event for event in events if isinstance(event, Accepted))
    assert (accepted.blocks, accepted.blocks_done) == (3, 1)
    np.testing.assert_array_equal(classes_of(long_store), long_classes)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_regions_one_after_the_other_give_the_whole(long_store, model, long_classes, order):
    regions = [rows_of(0, 512), rows_of(512, 1024), rows_of(1024, 1050)]
    left = []
    for number in order:
        record = segment(long_store, model, channel=1, region=regions[number])
        left.append(record.numbers.get("shards_left", 0))
    assert left == [2, 1, 0]
    np.testing.assert_array_equal(classes_of(long_store), long_classes)


def test_a_region_that_cuts_through_a_shard_is_an_input_error(long_store, model):
    with pytest.raises(InputError, match=r"multiples of .*512"):
        segment(long_store, model, channel=1, region=rows_of(0, 500))


REPLICA = """
import sys
from pathlib import Path
from respan_common.events import SilentReporter
from respan_common.params import SegmentationParams
from respan_common.settings import Runtime
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.stage import run
store, model, start, stop = sys.argv[1:]
params = SegmentationParams(model=model, precision="full", skip_empty=False)
region = (slice(0, 6), slice(int(start), int(stop)), slice(0, 40)) if stop != "0" else None
job = SegmentationJob(Path(store), "", Path(model), params, Runtime("cpu", 1), None, region)
run(job, SilentReporter())
"""


@pytest.mark.parametrize("kill", [False, True])
def test_replicas_share_an_image_and_one_that_is_killed_costs_only_time(
    long_store, model, long_classes, kill
):
    def replica(start, stop):
        return subprocess.Popen(
            [sys.executable, "-c", REPLICA, str(long_store), str(model), str(start), str(stop)]
        )

    replicas = [replica(0, 0), replica(512, 1050)]
    if kill:
        claims = long_store / ".respan" / "partial" / "segmentation" / ".respan" / "claims"
        begun = lambda: any(claims.glob("classes*")) or replicas[0].poll() is not None  # noqa: E731
        assert becomes_true(begun, 500)
        replicas[0].kill()
        replicas[0].wait()
        replicas.append(replica(0, 0))
    assert [one.wait(500) for one in replicas[-2:]] == [0, 0]
    np.testing.assert_array_equal(classes_of(long_store), long_classes)


def test_where_memory_is_short_narrower_columns_give_the_same(tmp_path, model, monkeypatch):
    image = textured((6, 560, 550))
    whole_store = publish(tmp_path / "whole.ome.zarr", [image])
    segment(whole_store, model, channel=1)
    plain = passes.scores_of

    def short(read, box, *rest):
        if box[2].stop - box[2].start > 512:
            raise torch.OutOfMemoryError
        yield from plain(read, box, *rest)

    monkeypatch.setattr(passes, "scores_of", short)
    store = publish(tmp_path / "cut.ome.zarr", [image])
    record = segment(store, model, channel=1)
    assert "narrower columns" in record.warnings[0]
    np.testing.assert_array_equal(classes_of(store), classes_of(whole_store))
