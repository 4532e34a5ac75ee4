"""Runs over several replicas that answer as told."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.flow.fake_services import FakeServices, served
from tests.flow.test_analyze import outcome_of, status_by_name

from respan_orchestrator.analysis_request import AnalysisRequest
from respan_orchestrator.flows import analyze
from respan_orchestrator.progress import StageNews, listening

Two = tuple[FakeServices, FakeServices]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, model: Path) -> Iterator[Two]:
    first, second = FakeServices(), FakeServices()
    with served(first) as one, served(second) as other:
        for name in ("SEGMENTATION", "QUANTIFICATION"):
            monkeypatch.setenv(f"RESPAN_{name}_ADDRESS", f"{one},{other}")
        monkeypatch.setenv("RESPAN_MODEL_ROOTS", str(model.parent))
        yield first, second


def when_both_are_called(two: Two, stage: str, then) -> None:
    """Let the first two calls of a stage go on together only, one at each replica."""
    together, waits = threading.Barrier(2, action=then), [True, True]

    def wait(number: int, called: str) -> None:
        if called == stage and waits[number]:
            waits[number] = False
            together.wait(60)

    for number, fake in enumerate(two):
        fake.when_called = lambda called, number=number: wait(number, called)


def test_two_replicas_work_on_two_images_at_the_same_time(two, experiment):
    when_both_are_called(two, "segment", lambda: None)
    outcome = outcome_of(experiment)
    assert status_by_name(outcome) == dict.fromkeys(("cell1", "cell2", "cell3"), "done")
    assert all(fake.calls for fake in two)
    for image in ("cell1", "cell2", "cell3"):
        calls = sorted(call for fake in two for call in fake.stages_of(image))
        assert calls == ["quantify", "segment"]


def test_each_image_fails_alone_and_outcomes_stand_in_the_order_of_the_folders(two, experiment):
    """Two images have one name, a third is none, and the first is done last."""
    (experiment / "Animal_B" / "cell3.tif").rename(experiment / "Animal_B" / "cell1.tif")
    (experiment / "Animal_B" / "cell2.tif").write_text("not an image")
    for fake in two:
        fake.refuse("segment", "cell2", grpc.StatusCode.INVALID_ARGUMENT, "no such channel")
    last_is_done, heard = threading.Event(), []

    def hear(news: StageNews) -> None:
        heard.append(news)
        if (news.folder, news.image, news.stage) == ("Animal_A", "cell1", "segmentation"):
            assert last_is_done.wait(60)
        if (news.folder, news.stage, news.state) == ("Animal_B", "export", "done"):
            last_is_done.set()

    with listening(hear):
        outcome = outcome_of(experiment)
    assert [(image.sub_folder, image.name, image.status) for image in outcome.images] == [
        ("Animal_A", "cell1", "done"),
        ("Animal_A", "cell2", "failed"),
        ("Animal_B", "cell1", "done"),
        ("Animal_B", "cell2", "failed"),
    ]
    assert outcome.images[1].error == "no such channel"
    exported = [news.folder for news in heard if (news.stage, news.state) == ("export", "done")]
    assert exported == ["Animal_B", "Animal_A"]


def test_a_replica_that_is_away_gets_nothing(two, experiment, monkeypatch):
    with served(FakeServices()) as gone:
        pass
    with served(two[0]) as there:
        monkeypatch.setenv("RESPAN_SEGMENTATION_ADDRESS", f"{gone},{there}")
        outcome = outcome_of(experiment)
    assert status_by_name(outcome) == dict.fromkeys(("cell1", "cell2", "cell3"), "done")


def test_a_signal_ends_all_images_in_work_without_waiting_for_their_services(two, experiment):
    let_go = threading.Event()

    when_both_are_called(two, "segment", _thread.interrupt_main)
    for fake in two:
        arrive = fake.when_called
        fake.when_called = lambda stage, arrive=arrive: (arrive(stage), let_go.wait(60))
    try:
        with pytest.raises(KeyboardInterrupt):
            analyze(AnalysisRequest(experiment=str(experiment)))
        assert not let_go.is_set()
        assert {stage for fake in two for stage, _ in fake.calls} == {"segment"}
        assert [image for fake in two for _, image in fake.calls].count("cell3") == 0
    finally:
        let_go.set()
