"""From an image's OME-Zarr to RESPAN's folders: TIFFs for Fiji, tables for Excel, SWC tracings.

What a stage has not published is not exported, and an older export of it is removed: beside the
others, it would pass for a result of this run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from respan_common.buckets import Location
from respan_common.errors import VolumeFormatError
from respan_common.events import Reporter
from respan_common.records import record_of, verify
from respan_common.volumes import Volume, exists, open_volume
from respan_orchestrator.analysis_settings import AnalysisSettings
from respan_orchestrator.fiji import complete_or_absent, fiji_dtype, write_fiji_tiff
from respan_orchestrator.ledger import Ledger
from respan_orchestrator.mesh_export import export_meshes
from respan_orchestrator.planes import planes
from respan_orchestrator.spine_arrays import remove_spine_arrays, write_spine_arrays
from respan_orchestrator.table_export import SPINES, export_tables, read_table
from respan_orchestrator.validation import write_mips, write_volumes

_STEPS = 1000
_Step = Callable[[Reporter], list[Path]]
"""Writes something, and gives the files that are there then."""


def export_image(
    store: Location,
    sub_folder: Path,
    settings: AnalysisSettings,
    report: Reporter,
    ledger: Ledger | None = None,
) -> list[Path]:
    """Write everything that RESPAN's users expect of one image; return what was written.

    Parameters
    ----------
    store
        The image's OME-Zarr.
    sub_folder
        Where Tables/, Validation_Data/, Spine_Arrays/ and SWC_files/ are.
    ledger
        Large files that it lists are not written again.
    """
    steps = _steps(store, sub_folder, settings, ledger or Ledger())
    written: list[Path] = []
    for done, (what, step) in enumerate(steps.items()):
        part = PartReporter(report, done, len(steps), f"writing {what}")
        part.progress(0, 1)
        written += step(part)
    report.progress(len(steps), len(steps), "written")
    return written


def _steps(
    store: Location, sub_folder: Path, settings: AnalysisSettings, ledger: Ledger
) -> dict[str, _Step]:
    """Everything that is written, in this order, by the folder that it goes to."""
    meshes = sub_folder / "Validation_Data" / "Spine_Meshes"
    return {
        **_validation_steps(store, sub_folder / "Validation_Data", settings, ledger),
        "Spine_Arrays": lambda part: _export_spine_arrays(
            store, sub_folder, settings, part, ledger
        ),
        "Spine_Meshes": lambda part: export_meshes(store, meshes, part),
        "Tables": lambda part: export_tables(store, sub_folder / "Tables", settings.shape_rules),
        "SWC_files": lambda part: export_swc(store, sub_folder / "SWC_files"),
    }


def _validation_steps(
    store: Location, folder: Path, settings: AnalysisSettings, ledger: Ledger
) -> dict[str, _Step]:
    """The TIFFs that people look at."""
    file = f"{store.name.removesuffix('.ome.zarr')}.tif"
    channel = settings.quantification.channel
    classes, restored = folder / "Segmentation_Labels" / file, folder / "Restored_Images" / file
    mips, volumes = folder / "Validation_MIPs" / f"MIP_{file}", folder / "Validation_Vols" / file
    return {
        "Segmentation_Labels": lambda part: export_classes(store, classes, part, ledger),
        "Restored_Images": lambda part: export_restored(
            store, restored, part, ledger, wanted=settings.restored_as_tiff
        ),
        "Validation_MIPs": lambda part: export_mips(
            store, mips, channel, part, ledger, wanted=settings.validation_mips
        ),
        "Validation_Vols": lambda part: export_volumes(
            store, volumes, channel, part, ledger, wanted=settings.validation_volumes
        ),
    }


def export_classes(
    store: Location, path: Path, report: Reporter, ledger: Ledger | None = None
) -> list[Path]:
    """Class image as the network sees it, uint8 (z, y, x)."""
    if not exists(store, "labels/classes"):
        return _absent(path)
    classes = open_volume(store, "labels/classes")

    def write() -> None:
        shape, dtype = classes.shape_zyx, np.dtype(np.uint8)
        write_fiji_tiff(path, planes(classes, report), "ZYX", shape, dtype, classes.spacing)

    return [(ledger or Ledger()).once(path, write)]


def export_restored(
    store: Location, path: Path, report: Reporter, ledger: Ledger | None = None, *, wanted: bool
) -> list[Path]:
    """Restored image, all channels (z, c, y, x)."""
    if not wanted or not exists(store, "restored"):
        return _absent(path)
    image = open_volume(store, "restored")
    return [(ledger or Ledger()).once(path, lambda: export_image_tiff(image, path, report))]


def export_group(store: Location, group: str, path: Path, report: Reporter) -> list[Path]:
    """Any image group of a store, all channels (z, c, y, x); nothing if it is not there."""
    if not exists(store, group):
        return _absent(path)
    return [export_image_tiff(open_volume(store, group), path, report)]


def export_image_tiff(image: Volume, path: Path, report: Reporter) -> Path:
    """Any image of a store as a TIFF (z, c, y, x)."""
    depth, height, width = image.shape_zyx
    shape = (depth, image.channels, height, width)
    every = (planes(image, report, n + 1, image.channels) for n in range(image.channels))
    in_order = (plane for channels in zip(*every, strict=True) for plane in channels)
    dtype = fiji_dtype(image.dtype)
    return write_fiji_tiff(path, in_order, "ZCYX", shape, dtype, image.spacing, image.channel_names)


def export_mips(
    store: Location,
    path: Path,
    channel: int,
    report: Reporter,
    ledger: Ledger | None = None,
    *,
    wanted: bool = True,
) -> list[Path]:
    """Projections along z of the image and of everything found in it (`validation`)."""
    if not wanted or not exists(store, "labels/classes"):
        return _absent(path)
    return [(ledger or Ledger()).once(path, lambda: write_mips(store, path, channel, report))]


def export_volumes(
    store: Location,
    path: Path,
    channel: int,
    report: Reporter,
    ledger: Ledger | None = None,
    *,
    wanted: bool = True,
) -> list[Path]:
    """The same channels in 3D."""
    if not wanted or not exists(store, "labels/classes"):
        return _absent(path)
    return [(ledger or Ledger()).once(path, lambda: write_volumes(store, path, channel, report))]


def _export_spine_arrays(
    store: Location, sub_folder: Path, settings: AnalysisSettings, report: Reporter, ledger: Ledger
) -> list[Path]:
    folder = sub_folder / "Spine_Arrays"
    spines = read_table(store, SPINES) if settings.spine_arrays else None
    if spines is None:
        return remove_spine_arrays(folder, store.name.removesuffix(".ome.zarr"))
    return write_spine_arrays(store, folder, spines, settings.spine_box_um, report, ledger)


def export_swc(store: Location, folder: Path) -> list[Path]:
    """The image's tracing, in µm: all of it in one file, and each neuron in a file of its own.

    A neuron is a soma with its dendrites; a dendrite without a soma stands alone.
    """
    name = store.name.removesuffix(".ome.zarr")
    singles = folder / name
    wanted = {"skeletons/dendrites.swc": folder / f"{name}.swc"}
    names = sorted(part.name for part in (store / "skeletons" / "single").glob("*.swc"))
    wanted |= {f"skeletons/single/{one}": singles / one for one in names}
    for old in set(singles.glob("*.swc")) - set(wanted.values()):
        old.unlink()
    return [path for output, path in wanted.items() for path in _copied(store, output, path)]


def _copied(store: Location, output: str, path: Path) -> list[Path]:
    if not (store / output).is_file():
        return _absent(path)
    _verify(store, output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_or_absent(path) as temporary:
        temporary.write_bytes((store / output).read_bytes())
    return [path]


class PartReporter(Reporter):
    """Tells of one part of several as progress of the whole.

    Parameters
    ----------
    whole
        Who hears of it.
    part, parts
        Which part this is, from 0, and how many there are.
    message
        What is being done.
    """

    def __init__(self, whole: Reporter, part: int, parts: int, message: str) -> None:
        super().__init__(send=lambda event: None, cancelled=lambda: False)
        self._whole, self._part, self._parts, self._message = whole, part, parts, message

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Say how far the part is."""
        steps = round(_STEPS * (self._part + done / max(total, 1)))
        self._whole.progress(steps, _STEPS * self._parts, message or self._message)

    def check(self) -> None:
        """Raise CancelledError if the caller is gone."""
        self._whole.check()


def _verify(store: Location, output: str) -> None:
    record = record_of(store, output)
    if record is None:
        raise VolumeFormatError(f"{store / output} was not published by any stage")
    verify(store, output, record)


def _absent(path: Path) -> list[Path]:
    path.unlink(missing_ok=True)
    return []
