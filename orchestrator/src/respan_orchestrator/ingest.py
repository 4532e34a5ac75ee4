"""Turn one image file into the raw image of a new OME-Zarr; never the whole image in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from respan_common.blocks import Block, grid
from respan_common.buckets import Location
from respan_common.drafts import Draft, drafting_store
from respan_common.errors import InputError
from respan_common.events import Accepted, Reporter
from respan_common.geometry import VoxelSpacing, Zyx, shape_of
from respan_common.records import StageKey, StageRecord
from respan_common.volumes import LevelWriter
from respan_orchestrator.analysis_settings import AnalysisSettings
from respan_orchestrator.experiment import ImageFile
from respan_orchestrator.tiff import TiffImage
from respan_orchestrator.tiff_metadata import FileSpacing

STAGE = "ingest"
_SLAB_BYTES = 256 * 2**20
_HASHED_AT_ONCE = 8 * 2**20
_LARGEST_DIFFERENCE = 0.01


class UnknownSpacingError(InputError):
    """Nobody says how large a voxel is."""


@dataclass(frozen=True)
class IngestJob:
    """One image to read."""

    image: Path
    store: Location
    settings: str = ""
    """Settings file, for messages."""
    z_um: float | None = None
    """Voxel size that the settings say."""
    xy_um: float | None = None
    voxel_size_from: Literal["settings", "file"] | None = None
    axes: str = ""


def ingest_job(image: ImageFile, settings: AnalysisSettings) -> IngestJob:
    """Job for an image of a sub-folder with these settings."""
    return IngestJob(
        image.path,
        image.store,
        str(settings.source),
        settings.input_z_um,
        settings.input_xy_um,
        settings.voxel_size_from,
        settings.axes,
    )


def run(job: IngestJob, report: Reporter) -> StageRecord:
    """Write the image's OME-Zarr, or find that it was made from the same file already.

    An OME-Zarr that was made from another content of the file, or read in another way, is replaced
    with everything in it.

    Raises
    ------
    InputError
        If the image cannot be analyzed as it is, or its voxel size is unknown or contradictory.
    VolumeFormatError
        If the file is damaged, or changes while it is read.
    """
    before = _stamp(job.image) if job.image.is_file() else None
    with TiffImage(job.image, job.axes) as image:
        spacing = decide_spacing(image.spacing, job, depth=image.shape_czyx[1])
        key = StageKey(
            STAGE,
            {"file": file_digest(job.image, report)},
            {"axes": job.axes, "spacing_um": list(spacing.zyx)},
        )
        with drafting_store(job.store, key, report) as draft:
            if draft.finished is not None:
                return draft.finished
            _copy(image, draft, spacing, report)
            if _stamp(job.image) != before:
                raise InputError(f"{job.image} changed while it was read; run again when it rests")
            channels, depth, height, width = image.shape_czyx
            numbers = {"channels": channels, "z": depth, "y": height, "x": width}
            return draft.publish(numbers=numbers, warnings=image.notes)


def decide_spacing(found: FileSpacing, job: IngestJob, depth: int) -> VoxelSpacing:
    """Voxel size from the file and the settings, each of which may know a part of it.

    Raises
    ------
    UnknownSpacingError
        If neither says it.
    InputError
        If they differ by more than 1 % and nobody decides.
    """
    said = (job.z_um, job.xy_um, job.xy_um)
    if job.voxel_size_from is None:
        _refuse_contradiction(found, said, job, depth)
    first, second = (found.zyx, said) if job.voxel_size_from == "file" else (said, found.zyx)
    edges = [one if one is not None else other for one, other in zip(first, second, strict=True)]
    z_um, y_um, x_um = edges
    if z_um is None or y_um is None or x_um is None:
        missing = [key for key, edge in (("input_resXY", x_um), ("input_resZ", z_um)) if not edge]
        raise UnknownSpacingError(
            f"{job.image}: its voxel size is unknown, as the file does not say it; "
            f"set Parameters: {' and '.join(missing or ['input_resXY'])} (µm) in "
            f"{job.settings or 'the settings'}"
        )
    return VoxelSpacing(z_um, y_um, x_um)


def file_digest(path: Path, report: Reporter) -> str:
    """SHA-256 (hex) of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASHED_AT_ONCE):
            report.check()
            digest.update(piece)
    return digest.hexdigest()


def _refuse_contradiction(
    found: FileSpacing, said: tuple[float | None, ...], job: IngestJob, depth: int
) -> None:
    for axis, in_file, in_settings in zip("zyx", found.zyx, said, strict=True):
        # A single plane has no step along z that a file could know.
        if in_file is None or in_settings is None or (axis == "z" and depth == 1):
            continue
        if abs(in_file - in_settings) > _LARGEST_DIFFERENCE * max(in_file, in_settings):
            raise InputError(
                f"{job.image}: voxel size in {axis} is {in_file:g} µm in the file, but "
                f"{in_settings:g} µm in {job.settings or 'the settings'}; correct one of them, or "
                f"say who is right with Parameters: voxel_size_from: settings (or file)"
            )


def _copy(image: TiffImage, draft: Draft, spacing: VoxelSpacing, report: Reporter) -> None:
    writer = draft.image("", image.shape_czyx, spacing, image.dtype, image.channel_names)
    blocks = grid(writer.shape_zyx, _slab(writer))
    pieces = [(channel + 1, block) for block in blocks for channel in range(image.shape_czyx[0])]
    tokens = [f"raw {channel} {block.number}" for channel, block in pieces]
    report.accepted(
        Accepted(
            image.shape_czyx,
            spacing.zyx,
            blocks=len(pieces),
            blocks_done=sum(draft.is_done(token) for token in tokens),
        )
    )
    for done, ((channel, block), token) in enumerate(zip(pieces, tokens, strict=True)):
        report.progress(done, len(pieces), "reading the image")
        if not draft.is_done(token):
            writer.write(block.inner, _gathered(image, channel, block, report), channel)
            draft.mark_done(token)
    report.progress(len(pieces), len(pieces), "reading the image")


def _gathered(
    image: TiffImage, channel: int, block: Block, report: Reporter
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Voxels of one block, plane by plane."""
    z, y, x = block.inner
    values = np.empty(shape_of(block.inner), image.dtype)
    for number in range(z.start, z.stop):
        report.check()
        values[number - z.start] = image.read(channel, number)[y, x]
    return values


def _slab(writer: LevelWriter) -> Zyx:
    """Block of whole shards, as wide as memory allows: every block decodes its planes anew."""
    z, y, x = writer.block_zyx
    _, height, width = writer.shape_zyx
    shard = z * y * x * writer.dtype.itemsize
    columns = _whole_shards(width, x, _SLAB_BYTES // shard)
    rows = _whole_shards(height, y, _SLAB_BYTES // (shard * columns))
    return (z, y * rows, x * columns)


def _whole_shards(size: int, edge: int, affordable: int) -> int:
    return max(1, min(-(-size // edge), affordable))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
