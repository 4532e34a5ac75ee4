"""Bring somebody's own class image (TIFF or OME-Zarr) into an image's store, to be quantified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.blocks import grid
from respan_common.buckets import Location
from respan_common.drafts import drafting
from respan_common.errors import InputError
from respan_common.events import Reporter
from respan_common.geometry import Box, Zyx, shape_of
from respan_common.records import StageKey, StageRecord
from respan_common.schemes import SCHEMES
from respan_common.volumes import open_foreign_array, open_volume
from respan_orchestrator.ingest import file_digest
from respan_orchestrator.tiff import TiffImage

_MANY = 8
"""Unknown values beyond which an image looks like ids of single objects."""

Read = Callable[[Box], NDArray[Any]]


def bring_labels(store: Location, labels: Path, scheme: int, report: Reporter) -> StageRecord:
    """Publish a class image as the store's "labels/classes".

    Parameters
    ----------
    store
        The image's OME-Zarr.
    labels
        TIFF or OME-Zarr with the image's shape, whose values are those of the scheme.
    scheme
        RESPAN's model type, 1 to 4.

    Raises
    ------
    InputError
        If the shape is another one, or a value has no meaning in the scheme.
    """
    raw = open_volume(store)
    roles = SCHEMES[scheme]
    key = StageKey(
        "segmentation", {"raw": raw.digest, "labels": _digest(labels, report)}, {"scheme": scheme}
    )
    with drafting(store, key, report) as draft, _opened(labels) as (shape_zyx, read):
        if draft.finished is not None:
            return draft.finished
        if shape_zyx != raw.shape_zyx:
            raise InputError(_other_shape(labels, shape_zyx, store, raw.shape_zyx))
        names = {value: role for role, value in roles.items()}
        writer = draft.labels(
            "labels/classes",
            shape_zyx,
            raw.spacing,
            np.uint8,
            names=names,
            attributes={"roles": roles},
        )
        blocks = grid(shape_zyx, writer.block_zyx)
        for block in blocks:
            report.progress(block.number, len(blocks), "reading the labels")
            values = read(block.inner)
            _refuse_unknown(values, names, labels, scheme)
            writer.write(block.inner, values)
        return draft.publish()


@contextmanager
def _opened(labels: Path) -> Iterator[tuple[Zyx, Read]]:
    """Shape of a class image, and a function that reads a box of it."""
    if labels.is_dir():
        array = open_foreign_array(labels)
        yield array.shape_zyx, array.read
        return
    with TiffImage(labels) as image:
        channels, *shape = image.shape_czyx
        if channels != 1:
            raise InputError(f"{labels} has {channels} channels; a class image has one")
        yield (shape[0], shape[1], shape[2]), lambda box: _planes(image, box)


def _planes(image: TiffImage, box: Box) -> NDArray[Any]:
    z, y, x = box
    values = np.empty(shape_of(box), image.dtype)
    for number in range(z.start, z.stop):
        values[number - z.start] = image.read(1, number)[y, x]
    return values


def _other_shape(labels: Path, shape_zyx: Zyx, store: Location, wanted: Zyx) -> str:
    image = store.name.removesuffix(".ome.zarr")
    if sorted(shape_zyx) == sorted(wanted):
        way_out = "save the labels with their axes in the order z, y, x"
    else:
        way_out = (
            "labels must have a voxel for every voxel of the image: neither cropped nor scaled"
        )
    return (
        f"{labels} has the shape {shape_zyx} (z, y, x), but the image {image} has {wanted}; "
        f"{way_out}"
    )


def _refuse_unknown(values: NDArray[Any], names: dict[int, str], labels: Path, scheme: int) -> None:
    found = np.unique(values)
    unknown = found[~np.isin(found, [0, *names])]
    if not len(unknown):
        return
    listed = ", ".join(f"{value} {name}" for value, name in sorted(names.items()))
    way_out = "choose another scheme with --scheme, or change the values"
    if len(unknown) > _MANY:
        way_out = "labels must say what a voxel is (its class), not to which spine it belongs"
    raise InputError(
        f"{labels} has the value {unknown[0]:g}{_others(len(unknown))}, which means nothing in "
        f"scheme {scheme} (0 background, {listed}); {way_out}"
    )


def _others(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _digest(labels: Path, report: Reporter) -> str:
    if labels.is_file():
        return file_digest(labels, report)
    if not labels.is_dir():
        raise InputError(f"there is no {labels}")
    files = sorted(path for path in labels.rglob("*") if path.is_file())
    return " ".join(f"{path.relative_to(labels)}={file_digest(path, report)}" for path in files)
