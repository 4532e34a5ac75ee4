"""Restoration of one image: reads its raw volume, writes its group "restored".

The server imports this module to name its stage, so PyTorch and TensorFlow are imported only where
a worker needs them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from respan_common.blocks import grid
from respan_common.buckets import Location
from respan_common.drafts import Draft, drafting, finished_before
from respan_common.errors import InputError
from respan_common.events import Accepted, Reporter
from respan_common.geometry import Box, Zyx
from respan_common.gpu_lease import hold_gpu
from respan_common.params import RestorationParams
from respan_common.records import StageKey, StageRecord
from respan_common.settings import Runtime
from respan_common.volumes import LevelWriter, Volume, open_volume
from respan_restoration import care, models
from respan_restoration.care import Reader

if TYPE_CHECKING:
    from respan_restoration.pipeline import AxialGrid

logger = logging.getLogger(__name__)

GROUP = "restored"

# Read and restored at once where the store does not say: two channels of it fit any machine.
_SCRATCH_BLOCK: Zyx = (64, 512, 512)


@dataclass(frozen=True)
class RestorationJob:
    """One request, with its paths resolved."""

    store: Location
    params: RestorationParams
    runtime: Runtime = field(default_factory=Runtime)


@dataclass(frozen=True)
class _Piece:
    """One box of work that is done once, and remembered as done."""

    token: str
    box: Box
    make: Reader
    keep: Callable[[Box, NDArray[Any]], None]


@dataclass
class _Work:
    """Everything that the steps of one restoration share."""

    job: RestorationJob
    raw: Volume
    models: models.Models
    draft: Draft
    report: Reporter
    axial: AxialGrid | None
    dtype: np.dtype[Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def params(self) -> RestorationParams:
        return self.job.params


def run(job: RestorationJob, report: Reporter) -> StageRecord:
    """Restore an image, or find that this very restoration is there already.

    Raises
    ------
    InputError
        If there is nothing to restore, or a channel or model cannot be restored that way.
    """
    raw = open_volume(job.store)
    _refuse_the_impossible(job.params, raw)
    found = models.find(job.params)
    key = StageKey("restoration", {"raw": raw.digest}, _reported(job.params), found.digest)
    if old := finished_before(job.store, key):
        return old
    if found.axial or (job.runtime.device != "cpu" and care.may_use_gpu()):
        hold_gpu("restoration", job.runtime, report)
    with drafting(job.store, key, report) as draft:
        if draft.finished is not None:
            return draft.finished
        return _restore(job, raw, found, draft, report)


def _refuse_the_impossible(params: RestorationParams, raw: Volume) -> None:
    if params.is_empty:
        raise InputError(
            "there is nothing to restore: name a CARE model for a channel (care_models) or a "
            "Self-Net checkpoint (axial_model), or leave restoration out"
        )
    if params.axial_model and params.axial_min_intensity >= params.axial_max_intensity:
        raise InputError(
            f"axial_min_intensity ({params.axial_min_intensity:g}) must be smaller than "
            f"axial_max_intensity ({params.axial_max_intensity:g})"
        )
    for channel in [*params.care_models, *([params.channel] if params.axial_model else [])]:
        if channel > raw.channels:
            raise InputError(
                f"channel {channel} cannot be restored: {raw.store.name} has {raw.channels} "
                f"channel{'s' if raw.channels > 1 else ''}"
            )


def _reported(params: RestorationParams) -> dict[str, Any]:
    """Parameters as the record keeps them: a model's name, because its content has a digest."""
    values = params.model_dump(mode="json")
    values["care_models"] = {
        str(channel): Path(path).name for channel, path in sorted(params.care_models.items())
    }
    values["axial_model"] = Path(params.axial_model).name
    return values


def _restore(
    job: RestorationJob, raw: Volume, found: models.Models, draft: Draft, report: Reporter
) -> StageRecord:
    from respan_restoration.pipeline import AxialGrid, stored_dtype

    axial = AxialGrid(raw.shape_zyx, raw.spacing) if found.axial else None
    work = _Work(job, raw, found, draft, report, axial, stored_dtype(raw.dtype))
    shape, spacing = (axial or raw).shape_zyx, (axial or raw).spacing
    image = draft.image(GROUP, (raw.channels, *shape), spacing, work.dtype, raw.channel_names)
    report.progress(0, 1, "loading models")
    pieces = [
        piece for n in range(1, raw.channels + 1) for piece in _pieces_of_channel(work, n, image)
    ]
    _announce(work, pieces)
    for count, piece in enumerate(pieces):
        report.progress(count, len(pieces), piece.token)
        if not draft.is_done(piece.token):
            piece.keep(piece.box, piece.make(piece.box))
            draft.mark_done(piece.token)
    report.progress(len(pieces), len(pieces), "publishing")
    numbers = {"channels_restored_by_care": float(len(found.folders)), "depth": float(shape[0])}
    record = draft.publish(numbers, work.warnings)
    logger.info("restored %s: shape %s in %.1f s", raw.store, shape, record.seconds)
    return record


def _pieces_of_channel(work: _Work, channel: int, image: LevelWriter) -> Iterator[_Piece]:
    """Work on one channel, in order: CARE, then what brings it onto the grid of the result."""
    source: Reader = partial(work.raw.read, channel=channel)
    if channel in work.models.folders:
        source = _care_reader(work, channel, source)
        if work.axial is not None:
            # Self-Net sees every voxel many times; CARE computes it once.
            scratch = _scratch(work, channel)
            for block in grid(work.raw.shape_zyx, _SCRATCH_BLOCK):
                token = f"CARE, channel {channel}, block {block.number}"
                yield _Piece(token, block.inner, source, scratch.__setitem__)
            source = scratch.__getitem__
    make = _on_result_grid(work, channel, source)
    keep = partial(_write, image, channel)
    for block in grid(image.shape_zyx, image.block_zyx):
        yield _Piece(f"channel {channel}, block {block.number}", block.inner, make, keep)


def _care_reader(work: _Work, channel: int, source: Reader) -> Reader:
    """Reads a channel as CARE restores it."""
    from respan_restoration.pipeline import to_stored

    model = work.models.load_care(channel, work.job.runtime)
    if work.job.runtime.device == "cuda" and not care.runs_on_gpu():
        work.warnings.append(
            "CARE ran on the CPU although a GPU was asked for: this TensorFlow cannot use one"
        )
    boxes = (block.inner for block in grid(work.raw.shape_zyx, _SCRATCH_BLOCK))
    try:
        limits = care.limits(_checked(source, work.report), boxes, work.raw.dtype)
    except InputError as error:
        raise InputError(f"channel {channel} of {work.raw.store.name}: {error}") from error
    whole = care.Channel(source, work.raw.shape_zyx, limits)
    z, y, x = (
        -(-size // tiles)
        for size, tiles in zip(work.raw.shape_zyx, work.params.care_tiles, strict=True)
    )

    def read(box: Box) -> NDArray[Any]:
        values = care.restore(model, whole, box, (z, y, x), work.report.check)
        return to_stored(values, work.dtype)

    return read


def _on_result_grid(work: _Work, channel: int, source: Reader) -> Reader:
    """Reads a channel on the grid of the result, which is isotropic after Self-Net."""
    from respan_restoration.pipeline import axially_restored, interpolated, to_stored

    axial, params = work.axial, work.params
    if axial is None:
        return lambda box: to_stored(source(box), work.dtype)
    if channel != params.channel:
        return lambda box: to_stored(interpolated(source, box, axial.linear), work.dtype)
    network = work.models.load_axial(work.job.runtime)
    grey_values = (params.axial_min_intensity, params.axial_max_intensity)
    work.warnings.extend(_grey_values_unlike(work.raw.dtype, params))

    def read(box: Box) -> NDArray[Any]:
        values = axially_restored(network, source, box, axial, grey_values, work.report.check)
        return to_stored(values, work.dtype)

    return read


def _grey_values_unlike(dtype: np.dtype[Any], params: RestorationParams) -> list[str]:
    """Warn if an image's type cannot reach the grey values that Self-Net was told to expect."""
    most = float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else np.inf
    if most >= params.axial_max_intensity / 10:
        return []
    return [
        f"Self-Net was told to see {params.axial_max_intensity:g} as 1, but {dtype} voxels end at "
        f"{most:g}: set axial_max_intensity to the value used in training"
    ]


def _scratch(work: _Work, channel: int) -> np.memmap[Any, Any]:
    """Room for one channel on the raw grid; goes with the draft, and outlives a killed worker."""
    path = work.draft.file(f".scratch/channel{channel}.npy")
    mode: Any = "r+" if path.exists() else "w+"
    return np.lib.format.open_memmap(path, mode, work.dtype, work.raw.shape_zyx)


def _write(image: LevelWriter, channel: int, box: Box, values: NDArray[Any]) -> None:
    image.write(box, values, channel)


def _checked(read: Reader, report: Reporter) -> Reader:
    """Reader that gives up when the caller is gone."""

    def checked(box: Box) -> NDArray[Any]:
        report.check()
        return read(box)

    return checked


def _announce(work: _Work, pieces: list[_Piece]) -> None:
    work.report.accepted(
        Accepted(
            shape=(work.raw.channels, *work.raw.shape_zyx),
            spacing_um=work.raw.spacing.zyx,
            model_digest=work.models.digest,
            device=_device(work),
            blocks=len(pieces),
            blocks_done=sum(work.draft.is_done(piece.token) for piece in pieces),
        )
    )


def _device(work: _Work) -> str:
    if work.axial is not None:
        return next(work.models.load_axial(work.job.runtime).parameters()).device.type
    return "cuda" if care.runs_on_gpu() else "cpu"
