"""Quantification of one image: reads "labels/classes" and the raw volume, writes everything else.

Label images: labels/{dendrites,soma,spines,heads,necks,skeleton}. Files: tables/*.parquet,
skeletons/*.swc; on request the image group "distances" and the folders of "meshes".
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from respan_common.buckets import Location
from respan_common.drafts import Draft, drafting, finished_before
from respan_common.errors import InputError, VolumeFormatError
from respan_common.events import Accepted, Reporter
from respan_common.gpu_lease import hold_gpu
from respan_common.params import QuantificationParams
from respan_common.records import StageKey, StageRecord
from respan_common.settings import Runtime
from respan_common.volumes import Volume
from respan_quantification.walk import (
    CLASSES,
    CONFIDENCE,
    SHARE_OF_TIME,
    STAGE,
    Site,
    StoredImage,
    Walk,
    recipe_for,
)

logger = logging.getLogger(__name__)

LABELS = ("dendrites", "soma", "spines", "heads", "necks", "skeleton")
DISTANCE_MAPS = ("to dendrite", "along dendrite")


@dataclass(frozen=True)
class QuantificationJob:
    """One request, with its path resolved."""

    store: Location
    params: QuantificationParams
    runtime: Runtime = field(default_factory=Runtime)


def run(job: QuantificationJob, report: Reporter) -> StageRecord:
    """Quantify an image, or find that this very quantification is there already.

    Several replicas that are asked for the same image share its blocks.

    Raises
    ------
    InputError
        If the image lacks the neuron's channel.
    VolumeFormatError
        If classes and raw image do not cover the same field, or the classes have no meaning.
    """
    image = StoredImage(Site(job.store, "", job.params, job.runtime))
    _refuse_the_impossible(job, image.raw, image.class_volume)
    key = StageKey(STAGE, image.digests(), job.params.model_dump(mode="json"))
    if old := finished_before(job.store, key):
        return old
    if importlib.util.find_spec("cupy"):
        hold_gpu(STAGE, job.runtime, report)
    site = Site(job.store, key.digest, job.params, job.runtime)
    with (
        Walk(site, image.shape_zyx, report) as walk,
        drafting(job.store, key, report, meanwhile=walk.help) as draft,
    ):
        if draft.finished is not None:
            return draft.finished
        _begin(draft, image, job.params)
        report.accepted(
            Accepted(
                shape=(image.channels, *image.shape_zyx),
                spacing_um=image.spacing.zyx,
                blocks=len(SHARE_OF_TIME),
            )
        )
        walk.lead()
        return _publish(site, image, walk.warning, draft, report)


def _refuse_the_impossible(job: QuantificationJob, raw: Volume, classes: Volume) -> None:
    if job.params.channel > raw.channels:
        raise InputError(
            f"channel {job.params.channel} does not exist: {job.store.name} has {raw.channels} "
            f"channel{'s' if raw.channels > 1 else ''}"
        )
    if not classes.attributes.get("roles"):
        raise VolumeFormatError(
            f"{CLASSES} of {job.store} does not say what its values mean (attribute 'roles'); "
            "segment again, or import the labels with their scheme"
        )
    for axis, size, other, edge, other_edge in zip(
        "zyx", raw.shape_zyx, classes.shape_zyx, raw.spacing.zyx, classes.spacing.zyx, strict=True
    ):
        if abs(size * edge - other * other_edge) > max(edge, other_edge):
            raise VolumeFormatError(
                f"{CLASSES} of {job.store} spans {other * other_edge:g} µm along {axis}, but the "
                f"raw image {size * edge:g} µm: they are not of the same field"
            )


def _begin(draft: Draft, image: StoredImage, params: QuantificationParams) -> None:
    for name in LABELS:
        draft.labels(f"labels/{name}", image.shape_zyx, image.spacing, np.uint32)
    if params.distance_maps:
        shape_czyx = (len(DISTANCE_MAPS), *image.shape_zyx)
        # Outside of dendrites there is no way along them: NaN, which no mean may swallow.
        draft.image(
            "distances", shape_czyx, image.spacing, np.float32, DISTANCE_MAPS, averaged=False
        )


def _blindness(image: StoredImage) -> Iterator[str]:
    least = image.site.params.min_spine_confidence
    if least > 0 and CONFIDENCE not in image.opinions:
        yield (
            f"min_spine_confidence={least:g} had no effect: these labels come without a confidence "
            "(segment the image with a network to have one)"
        )


def _publish(
    site: Site, image: StoredImage, warning: str, draft: Draft, report: Reporter
) -> StageRecord:
    # Only a worker computes: the server names this stage without loading the libraries.
    from respan_quantification.parquet import write_tables

    recipe = recipe_for(site)
    summary = recipe.summary()
    write_tables(summary.tables.named(), image.channels, draft.table)
    recipe.write_swc(draft.file("skeletons/dendrites.swc").parent)
    warnings = [*([warning] if warning else []), *_blindness(image), *summary.warnings]
    record = draft.publish(summary.numbers, warnings)
    report.progress(1000, 1000)
    logger.info(
        "quantified %s: %d spines on %d dendrites in %.1f s",
        draft.store,
        summary.numbers["spines"],
        summary.numbers["dendrites"],
        record.seconds,
    )
    return record
