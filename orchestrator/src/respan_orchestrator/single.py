"""One stage on one file, without an experiment folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from respan_common.errors import InputError
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.volumes import open_volume
from respan_orchestrator import analysis
from respan_orchestrator.analysis import ImageJob
from respan_orchestrator.analysis_settings import AnalysisSettings, apply_overrides, translate
from respan_orchestrator.experiment import ImageFile, store_at
from respan_orchestrator.export import (
    export_classes,
    export_group,
    export_image_tiff,
    export_swc,
)
from respan_orchestrator.ingest import UnknownSpacingError
from respan_orchestrator.outcomes import StageOutcome
from respan_orchestrator.own_labels import bring_labels
from respan_orchestrator.services import service_pool
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.table_export import export_tables


@dataclass(frozen=True)
class FileRequest:
    """A file, and where its results go."""

    image: Path
    out: Path
    overrides: Sequence[str] = ()
    device: str = "auto"
    spacing: VoxelSpacing | None = None


@dataclass(frozen=True)
class FileOutcome:
    """What was written, and what the stages said."""

    written: list[Path]
    stages: list[StageOutcome]


def restore_file(request: FileRequest) -> FileOutcome:
    """Write OUT/{stem}_restored.tif."""
    job = _job(request)
    if job.settings.restoration.is_empty:
        raise InputError("nothing to restore: give a CARE model (--model) or --axial-model")
    stages = [analysis.ingest(job)]
    with service_pool(
        OrchestratorSettings(), [job.sub_folder, *job.settings.model_folders], request.device
    ) as pool:
        stages += [outcome for outcome in (analysis.restore(job, pool),) if outcome]
    target = request.out / f"{job.name}_restored.tif"
    written = export_image_tiff(open_volume(job.store, "restored"), target, SilentReporter())
    return FileOutcome([written], stages)


def segment_file(request: FileRequest) -> FileOutcome:
    """Write OUT/{stem}_labels.tif, and if asked for _probabilities.tif and _uncertainty.tif."""
    job = _job(request)
    stages = [analysis.ingest(job)]
    with service_pool(
        OrchestratorSettings(), [job.sub_folder, *job.settings.model_folders], request.device
    ) as pool:
        stages += [outcome for outcome in (analysis.restore(job, pool),) if outcome]
        stages.append(analysis.segment(job, pool))
    target, report = request.out / f"{job.name}_labels.tif", SilentReporter()
    written = export_classes(job.store, target, report)
    for group in ("probabilities", "uncertainty"):
        path = request.out / f"{job.name}_{group}.tif"
        written += export_group(job.store, group, path, report)
    return FileOutcome(written, stages)


def quantify_file(request: FileRequest, labels: Path, scheme: int) -> FileOutcome:
    """Write OUT/Tables and OUT/SWC_files from an image and its class image.

    Raises
    ------
    InputError
        If labels and image do not belong together, or a voxel's size is unknown.
    """
    job = _job(request)
    try:
        stages = [analysis.ingest(job)]
    except UnknownSpacingError as error:
        raise InputError(
            f"{job.image}: its voxel size is unknown, as the file does not say it; give it in µm, "
            "as in --spacing 0.3,0.1,0.1 (z, y, x)"
        ) from error
    bring_labels(job.store, labels, scheme, SilentReporter())
    with service_pool(
        OrchestratorSettings(), [job.sub_folder, *job.settings.model_folders], request.device
    ) as pool:
        stages.append(analysis.quantify_with(job, job.settings.quantification, pool))
    written = export_tables(job.store, request.out / "Tables", job.settings.shape_rules)
    return FileOutcome(written + export_swc(job.store, request.out / "SWC_files"), stages)


def _job(request: FileRequest) -> ImageJob:
    if not request.image.exists():
        raise InputError(f"there is no {request.image}")
    request.out.mkdir(parents=True, exist_ok=True)
    out = request.out.resolve()
    name = ImageFile(request.image).name
    return ImageJob(
        image=request.image.resolve(),
        store=store_at(out, name),
        settings=_settings(request),
        sub_folder=out,
        model_roots=tuple(OrchestratorSettings().model_roots),
    )


def _settings(request: FileRequest) -> AnalysisSettings:
    settings = apply_overrides(translate([], Path("the command line")), request.overrides)
    if request.spacing is None:
        return settings
    if request.spacing.y_um != request.spacing.x_um:
        raise InputError("voxels must be as wide as they are high: y and x of --spacing differ")
    said = {"input_z_um": request.spacing.z_um, "input_xy_um": request.spacing.x_um}
    return settings.model_copy(update={**said, "voxel_size_from": "settings"})
