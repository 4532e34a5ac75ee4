"""The analysis of one image, stage by stage: ingest, restore, segment, quantify, export.

Plain functions: `tasks` makes Prefect tasks of them, `cli` calls them for single files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from respan.v1 import stage_pb2
from respan_common.buckets import Location
from respan_common.convert import validated
from respan_common.errors import InputError
from respan_common.events import Event, Progress, Reporter
from respan_common.model_folders import ModelFolder
from respan_common.params import QuantificationParams
from respan_common.publication import workspace
from respan_common.records import (
    StageKey,
    StageRecord,
    read_record,
    record_path,
    write_text_durably,
)
from respan_common.volumes import exists, open_volume
from respan_orchestrator import clients, models, sharing
from respan_orchestrator import ingest as ingesting
from respan_orchestrator.analysis_settings import AnalysisSettings
from respan_orchestrator.clients import Request
from respan_orchestrator.experiment import ImageFile
from respan_orchestrator.export import export_image
from respan_orchestrator.ledger import Ledger
from respan_orchestrator.outcomes import StageOutcome
from respan_orchestrator.progress import StageNews, tell, tell_event
from respan_orchestrator.services import ServicePool
from respan_orchestrator.side_by_side import check_stopped, is_stopped, pause
from respan_orchestrator.watching import watched_stage

_LEDGER = "export.log"
_POINT_OF_SEGMENTATION = {"spine_threshold"}
"""What the segmentation stage itself takes from a model's operating point."""
StageName = Literal["ingest", "restoration", "segmentation", "quantification", "export"]
STAGES: tuple[StageName, ...] = get_args(StageName)


@dataclass(frozen=True)
class ImageJob:
    """One image and everything that its analysis needs to know."""

    image: Path
    store: Location
    settings: AnalysisSettings
    sub_folder: Path
    model_roots: tuple[Path, ...] = field(default=())

    @property
    def name(self) -> str:
        """Name of the image, without extensions."""
        return self.store.name.removesuffix(".ome.zarr")


def ingest(job: ImageJob) -> StageOutcome:
    """Bring the image file into the store."""
    return _locally(job, "ingest", lambda report: _ingested(job, report))


def restore(job: ImageJob, pool: ServicePool) -> StageOutcome | None:
    """Restore channels, if the settings ask for it."""
    params = job.settings.restoration
    if params.is_empty:
        return None
    return call_stage(job.name, "restoration", clients.restore(job.store, params), pool)


def segment(job: ImageJob, pool: ServicePool) -> StageOutcome:
    """Find dendrites and spines, in the restored image if there is one."""
    group = _segmented_group(job)
    volume = open_volume(job.store, group)
    model = _chosen_model(job)
    params = job.settings.segmentation.model_copy(
        update={"model": str(model.path), "refinement_model": _refinement_model(job)}
    )
    request = clients.segment(job.store, group, params, math.prod(volume.shape_zyx))
    told = models.fit_warnings(model, volume.spacing, job.model_roots, params.model_spacing_um)
    for text in told:  # at once: resampled to a model's voxel size, a wrong one can take hours
        tell(StageNews(job.name, "segmentation", "warned", message=text))
    outcome = call_stage(job.name, "segmentation", request, pool)
    # The stage may have said a part of it.
    warnings = [*outcome.warnings, *(text for text in told if text not in outcome.warnings)]
    return outcome.model_copy(update={"warnings": warnings})


def quantify(job: ImageJob, pool: ServicePool) -> StageOutcome:
    """Measure spines and dendrites.

    What the settings leave open is taken from the operating point in the model's card, if it has
    one: the least volume above which its finds can be believed, say.
    """
    given = job.settings.quantification.model_dump(exclude_unset=True)
    model = _chosen_model(job)
    point = model.card.get("operating_point", {})
    own = {
        name: value for name, value in point.items() if name in QuantificationParams.model_fields
    }
    outcome = quantify_with(job, validated(QuantificationParams, {**own, **given}), pool)
    unknown = [
        f"{model.path / 'card.json'}: operating_point has {name}, which no stage takes from a card"
        for name in sorted(set(point) - set(own) - _POINT_OF_SEGMENTATION)
    ]
    return outcome.model_copy(update={"warnings": [*outcome.warnings, *unknown]})


def quantify_with(job: ImageJob, params: QuantificationParams, pool: ServicePool) -> StageOutcome:
    """Measure spines and dendrites with these very parameters."""
    voxels = math.prod(open_volume(job.store).shape_zyx)
    request = clients.quantify(job.store, params, voxels)
    return call_stage(job.name, "quantification", request, pool)


def export(job: ImageJob) -> StageOutcome:
    """Write tables, label images, projections and tracings where people look for them."""
    return _locally(job, "export", lambda report: _exported(job, report))


def forget_from(store: Location, first: StageName) -> None:
    """Have a stage and all later ones done again, by taking away their completion records."""
    for stage in STAGES[STAGES.index(first) :]:
        record_path(store, stage).unlink(missing_ok=True)
    (workspace(store) / _LEDGER).unlink(missing_ok=True)


def call_stage(name: str, stage: str, request: Request, pool: ServicePool) -> StageOutcome:
    """Have a service do a stage, and pass on its progress."""
    with watched_stage(name, stage):
        return _called(name, stage, request, pool)


def _called(name: str, stage: str, request: Request, pool: ServicePool) -> StageOutcome:
    tell(StageNews(name, stage, "started"))

    def listener(event: stage_pb2.StageEvent) -> None:
        tell_event(name, stage, event)

    try:
        result = _followed(name, stage, request, pool, listener)
    except clients.StageBugError as error:
        tell(StageNews(name, stage, "failed"))
        raise clients.StageBugError(f"{error}{pool.saved_log(request.service)}") from error
    except BaseException:
        tell(StageNews(name, stage, "failed"))
        raise
    tell(StageNews(name, stage, "skipped" if result.skipped else "done"))
    return StageOutcome(
        stage=stage,
        seconds=round(result.seconds, 2),
        peak_rss_mb=round(result.peak_rss_mb, 1),
        skipped=result.skipped,
        numbers=dict(result.numbers),
        warnings=list(result.warnings),
    )


def _followed(
    name: str, stage: str, request: Request, pool: ServicePool, listener: clients.Listener
) -> stage_pb2.StageResult:
    """Result of a request, which is made again for as long as the service is busy with others."""
    started = time.monotonic()
    while True:
        try:
            return sharing.follow(request, pool, listener)
        except clients.StageBusyError as error:
            waited_s = time.monotonic() - started
            if waited_s + error.retry_after_s > pool.settings.busy_wait_s:
                raise clients.StageFailedError(
                    f"{error} (asked for {waited_s:.0f} s, see RESPAN_BUSY_WAIT_S)"
                ) from error
            message = f"{error}; asked again in {error.retry_after_s:.0f} s"
            tell(StageNews(name, stage, "running", message=message))
            pause(error.retry_after_s)


def _ingested(job: ImageJob, report: Reporter) -> StageRecord:
    record = ingesting.run(_ingest_job(job), report)
    wanted, there = job.settings.segmentation.channel, open_volume(job.store).channels
    if wanted > there:
        raise InputError(
            f"{job.image} has {there} channel{'s' if there > 1 else ''}, so there is no channel "
            f"{wanted}: correct Parameters: neuron_channel in {job.settings.source} (or --channel)"
        )
    return record


def _exported(job: ImageJob, report: Reporter) -> StageRecord:
    """Export what has changed since the last export, or whose files are gone."""
    published = {stage: read_record(job.store, stage) for stage in STAGES[:-1]}
    inputs = {str(stage): record.digest for stage, record in published.items() if record}
    key = StageKey("export", inputs, job.settings.export_choices)
    old = read_record(job.store, key.stage)
    if old is not None and old.digest == key.digest and all(map(Path.exists, _files_of(old))):
        return old.model_copy(update={"is_old": True})
    ledger = Ledger(workspace(job.store) / _LEDGER, key.digest)
    files = export_image(job.store, job.sub_folder, job.settings, report, ledger)
    record = StageRecord(
        stage=key.stage,
        digest=key.digest,
        version=key.version,
        inputs=inputs,
        params={**key.params, "files": [str(path) for path in files]},
        model_digest="",
        outputs={},
    )
    write_text_durably(record_path(job.store, key.stage), record.model_dump_json(indent=1))
    ledger.close()
    return record


def _files_of(record: StageRecord) -> list[Path]:
    return [Path(name) for name in record.params["files"]]


def _ingest_job(job: ImageJob) -> ingesting.IngestJob:
    described = ingesting.ingest_job(ImageFile(job.image), job.settings)
    return replace(described, store=job.store)


def _chosen_model(job: ImageJob) -> ModelFolder:
    name = job.settings.segmentation.model
    if name:
        return models.find_model(name, job.model_roots)
    spacing = open_volume(job.store, _segmented_group(job)).spacing
    return models.nearest_model(spacing, job.model_roots)


def _refinement_model(job: ImageJob) -> str:
    """Folder of the model that looks again at each spine; empty without one."""
    name = job.settings.segmentation.refinement_model
    return str(models.find_model(name, job.model_roots).path) if name else ""


def _segmented_group(job: ImageJob) -> str:
    wanted = "" if job.settings.restoration.is_empty else "restored"
    assert exists(job.store, wanted), f"{job.store} has not been through the earlier stages"
    return wanted


def _locally(
    job: ImageJob, stage: StageName, work: Callable[[Reporter], StageRecord]
) -> StageOutcome:
    with watched_stage(job.name, stage):
        return _done_here(job, stage, work)


def _done_here(
    job: ImageJob, stage: StageName, work: Callable[[Reporter], StageRecord]
) -> StageOutcome:
    started = time.monotonic()
    tell(StageNews(job.name, stage, "started"))

    def send(event: Event) -> None:
        if isinstance(event, Progress):
            tell(StageNews(job.name, stage, "running", event.done, event.total, event.seconds_left))

    try:
        record = work(Reporter(send, cancelled=is_stopped))
    except BaseException:
        tell(StageNews(job.name, stage, "failed"))
        check_stopped()
        raise
    tell(StageNews(job.name, stage, "skipped" if record.is_old else "done"))
    return StageOutcome(
        stage=stage,
        seconds=round(time.monotonic() - started, 2),
        skipped=record.is_old,
        numbers=record.numbers,
        warnings=record.warnings,
    )
