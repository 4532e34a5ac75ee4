"""The analysis as Prefect runs it, against services that answer as told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import httpx
import pandas as pd
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.settings import PREFECT_API_URL
from tests.flow.fake_services import FakeServices

from respan_common.errors import InputError, ModelError
from respan_orchestrator import flow_server
from respan_orchestrator.analysis_request import AnalysisRequest
from respan_orchestrator.deployments import set_gpu_limit
from respan_orchestrator.flows import analyze
from respan_orchestrator.outcomes import ExperimentOutcome, ImageOutcome
from respan_orchestrator.progress import StageNews, listening
from respan_orchestrator.tasks import GPU_LIMIT


def gpu_slots_taken() -> int:
    with get_client(sync_client=True) as client:
        return int(client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots)


def outcome_of(experiment: Path, **request: Any) -> ExperimentOutcome:
    state = analyze(AnalysisRequest(experiment=str(experiment), **request), return_state=True)
    return state.result(raise_on_failure=False)


def image_of(outcome: ExperimentOutcome, name: str) -> ImageOutcome:
    return next(image for image in outcome.images if image.name == name)


def status_by_name(outcome: ExperimentOutcome) -> dict[str, str]:
    return {image.name: image.status for image in outcome.images}


def test_every_image_goes_through_the_stages_in_order(services, experiment):
    outcome = outcome_of(experiment)
    assert status_by_name(outcome) == dict.fromkeys(("cell1", "cell2", "cell3"), "done")
    assert services.stages_of("cell1") == ["segment", "quantify"]
    stages = [stage.stage for stage in image_of(outcome, "cell1").stages]
    assert stages == ["ingest", "segmentation", "quantification", "export"]


def test_restoration_comes_first_when_the_settings_ask_for_it(services, experiment, tmp_path):
    (tmp_path / "care").mkdir()
    override = f"restoration.care_models={{1: '{tmp_path / 'care'}'}}"
    outcome_of(experiment, overrides=[override], only=["cell1"])
    assert services.stages_of("cell1")[0] == "restore"


def test_what_services_say_is_in_the_outcome(services, experiment):
    image = image_of(outcome_of(experiment), "cell3")
    assert (image.sub_folder, image.numbers["spines"]) == ("Animal_B", 3)
    assert image.warnings == ["segment warns", "quantify warns"]


def test_a_service_that_was_away_is_asked_again(services, experiment):
    services.refuse("segment", "cell1", grpc.StatusCode.UNAVAILABLE, "restarting")
    outcome = outcome_of(experiment)
    assert status_by_name(outcome)["cell1"] == "done"
    assert services.stages_of("cell1") == ["segment", "segment", "quantify"]


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
    ],
)
def test_a_refusal_is_final(services: FakeServices, experiment: Path, status: grpc.StatusCode):
    services.refuse("quantify", "cell1", status, "the service's own words")
    image = image_of(outcome_of(experiment, only=["cell1"]), "cell1")
    assert services.stages_of("cell1") == ["segment", "quantify"]
    assert "the service's own words" in image.error


def test_a_busy_service_is_asked_again_when_it_said_and_the_wait_is_shown(services, experiment):
    for _ in range(2):
        services.refuse(
            "segment",
            "cell1",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "the GPU is in use: held by training",
            retry_after_s="0.1",
        )
    heard: list[StageNews] = []
    with listening(heard.append):
        outcome = outcome_of(experiment, only=["cell1"])
    assert status_by_name(outcome)["cell1"] == "done"
    assert services.stages_of("cell1") == ["segment"] * 3 + ["quantify"]
    waits = [news for news in heard if "held by training" in news.message]
    assert [(news.state, news.stage) for news in waits] == [("running", "segmentation")] * 2


def test_a_voxel_size_far_from_the_models_is_told_before_the_work(services, experiment):
    settings = "neuron_channel: 1, input_resXY: 0.5, input_resZ: 4, voxel_size_from: settings"
    (experiment / "Animal_B" / "Analysis_Settings.yml").write_text(f"Parameters: {{{settings}}}")
    told: list[str] = []

    def hear(news: StageNews) -> None:
        if news.state == "warned":
            assert services.stages_of(news.image) == []
            told.append(news.message)

    with listening(hear):
        outcome = outcome_of(experiment, only=["cell3"])
    assert any("this image has 4 x 0.5 x 0.5" in text for text in told)
    assert set(told) <= set(image_of(outcome, "cell3").warnings)


def test_a_service_that_stays_busy_fails_the_image_in_the_end(services, experiment, monkeypatch):
    monkeypatch.setenv("RESPAN_BUSY_WAIT_S", "0")
    for _ in range(2):
        services.refuse(
            "segment", "cell1", grpc.StatusCode.RESOURCE_EXHAUSTED, "in use", retry_after_s="0.1"
        )
    image = image_of(outcome_of(experiment, only=["cell1"]), "cell1")
    assert image.status == "failed"
    assert "in use" in image.error
    assert "RESPAN_BUSY_WAIT_S" in image.error
    assert services.stages_of("cell1") == ["segment"]


@pytest.mark.parametrize(("device", "slots"), [("cuda", [1, 0]), ("cpu", [0, 0])])
def test_a_stage_takes_a_slot_of_the_gpu_if_its_service_has_one(
    services, experiment, device, slots
):
    set_gpu_limit(1)
    services.device = device
    taken: list[int] = []
    services.when_called = lambda stage: taken.append(gpu_slots_taken())
    outcome = outcome_of(experiment, only=["cell1"])
    assert status_by_name(outcome)["cell1"] == "done"
    assert services.stages_of("cell1") == ["segment", "quantify"]
    assert taken == slots
    assert gpu_slots_taken() == 0


def test_a_stage_that_fails_gives_its_slot_back(services, experiment):
    set_gpu_limit(1)
    services.device = "cuda"
    services.refuse("segment", "cell1", grpc.StatusCode.INVALID_ARGUMENT, "no")
    outcome_of(experiment, only=["cell1"])
    assert gpu_slots_taken() == 0


def test_a_run_on_a_server_of_its_own_has_no_limit_to_share(services, experiment, monkeypatch):
    set_gpu_limit(1)
    services.device = "cuda"
    monkeypatch.setattr(flow_server, "_private_url", PREFECT_API_URL.value())
    taken: list[int] = []
    services.when_called = lambda stage: taken.append(gpu_slots_taken())
    outcome_of(experiment, only=["cell1"])
    assert taken == [0, 0]


def test_a_private_server_that_this_flow_does_not_run_on_changes_nothing(
    services, experiment, monkeypatch
):
    set_gpu_limit(1)
    services.device = "cuda"
    monkeypatch.setattr(flow_server, "_private_url", "http://127.0.0.1:1/api")
    taken: list[int] = []
    services.when_called = lambda stage: taken.append(gpu_slots_taken())
    outcome_of(experiment, only=["cell1"])
    assert taken == [1, 0]


def test_a_new_worker_frees_what_nobody_can_hold_any_more(services):
    set_gpu_limit(1)
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(
            GPU_LIMIT, GlobalConcurrencyLimitUpdate(active_slots=1)
        )
    assert gpu_slots_taken() == 1
    set_gpu_limit(2)
    with get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    assert (limit.limit, limit.active_slots) == (2, 0)


def test_an_image_that_fails_does_not_stop_the_others(services, experiment):
    services.refuse("segment", "cell2", grpc.StatusCode.INVALID_ARGUMENT, "no such channel")
    (experiment / "Animal_B" / "cell3.tif").write_text("not an image")
    outcome = outcome_of(experiment)
    assert status_by_name(outcome) == {"cell1": "done", "cell2": "failed", "cell3": "failed"}
    assert image_of(outcome, "cell2").error == "no such channel"
    assert "cell3.tif" in image_of(outcome, "cell3").error


def test_a_bug_is_told_as_one_without_stopping_the_run(services, experiment, monkeypatch):
    def broken(*arguments: Any) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("respan_orchestrator.analysis.export_image", broken)
    error = image_of(outcome_of(experiment, only=["cell1"]), "cell1").error
    assert "KeyError" in error
    assert "DEBUG" in error


def test_only_the_named_images_are_analyzed(services, experiment):
    outcome = outcome_of(experiment, only=["cell3"])
    assert list(status_by_name(outcome)) == ["cell3"]
    assert {image for _, image in services.calls} == {"cell3"}


def test_an_image_already_ingested_is_not_read_again_unless_told(services, experiment):
    def skips_ingest(outcome: ExperimentOutcome) -> bool:
        return image_of(outcome, "cell1").stages[0].skipped

    assert not skips_ingest(outcome_of(experiment, only=["cell1"]))
    assert skips_ingest(outcome_of(experiment, only=["cell1"]))
    assert not skips_ingest(outcome_of(experiment, only=["cell1"], restart_from="ingest"))
    assert skips_ingest(outcome_of(experiment, only=["cell1"], restart_from="segmentation"))


def test_options_of_the_run_reach_the_services(services, experiment):
    outcome_of(experiment, only=["cell1"], channel=1, overrides=["segmentation.preset=exact"])
    assert services.requests[0].params.preset == "exact"
    assert services.requests[0].params.channel == 1


def test_the_nearest_model_is_chosen_where_none_is_named(services, experiment, model):
    outcome_of(experiment, only=["cell1"])
    assert services.requests[0].params.model == str(model)


def test_names_of_no_image_are_refused_before_anything_starts(services, experiment):
    with pytest.raises(InputError, match="no image named cell9, only cell1, cell2, cell3"):
        analyze(AnalysisRequest(experiment=str(experiment), only=["cell9"]))
    assert services.calls == []


def test_a_bad_conditions_file_is_refused_before_anything_starts(services, experiment):
    (experiment / "conditions.csv").write_text("sub_folder,animal\nAnimal_Z,7\n")
    refusal = outcome_of(experiment)
    assert isinstance(refusal, InputError)
    assert "conditions.csv: line 2: sub_folder 'Animal_Z'" in str(refusal)
    assert services.stages_of("cell1") == []


def test_labels_of_conditions_stand_in_the_experiments_tables(services, experiment):
    text = "sub_folder,condition,animal\nAnimal_A,control,7\nAnimal_B,drug,8\n"
    (experiment / "conditions.csv").write_text(text)
    outcome = outcome_of(experiment)
    images, folders, conditions, total = map(pd.read_csv, outcome.tables)
    assert images["condition"].tolist() == ["control", "control", "drug"]
    assert folders["animal"].tolist() == [7, 8]
    assert conditions["total_spines"].tolist() == [6, 3]
    assert total["images"].tolist() == [3]


def test_a_model_of_that_name_must_exist(services, experiment):
    with pytest.raises(ModelError, match=r"no model 'unheard_of'.*by_hand"):
        analyze(AnalysisRequest(experiment=str(experiment), model="unheard_of"))


def test_notes_on_settings_are_told_once_for_each_file(services, experiment):
    for folder in ("Animal_A", "Animal_B"):
        with (experiment / folder / "Analysis_Settings.yml").open("a") as file:
            file.write("Vaa3D:\n  path: vaa3d.exe\n")
    warnings = outcome_of(experiment, only=["cell1"]).warnings
    assert [Path(warning.split(": ")[0]).parent.name for warning in warnings] == [
        "Animal_A",
        "Animal_B",
    ]
    assert all("Vaa3D: path is not applicable" in warning for warning in warnings)


def test_a_signal_stops_the_run_even_where_another_error_hides_it(
    services, experiment, monkeypatch
):
    def interrupted(*arguments: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ValueError("while a task was set up")  # noqa: B904  as Prefect does it

    monkeypatch.setattr("respan_orchestrator.analysis.export_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        analyze(AnalysisRequest(experiment=str(experiment)))
    assert services.stages_of("cell2") == []


def test_a_runs_page_shows_how_far_each_image_is(services, experiment):
    outcome_of(experiment, only=["cell2"])
    with get_client(sync_client=True) as client:
        found = httpx.post(f"{client.api_url}artifacts/filter", json={}, timeout=30).json()
    shown = [one for one in found if one["type"] == "progress" and "cell2" in one["description"]]
    described = {one["description"] for one in shown}
    assert described >= {"cell2: segmentation", "cell2: quantification"}
    assert {float(one["data"]) for one in shown} == {100.0}


def test_a_models_operating_point_fills_what_the_settings_leave_open(services, experiment, model):
    card = model / "card.json"
    card.write_text('{"operating_point": {"min_dendrite_volume_um3": 3, "max_neck_length_um": 2}}')
    try:
        outcome_of(experiment, only=["cell1"], overrides=["quantification.max_neck_length_um=5"])
    finally:
        card.unlink()
    params = services.requests[-1].params
    assert (params.min_dendrite_volume_um3, params.max_neck_length_um) == (3, 5)


def test_of_an_operating_point_each_stage_takes_its_own(services, experiment, model):
    card = model / "card.json"
    point = '{"spine_threshold": 0.4, "max_neck_length_um": 2, "sharpness": 7}'
    card.write_text(f'{{"operating_point": {point}}}')
    try:
        image = image_of(outcome_of(experiment, only=["cell1"]), "cell1")
    finally:
        card.unlink()
    assert image.status == "done"
    assert services.requests[-1].params.max_neck_length_um == 2
    (warning,) = [text for text in image.warnings if "operating_point" in text]
    assert "card.json: operating_point has sharpness" in warning


@pytest.mark.parametrize("named", ["by_hand", "folder"])
def test_a_refinement_model_is_found_by_name_or_folder(services, experiment, model, named):
    name = "by_hand" if named == "by_hand" else str(model)
    overrides = [f"segmentation.refinement_model={name}", "segmentation.refinement_margin_um=1"]
    image = image_of(outcome_of(experiment, only=["cell1"], overrides=overrides), "cell1")
    assert image.status == "done"
    params = services.requests[0].params
    assert (params.refinement_model, params.refinement_margin_um) == (str(model), 1)


def test_a_refinement_model_that_nobody_knows_is_named(services, experiment):
    overrides = ["segmentation.refinement_model=nobodys"]
    image = image_of(outcome_of(experiment, only=["cell1"], overrides=overrides), "cell1")
    assert "there is no model 'nobodys'" in image.error
