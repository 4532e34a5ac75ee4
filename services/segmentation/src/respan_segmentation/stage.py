"""Segment one image of the store: files in, files out.

The server imports this module to name its stage, so PyTorch is imported only where a worker
needs it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from respan_common.drafts import drafting
from respan_common.errors import InputError
from respan_common.events import Reporter
from respan_common.model_folders import ModelFolder, describe
from respan_common.params import SegmentationParams
from respan_common.records import StageKey, StageRecord
from respan_common.volumes import Volume, open_volume
from respan_segmentation.jobs import SegmentationJob

STAGE = "segmentation"
OUTPUT = "labels/classes"


def run(job: SegmentationJob, report: Reporter) -> StageRecord:
    """Write the image's classes as `labels/classes`; at once if that has been done before.

    Raises
    ------
    InputError
        If the model, the channel or the label scheme cannot be what the params say.
    CapacityError
        If the device is absent or too small.
    CancelledError
        If the caller is gone; finished blocks are kept.
    """
    folder = describe(job.model)
    roles = folder.roles(job.params.label_scheme)
    volume = open_volume(job.store, job.group)
    _check_channel(volume, job)
    with drafting(job.store, _key(job, volume, folder), report) as draft:
        if draft.finished is not None:
            return draft.finished
        labels = draft.labels(
            OUTPUT,
            volume.shape_zyx,
            volume.spacing,
            np.uint8,
            names={value: name for name, value in folder.labels.items() if value > 0},
            attributes={"roles": roles},
        )
        from respan_segmentation.walk import Walk  # takes seconds and half a gigabyte

        windows = Walk(job, volume, folder, report).fill(draft, labels)
        warnings = [*folder.warnings, *_warnings(folder, job.params)]
        return draft.publish(numbers={"windows": float(windows)}, warnings=warnings)


def _check_channel(volume: Volume, job: SegmentationJob) -> None:
    if job.params.channel > volume.channels:
        raise InputError(
            f"params.channel: channel {job.params.channel} does not exist: {job.store.name} has "
            f"{volume.channels}, counted from 1"
        )


def _key(job: SegmentationJob, volume: Volume, folder: ModelFolder) -> StageKey:
    """Everything that decides the classes; presets are spelled out, so that names do not matter."""
    params = job.params
    return StageKey(
        stage=STAGE,
        inputs={job.group or "raw": volume.digest},
        params={
            "channel": params.channel,
            "step": params.step,
            "mirrors": params.mirrors,
            "label_scheme": params.label_scheme,
            "model_spacing_um": params.model_spacing_um,
        },
        model_digest=folder.digest,
    )


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
