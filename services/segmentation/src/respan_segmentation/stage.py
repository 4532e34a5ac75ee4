"""Segment one image of the store: files in, files out.

The server imports this module to name its stage, so PyTorch is imported only where a worker
needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from respan_common.blocks import grid
from respan_common.drafts import Draft, drafting, finished_before
from respan_common.errors import InputError
from respan_common.events import Accepted, Reporter
from respan_common.gpu_lease import hold_gpu
from respan_common.model_cards import misfits
from respan_common.model_folders import ModelFolder, describe
from respan_common.params import SegmentationParams
from respan_common.records import StageKey, StageRecord
from respan_common.volumes import LevelWriter, Volume, open_volume, shard_shape
from respan_segmentation.jobs import RegionDoneError, SegmentationJob, threshold_of

if TYPE_CHECKING:
    from respan_segmentation.walk import Walk

STAGE = "segmentation"


def run(job: SegmentationJob, report: Reporter) -> StageRecord:
    """Write the image's classes as `labels/classes`; at once if that has been done before.

    Several replicas that are asked for the same image share it. Where the job names a region, its
    shards alone are done; the image is published by whoever finishes the last one, and until then
    the record is empty but for the number `shards_left`.

    Raises
    ------
    InputError
        If the model, the channel, the region or the label scheme cannot be what the params say.
    CapacityError
        If the device is absent or too small, or used by others for too long.
    CancelledError
        If the caller is gone; finished shards are kept.
    """
    folder = describe(job.model)
    refiner = _refiner(job.refinement_model) if job.refinement_model else None
    volume = open_volume(job.store, job.group)
    _check(volume, job)
    key = _key(job, volume, folder, refiner)
    if old := finished_before(job.store, key):
        return old
    hold_gpu(STAGE, job.runtime, report, most=None)

    @cache
    def walk() -> Walk:
        from respan_segmentation.walk import Walk  # takes seconds and half a gigabyte

        return Walk(job, volume, folder, refiner, key.digest, report)

    try:
        with drafting(job.store, key, report, meanwhile=lambda: walk().help()) as draft:
            return draft.finished or _lead(walk(), draft, report)
    except RegionDoneError:
        return _unfinished(key, walk().left())


def _refiner(path: Path) -> ModelFolder:
    folder = describe(path)
    if folder.previous is not None:
        raise InputError(
            f"params.refinement_model: {folder.path} is the second stage of a cascade; name a "
            "model that sees the image alone"
        )
    folder.roles()  # raises where labels mean nothing, before any work
    return folder


def _lead(walk: Walk, draft: Draft, report: Reporter) -> StageRecord:
    classes = _begin(walk, draft)
    report.accepted(
        Accepted(
            shape=walk.volume.shape_zyx,
            spacing_um=walk.volume.spacing.zyx,
            model_digest=walk.folder.digest,
            device=walk.device,
            blocks=len(grid(walk.volume.shape_zyx, classes.block_zyx)),
            blocks_done=walk.shards_done,
        )
    )
    walk.lead()
    left = walk.left()
    if left:
        return _unfinished(draft.key, left)
    numbers = _numbers(walk, classes)
    warnings = [
        *walk.folder.warnings,
        *_warnings(walk.folder, walk.job.params),
        *misfits(walk.folder, walk.volume.spacing, trained_um=walk.job.params.model_spacing_um),
        *walk.warnings(numbers["foreground_share"]),
    ]
    if walk.refiner is not None:
        numbers["refined"] = float(walk.refined)
    return draft.publish(numbers, warnings)


def _begin(walk: Walk, draft: Draft) -> LevelWriter:
    """Create every array; the one of classes is given."""
    shape, spacing, folder = walk.volume.shape_zyx, walk.volume.spacing, walk.folder
    names = {value: name for name, value in folder.labels.items() if value > 0}
    roles = folder.roles(walk.job.params.label_scheme)
    for group, (channels, dtype) in walk.images.items():
        draft.image(group, (len(channels), *shape), spacing, dtype, channels)
    classes = draft.labels(
        walk.classes, shape, spacing, np.uint8, names=names, attributes={"roles": roles}
    )
    walk.begin(draft)
    return classes


def _numbers(walk: Walk, classes: LevelWriter) -> dict[str, float]:
    """Windows, and the share of the image that is not background."""
    windows, skipped = walk.main.windows()
    found = total = 0
    for block in grid(classes.shape_zyx, classes.block_zyx):
        values = classes.read(block.inner)
        found += int(np.count_nonzero(values))
        total += values.size
    return {
        "windows": float(windows),
        "windows_skipped": float(skipped),
        "skipped_share": skipped / windows if windows else 0.0,
        "foreground_share": found / max(total, 1),
    }


def _unfinished(key: StageKey, left: int) -> StageRecord:
    """Says that a region is done, but not the image."""
    return StageRecord(
        stage=key.stage,
        digest=key.digest,
        version=key.version,
        inputs=dict(key.inputs),
        params=dict(key.params),
        model_digest=key.model_digest,
        outputs={},
        numbers={"shards_left": float(left)},
    )


def _check(volume: Volume, job: SegmentationJob) -> None:
    if job.params.channel > volume.channels:
        raise InputError(
            f"params.channel: channel {job.params.channel} does not exist: {job.store.name} has "
            f"{volume.channels}, counted from 1"
        )
    shard = shard_shape(volume.shape_zyx)
    sides = zip(job.region or (), shard, volume.shape_zyx, strict=False)
    if any(
        part.start % edge or (part.stop % edge and part.stop != size) or part.stop > size
        for part, edge, size in sides
    ):
        start, stop = (
            [getattr(part, end) for part in job.region or ()] for end in ("start", "stop")
        )
        raise InputError(
            f"region: {start} to {stop} is not made of whole shards: it must begin and end at "
            f"multiples of {list(shard)}, or at the volume's end, {list(volume.shape_zyx)}"
        )


def _key(
    job: SegmentationJob, volume: Volume, folder: ModelFolder, refiner: ModelFolder | None
) -> StageKey:
    """Everything that decides the classes; presets are spelled out, so that names do not matter."""
    params = job.params
    own: dict[str, Any] = {
        "channel": params.channel,
        "step": params.step,
        "mirrors": params.mirrors,
        "precision": params.arithmetic,
        "skip_empty": params.skips_empty,
        "spine_threshold": threshold_of(params, folder),
        "confidence": True,  # so that what was segmented without one is done again
        "probabilities": params.probabilities,
        "uncertainty": params.uncertainty,
        "label_scheme": params.label_scheme,
        "model_spacing_um": params.model_spacing_um,
    }
    if refiner is not None:
        own["refinement"] = [refiner.digest, params.refinement_margin_um]
    return StageKey(STAGE, {job.group or "raw": volume.digest}, own, folder.digest)


def _warnings(folder: ModelFolder, params: SegmentationParams) -> Iterator[str]:
    if folder.spacing_um is None and params.model_spacing_um is None:
        yield (
            f"{folder.name} does not say which voxel size it was trained at: this image's own is "
            "taken. If it was another, give it (--set segmentation.model_spacing_um=[z,y,x])"
        )
    if any(folder.settings.get("use_mask_for_norm", ())):
        yield (
            f"{folder.name} was trained on images with an empty surround: every voxel of value 0 "
            "counts as surround, also inside the tissue"
        )
