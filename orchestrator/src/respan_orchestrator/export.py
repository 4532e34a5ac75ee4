"""From an image's OME-Zarr to RESPAN's folders: TIFFs for Fiji, tables for Excel, SWC tracings.

What a stage has not published is not exported, and an older export of it is removed: beside the
others, it would pass for a result of this run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.errors import VolumeFormatError
from respan_common.events import Reporter
from respan_common.geometry import Box, VoxelSpacing, Zyx
from respan_common.records import record_of, verify
from respan_common.volumes import Volume, exists, open_volume
from respan_orchestrator.analysis_settings import AnalysisSettings
from respan_orchestrator.fiji import complete_or_absent, fiji_dtype, write_fiji_tiff

SPINES = "tables/spines.parquet"
DENDRITES = "tables/dendrites.parquet"

_SLAB_BYTES = 256 * 2**20
_CHUNK_DEPTH = 32  # reading fewer planes at once would decode the same chunks again
_LARGEST_EXACT_ID = 2**24
_PUTATIVE_SPINE_ROLES = ("spine", "spine_core", "spine_shell")


def export_image(
    store: Path, sub_folder: Path, settings: AnalysisSettings, report: Reporter
) -> list[Path]:
    """Write everything that RESPAN's users expect of one image; return what was written.

    Parameters
    ----------
    store
        The image's OME-Zarr.
    sub_folder
        Where Tables/, Validation_Data/ and SWC_files/ are.
    """
    name = store.name.removesuffix(".ome.zarr")
    channel = settings.quantification.channel
    validation = sub_folder / "Validation_Data"
    steps: list[Callable[[], list[Path]]] = [
        lambda: export_classes(store, validation / f"Segmentation_Labels/{name}.tif", report),
        lambda: export_restored(
            store,
            validation / f"Restored_Images/{name}.tif",
            report,
            wanted=settings.restored_as_tiff,
        ),
        lambda: export_mips(store, validation / f"Validation_MIPs/MIP_{name}.tif", channel, report),
        lambda: export_tables(store, sub_folder / "Tables"),
        lambda: export_swc(store, sub_folder / "SWC_files"),
    ]
    written: list[Path] = []
    for done, step in enumerate(steps):
        report.progress(done, len(steps), "writing TIFFs and tables")
        written += step()
    report.progress(len(steps), len(steps), "writing TIFFs and tables")
    return written


def export_classes(store: Path, path: Path, report: Reporter) -> list[Path]:
    """Class image as the network sees it, uint8 (z, y, x)."""
    if not exists(store, "labels/classes"):
        return _absent(path)
    classes = open_volume(store, "labels/classes")
    planes = (plane for _, plane in _planes(classes, report))
    dtype = np.dtype(np.uint8)
    return [write_fiji_tiff(path, planes, "ZYX", classes.shape_zyx, dtype, classes.spacing)]


def export_restored(store: Path, path: Path, report: Reporter, *, wanted: bool) -> list[Path]:
    """Restored image, all channels (z, c, y, x)."""
    if not wanted or not exists(store, "restored"):
        return _absent(path)
    return [export_image_tiff(open_volume(store, "restored"), path, report)]


def export_image_tiff(image: Volume, path: Path, report: Reporter) -> Path:
    """Any image of a store as a TIFF (z, c, y, x)."""
    depth, height, width = image.shape_zyx
    shape = (depth, image.channels, height, width)
    every = zip(
        *(_planes(image, report, channel + 1) for channel in range(image.channels)), strict=True
    )
    planes = (plane for channels in every for _, plane in channels)
    dtype = fiji_dtype(image.dtype)
    return write_fiji_tiff(path, planes, "ZCYX", shape, dtype, image.spacing, image.channel_names)


def export_mips(store: Path, path: Path, channel: int, report: Reporter) -> list[Path]:
    """Projections along z of the image and of everything found in it, in RESPAN's order.

    RESPAN's last two channels, the distances to the dendrite, are not stored and not written.
    """
    if not exists(store, "labels/classes"):
        return _absent(path)
    layers = _layers(store, channel)
    _, height, width = layers[0].volume.shape_zyx
    planes = (_projection(layer, report) for layer in layers)
    shape = (len(layers), height, width)
    names = [layer.name for layer in layers]
    spacing = layers[0].volume.spacing
    return [write_fiji_tiff(path, planes, "CYX", shape, np.dtype(np.float32), spacing, names)]


def export_tables(store: Path, folder: Path) -> list[Path]:
    """Spine and dendrite tables with RESPAN's names; a missing value is an empty field."""
    name = store.name.removesuffix(".ome.zarr")
    spines_path = folder / f"{name}_detected_spines.csv"
    dendrites_path = folder / f"{name}_dendrite_summary.csv"
    spines, dendrites = read_table(store, SPINES), read_table(store, DENDRITES)
    if spines is None or dendrites is None:
        return [*_absent(spines_path), *_absent(dendrites_path)]
    spacing = measured_spacing(store)
    named = pd.concat([_origin(name, spacing, len(dendrites)), dendrites], axis=1)
    return [write_csv(spines, spines_path), write_csv(named, dendrites_path)]


def export_swc(store: Path, folder: Path) -> list[Path]:
    """The image's tracing, in µm."""
    name = store.name.removesuffix(".ome.zarr")
    path = folder / f"{name}.swc"
    found = sorted((store / "skeletons").glob("*.swc"))
    if not found:
        return _absent(path)
    with complete_or_absent(path) as temporary, temporary.open("wb") as target:
        for part in found:
            output = str(part.relative_to(store).as_posix())
            _verify(store, output)
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)
    return [path]


def measured_spacing(store: Path) -> VoxelSpacing:
    """Voxel size of what was measured: x, y and z in the tables count these voxels.

    Axial restoration makes it finer than the raw image's.
    """
    return open_volume(store, "labels/classes" if exists(store, "labels/classes") else "").spacing


def read_table(store: Path, name: str) -> pd.DataFrame | None:
    """A published table of a store; None if the stage that makes it has not finished.

    Raises
    ------
    VolumeFormatError
        If it is not as it was published.
    """
    if not store.is_dir() or record_of(store, name) is None:
        return None
    _verify(store, name)
    try:
        return pd.read_parquet(store / name)
    except (OSError, ValueError) as error:
        raise VolumeFormatError(f"{store / name} is no table: {error}") from error


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table at once; missing values are empty fields."""
    with complete_or_absent(path) as temporary:
        table.to_csv(temporary, index=False, na_rep="", encoding="utf-8", lineterminator="\n")
    return path


@dataclass(frozen=True)
class _Layer:
    """One channel of the projections."""

    name: str
    volume: Volume
    channel: int = 1
    values: tuple[int, ...] = ()
    """Class values that count as 1; empty: the values themselves."""


def _layers(store: Path, channel: int) -> list[_Layer]:
    classes = open_volume(store, "labels/classes")
    image = open_volume(store, "restored" if exists(store, "restored") else "")
    roles: dict[str, int] = classes.attributes.get("roles", {})
    putative = tuple(int(roles[role]) for role in _PUTATIVE_SPINE_ROLES if role in roles)
    layers = [_Layer("neuron", image, min(channel, image.channels))]
    if putative:
        layers.append(_Layer("putative spines", classes, values=putative))
    for label, group in (
        ("spine ids", "heads"),
        ("neck ids", "necks"),
        ("dendrite ids", "dendrites"),
        ("skeleton", "skeleton"),
    ):
        if exists(store, f"labels/{group}"):
            layers.append(_Layer(label, open_volume(store, f"labels/{group}")))
    sizes = {layer.volume.shape_zyx for layer in layers}
    if len(sizes) > 1:
        raise VolumeFormatError(f"image and labels of {store} differ in size: {sorted(sizes)}")
    return layers


def _projection(layer: _Layer, report: Reporter) -> NDArray[np.float32]:
    """Maximum along z, shape (y, x)."""
    _, height, width = layer.volume.shape_zyx
    highest = np.full((height, width), -np.inf, np.float32)
    for _, plane in _planes(layer.volume, report, layer.channel):
        values = np.isin(plane, layer.values) if layer.values else plane
        np.maximum(highest, values.astype(np.float32), out=highest)
    if layer.volume.dtype.kind == "u" and highest.max(initial=0) >= _LARGEST_EXACT_ID:
        raise VolumeFormatError(f"{layer.name} of {layer.volume.store} are too large for float32")
    return highest


def _planes(
    volume: Volume, report: Reporter, channel: int = 1
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Planes (y, x) of a volume in order; reads whole chunks at once where memory allows."""
    depth, height, width = volume.shape_zyx
    for start in range(0, depth, step := _slab_depth(volume.shape_zyx, volume.dtype.itemsize)):
        report.check()
        stop = min(start + step, depth)
        box: Box = (slice(start, stop), slice(0, height), slice(0, width))
        slab = volume.read(box, channel)
        yield from zip(range(start, stop), slab, strict=True)


def _slab_depth(shape_zyx: Zyx, itemsize: int) -> int:
    affordable = _SLAB_BYTES // max(shape_zyx[1] * shape_zyx[2] * itemsize, 1)
    whole = affordable // _CHUNK_DEPTH * _CHUNK_DEPTH
    return max(min(whole or affordable, 2 * _CHUNK_DEPTH), 1)


def _origin(name: str, spacing: VoxelSpacing, rows: int) -> pd.DataFrame:
    columns = {"Filename": name, "res_XY": spacing.x_um, "res_Z": spacing.z_um}
    return pd.DataFrame(columns, index=range(rows))


def _verify(store: Path, output: str) -> None:
    record = record_of(store, output)
    if record is None:
        raise VolumeFormatError(f"{store / output} was not published by any stage")
    verify(store, output, record)


def _absent(path: Path) -> list[Path]:
    path.unlink(missing_ok=True)
    return []
