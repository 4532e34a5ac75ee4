"""Quantification of one image: reads "labels/classes" and the raw volume, writes everything else.

Label images: labels/{spines,heads,necks,dendrites,skeleton}. Files: tables/spines.parquet,
tables/dendrites.parquet, skeletons/dendrites.swc.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from respan_common.blocks import grid
from respan_common.drafts import Draft, drafting
from respan_common.errors import InputError, VolumeFormatError
from respan_common.events import Accepted, Reporter
from respan_common.geometry import Box
from respan_common.params import QuantificationParams
from respan_common.records import StageKey, StageRecord
from respan_common.settings import Runtime
from respan_common.volumes import Volume, open_volume

if TYPE_CHECKING:
    import pandas as pd

    from respan_quantification.pipeline import Quantified

logger = logging.getLogger(__name__)

CLASSES = "labels/classes"
STEPS = ("dendrites", "centerlines", "spines", "necks", "measurements", "writing")
"""Steps of the work, as progress names them."""


@dataclass(frozen=True)
class QuantificationJob:
    """One request, with its path resolved."""

    store: Path
    params: QuantificationParams
    runtime: Runtime = field(default_factory=Runtime)


def run(job: QuantificationJob, report: Reporter) -> StageRecord:
    """Quantify an image, or find that this very quantification is there already.

    Raises
    ------
    InputError
        If the image lacks the neuron's channel.
    VolumeFormatError
        If classes and raw image do not cover the same field, or the classes have no meaning.
    """
    raw, classes = open_volume(job.store), open_volume(job.store, CLASSES)
    _refuse_the_impossible(job, raw, classes)
    key = StageKey(
        "quantification",
        {"raw": raw.digest, CLASSES: classes.digest},
        job.params.model_dump(mode="json"),
    )
    with drafting(job.store, key, report) as draft:
        if draft.finished is not None:
            return draft.finished
        report.accepted(
            Accepted(
                shape=(raw.channels, *classes.shape_zyx),
                spacing_um=classes.spacing.zyx,
                blocks=len(STEPS),
            )
        )
        return _publish(_quantify(job, raw, classes, report), classes, draft, report)


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


def _quantify(job: QuantificationJob, raw: Volume, classes: Volume, report: Reporter) -> Quantified:
    # Only a worker computes: the server names this stage without loading the libraries.
    from respan_quantification.classes import ClassImage
    from respan_quantification.pipeline import quantify

    def tick(step: str) -> None:
        report.progress(STEPS.index(step), len(STEPS), step)

    image = ClassImage(classes.read(), dict(classes.attributes["roles"]))
    return quantify(
        image, _channel_reader(raw, classes), raw.channels, classes.spacing, job.params, tick
    )


def _channel_reader(raw: Volume, classes: Volume) -> Callable[[int], NDArray[Any]]:
    """Reads raw channels on the grid of the classes, which is finer after axial restoration."""

    def read(channel: int) -> NDArray[Any]:
        values = raw.read(channel=channel)
        edges = zip(classes.spacing.zyx, raw.spacing.zyx, strict=True)
        for axis, (edge, raw_edge) in enumerate(edges):
            size, raw_size = classes.shape_zyx[axis], values.shape[axis]
            if size != raw_size:  # both grids share the face of their first voxel
                nearest = ((np.arange(size) + 0.5) * edge / raw_edge).astype(np.int64)
                values = np.take(values, np.minimum(nearest, raw_size - 1), axis=axis)
        return values

    return read


def _publish(found: Quantified, classes: Volume, draft: Draft, report: Reporter) -> StageRecord:
    report.progress(STEPS.index("writing"), len(STEPS), "writing")
    _write_labels(found, classes, draft, report)
    _write_table(found.spine_table, draft.file("tables/spines.parquet"))
    _write_table(found.dendrite_table, draft.file("tables/dendrites.parquet"))
    draft.file("skeletons/dendrites.swc").write_text(found.swc, encoding="utf-8")
    record = draft.publish(found.numbers, found.warnings)
    report.progress(len(STEPS), len(STEPS))
    logger.info(
        "quantified %s: %d spines on %d dendrites in %.1f s",
        draft.store,
        found.numbers["spines"],
        found.numbers["dendrites"],
        record.seconds,
    )
    return record


def _write_labels(found: Quantified, classes: Volume, draft: Draft, report: Reporter) -> None:
    whole, is_head = found.spines.whole, found.is_head

    def skeleton(box: Box) -> NDArray[np.uint32]:
        drawn = np.zeros([part.stop - part.start for part in box], np.uint32)
        index, ids = found.skeleton
        low, high = ([getattr(part, side) for part in box] for side in ("start", "stop"))
        inside = ((index >= low) & (index < high)).all(axis=1)
        drawn[tuple((index[inside] - low).T)] = ids[inside]
        return drawn

    images: dict[str, Callable[[Box], NDArray[np.uint32]]] = {
        "spines": lambda box: whole[box],
        "heads": lambda box: np.where(is_head[box], whole[box], np.uint32(0)),
        "necks": lambda box: np.where(is_head[box], np.uint32(0), whole[box]),
        "dendrites": lambda box: found.dendrites[box],
        "skeleton": skeleton,
    }
    for name, part_in in images.items():
        group = f"labels/{name}"
        labels = draft.labels(group, classes.shape_zyx, classes.spacing, np.uint32)
        for block in grid(classes.shape_zyx, labels.block_zyx):
            report.check()
            labels.write(block.inner, part_in(block.inner))


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False)
