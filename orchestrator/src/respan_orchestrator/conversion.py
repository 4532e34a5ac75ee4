"""Convert image files: to OME-Zarr, or to TIFFs that Fiji opens with their scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from respan_common.errors import InputError, VolumeNotFoundError
from respan_common.events import Reporter
from respan_common.records import read_record
from respan_common.volumes import open_volume
from respan_orchestrator import ingest
from respan_orchestrator.analysis_settings import load_settings
from respan_orchestrator.experiment import ImageFile, has_settings, stem_of
from respan_orchestrator.export import export_image_tiff
from respan_orchestrator.fiji import fiji_dtype, write_fiji_tiff
from respan_orchestrator.ingest import IngestJob, decide_spacing, file_digest, ingest_job
from respan_orchestrator.settings_file import NAMES
from respan_orchestrator.tiff import TiffImage

TARGETS = ("ome-zarr", "tiff")
"""What images can be converted to."""

_STORE = ".ome.zarr"


def convert_files(files: list[Path], target: str, out: Path | None, report: Reporter) -> list[Path]:
    """Convert files one after another; what was written, in the same order.

    Parameters
    ----------
    files
        TIFFs of any kind, our OME-Zarrs, and groups of them such as a.ome.zarr/labels/spines.
    target
        One of `TARGETS`.
    out
        Folder to write to; absent: beside each file.

    Raises
    ------
    InputError
        If something is in the way, or two files would become the same one: then nothing is
        written. Also if a file's voxel size is unknown.
    VolumeFormatError
        If a file is damaged. Those before it have been converted.
    """
    if target not in TARGETS:
        raise InputError(f"images become {' or '.join(TARGETS)}, not '{target}'")
    places = [_place(path, target, out) for path in files]
    _refuse_clashes(files, places)
    for path, place in zip(files, places, strict=True):
        _refuse_overwriting(path, place, report)
    for path, place in zip(files, places, strict=True):
        _convert(path, place, target, report)
    return places


def _place(path: Path, target: str, out: Path | None) -> Path:
    if not path.exists():
        raise VolumeNotFoundError(f"there is no image {path}")
    store, group = _split(path)
    folder = out if out is not None else (store or path).parent
    if target == "tiff":
        stem = store.name.removesuffix(_STORE) if store else stem_of(path)
        return folder / f"{'_'.join([stem, *group.split('/')[-1:]]) if group else stem}.tif"
    if store is not None:
        raise InputError(f"{path} is an OME-Zarr already")
    return folder / f"{stem_of(path)}{_STORE}"


def _split(path: Path) -> tuple[Path | None, str]:
    """Store and group that a path names; None for other files."""
    for place in (path, *path.parents):
        if place.name.endswith(_STORE):
            return place, "" if place == path else path.relative_to(place).as_posix()
    if path.is_dir():
        raise InputError(f"{path} is a folder, neither a TIFF nor an OME-Zarr ({_STORE})")
    return None, ""


def _refuse_clashes(files: list[Path], places: list[Path]) -> None:
    taken: dict[Path, Path] = {}
    for path, place in zip(files, places, strict=True):
        other = taken.setdefault(place.absolute(), path)
        if other is not path:
            raise InputError(
                f"{other} and {path} would both become {place}; convert them one by one, with --out"
            )


def _refuse_overwriting(path: Path, place: Path, report: Reporter) -> None:
    """What is there already may be somebody's original, or hold the results of an analysis."""
    if not place.exists():
        return
    if place.name.endswith(_STORE):
        record = read_record(place, ingest.STAGE)
        if record is not None and record.inputs.get("file") == file_digest(path, report):
            return
    raise InputError(
        f"{place} exists already, and {path} would replace it; remove it, or give another folder "
        f"with --out"
    )


def _convert(path: Path, place: Path, target: str, report: Reporter) -> None:
    store, group = _split(path)
    if target == "ome-zarr":
        ingest.run(_job(path, place), report)
    elif store is not None:
        export_image_tiff(open_volume(store, group), place, report)
    else:
        _tiff_to_tiff(_job(path, place), place, report)


def _job(path: Path, place: Path) -> IngestJob:
    """How to read a file: as the settings beside it say, if there are any."""
    if not has_settings(path.parent):
        return IngestJob(path, place, f"a file {NAMES[0]} beside it")
    return replace(ingest_job(ImageFile(path), load_settings(path.parent)), store=place)


def _tiff_to_tiff(job: IngestJob, place: Path, report: Reporter) -> None:
    with TiffImage(job.image, job.axes) as image:
        channels, depth, height, width = image.shape_czyx

        def planes() -> Iterator[NDArray[Any]]:
            for z in range(depth):
                report.progress(z, depth, "converting")
                for channel in range(1, channels + 1):
                    yield image.read(channel, z)

        write_fiji_tiff(
            place,
            planes(),
            "ZCYX",
            (depth, channels, height, width),
            fiji_dtype(image.dtype),
            decide_spacing(image.spacing, job, depth),
            image.channel_names,
        )
