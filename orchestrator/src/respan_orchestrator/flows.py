"""Prefect flows: what people start from the command line, from a form, or on a schedule."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict

from respan_common.errors import InputError
from respan_common.params import NnunetTrainingParams
from respan_orchestrator import clients, tasks
from respan_orchestrator.addresses import replicas_at
from respan_orchestrator.analysis import ImageJob, forget_from
from respan_orchestrator.analysis_request import (
    AnalysisRequest,
    examined,
    readable_settings,
    run_settings,
    shape_rules,
)
from respan_orchestrator.conditions import Conditions, read_conditions
from respan_orchestrator.experiment import Experiment, ImageFile, SubFolder, check_writable
from respan_orchestrator.outcomes import (
    ExperimentOutcome,
    ImageOutcome,
    StageOutcome,
    explained,
)
from respan_orchestrator.progress import StageNews, tell, working_in
from respan_orchestrator.report import write_report
from respan_orchestrator.services import service_pool
from respan_orchestrator.settings import SERVICES, OrchestratorSettings
from respan_orchestrator.side_by_side import StoppedError, each
from respan_orchestrator.summary import (
    RESERVED,
    write_experiment_tables,
    write_sub_folder_summary,
)
from respan_orchestrator.synthesis import SynthesisRequest, make_phantoms
from respan_orchestrator.watching import log_as_told, watched_image, watched_run


@flow(name="analyze", flow_run_name="analyze {request.experiment}")
def analyze(request: AnalysisRequest) -> Any:
    """Restore, segment and quantify every image of an experiment folder.

    One bad image fails alone. Run again, it does only what is missing.
    """
    settings = OrchestratorSettings()
    log_as_told(settings)
    experiment = examined(request)
    roots = [experiment.path, *_model_folders(experiment, request)]
    with watched_run(str(flow_run.id)), service_pool(settings, roots, request.device):
        images = _analyze_all(experiment, request, _images_at_once(settings))
    outcome = _summarize(experiment, images, request)
    _show(outcome)
    failed = len(outcome.failed)
    if failed:
        return Failed(message=f"{failed} of {len(images)} images failed", data=outcome)
    return Completed(message=f"{len(images)} images", data=outcome)


@flow(name="analyze_image", flow_run_name="analyze {image}")
def analyze_image(image: str, request: AnalysisRequest) -> list[StageOutcome]:
    """All stages of one image."""
    path = Path(image)
    settings = OrchestratorSettings()
    job = ImageJob(
        image=path,
        store=ImageFile(path).store,
        settings=run_settings(path.parent, request),
        sub_folder=path.parent,
        model_roots=tuple(settings.model_roots),
    )
    if request.restart_from:
        forget_from(job.store, request.restart_from)
    with (
        watched_image(str(flow_run.id), job.name),
        service_pool(settings, [path.parent], request.device) as pool,
        pool.working_on_image(),
    ):
        outcomes = [
            tasks.ingest(job),
            tasks.restore(job, pool),
            tasks.segment(job, pool),
            tasks.quantify(job, pool),
            tasks.export(job),
        ]
    return [outcome for outcome in outcomes if outcome is not None]


class TrainingRequest(BaseModel):
    """What to train a model on, and how."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    data: str
    """Folder with imagesTr and labelsTr."""
    out: str
    """Folder for the model and for everything that a resumed training needs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """For a service that is started for this run."""
    params: NnunetTrainingParams = NnunetTrainingParams()
    """Parameters of the training."""


@flow(name="train_nnunet", flow_run_name="train {request.params.dataset_name}")
def train_nnunet(request: TrainingRequest) -> StageOutcome:
    """Train an nnU-Net model, or go on with a training that was stopped."""
    data, out = Path(request.data).absolute(), Path(request.out).absolute()
    if not data.is_dir():
        raise InputError(f"{data} is not a folder; give one with imagesTr and labelsTr")
    out.mkdir(parents=True, exist_ok=True)
    with service_pool(OrchestratorSettings(), [data, out], request.device) as pool:
        call = clients.train_nnunet(data, out, request.params)
        outcome: StageOutcome = tasks.train(request.params.dataset_name, call, pool)
    return outcome


@flow(name="synthesize", flow_run_name="synthesize {request.params.images} {request.params.kind}")
def synthesize(request: SynthesisRequest) -> StageOutcome:
    """Make phantom volumes with exact truth."""
    return make_phantoms(request)


def _images_at_once(settings: OrchestratorSettings) -> int:
    """As many as can each have a replica of the stage that most have been started of."""
    most = max(
        len(replicas_at(settings.address_of(service)))
        for service in SERVICES
        if service != "training"
    )
    return settings.images_at_once or max(most, 1)


def _analyze_all(
    experiment: Experiment, request: AnalysisRequest, at_once: int
) -> list[ImageOutcome]:
    """What became of every image, in the order of the folders, whichever was done first."""
    places = [
        (sub_folder, image)
        for sub_folder in experiment.sub_folders
        for image in sub_folder.images
        if not request.only or image.name in request.only
    ]
    problems = {folder.name: _unwritable(folder) for folder in experiment.sub_folders}

    def work(place: tuple[SubFolder, ImageFile]) -> ImageOutcome:
        sub_folder, image = place
        with working_in(sub_folder.name):
            return _analyze_one(
                sub_folder, image, problems[sub_folder.name] or image.problem, request
            )

    outcomes: dict[int, ImageOutcome] = {}
    with closing(each(work, places, at_once)) as done:
        for number, outcome in done:
            outcomes[number] = outcome
            folder = places[number][0]
            if not problems[folder.name]:
                write_sub_folder_summary(folder.path, shape_rules(folder.path, request))
    return [outcomes[number] for number in range(len(places))]


def _unwritable(sub_folder: SubFolder) -> str:
    """Why nothing can be written to a sub-folder; empty if it can."""
    try:
        check_writable(sub_folder.path)
    except InputError as error:
        return str(error)
    return ""


def _analyze_one(
    sub_folder: SubFolder, image: ImageFile, problem: str, request: AnalysisRequest
) -> ImageOutcome:
    if problem:
        return _failure(sub_folder, image, problem)
    state = analyze_image(str(image.path), request, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, BaseException):
        _pass_on_signals(result)
        return _failure(sub_folder, image, explained(result))
    skipped = all(stage.skipped for stage in result)
    status: Literal["skipped", "done"] = "skipped" if skipped else "done"
    return ImageOutcome(sub_folder=sub_folder.name, name=image.name, status=status, stages=result)


def _pass_on_signals(error: BaseException) -> None:
    """Stop the run, not one image, if a signal is behind an error.

    Prefect keeps a signal as the result of the flow that it came in, and where it comes while a
    task is set up, another error takes its place.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (KeyboardInterrupt, TerminationSignal, StoppedError)):
            raise cause
        cause = cause.__cause__ or cause.__context__


def _failure(sub_folder: SubFolder, image: ImageFile, error: str) -> ImageOutcome:
    tell(StageNews(image.name, "", "failed", message=error))
    return ImageOutcome(sub_folder=sub_folder.name, name=image.name, status="failed", error=error)


def _model_folders(experiment: Experiment, request: AnalysisRequest) -> list[Path]:
    """Folders of models that settings name, so that started services may open them."""
    every = readable_settings(experiment, request)
    return [folder for settings in every for folder in settings.model_folders]


def _warnings(experiment: Experiment, request: AnalysisRequest) -> list[str]:
    """What was seen in folders and in settings files, each once."""
    notes = [
        f"{settings.source}: {note}"
        for settings in readable_settings(experiment, request)
        for note in settings.notes
    ]
    return list(dict.fromkeys([*experiment.warnings, *notes]))


def _summarize(
    experiment: Experiment, images: list[ImageOutcome], request: AnalysisRequest
) -> ExperimentOutcome:
    warnings = _warnings(experiment, request)
    try:
        conditions = read_conditions(experiment, RESERVED)
    except InputError as error:  # it was right when the run began, and hours of work are done
        conditions = Conditions()
        warnings.append(f"no labels of conditions: {error}")
    folders = {sub_folder.name: sub_folder.path for sub_folder in experiment.sub_folders}
    tables = write_experiment_tables(
        experiment.path,
        images,
        conditions,
        lambda name: shape_rules(folders.get(name, experiment.path), request),
    )
    outcome = ExperimentOutcome(
        experiment=experiment.path, images=images, tables=tables, warnings=warnings
    )
    return outcome.model_copy(update={"report": write_report(experiment, images)})


def _show(outcome: ExperimentOutcome) -> None:
    """Leave the outcome on the run's page."""
    rows = [
        {
            "sub-folder": image.sub_folder,
            "image": image.name,
            "status": image.status,
            "spines": image.numbers.get("spines"),
            "dendrite length (µm)": image.numbers.get("dendrite_length_um"),
            "error": image.error,
        }
        for image in outcome.images
    ]
    create_table_artifact(rows, key="images", description="What became of each image")
    if outcome.report is not None:
        create_link_artifact(outcome.report.as_uri(), "Report", key="report")
