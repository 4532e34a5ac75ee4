from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from respan_common.blocks import grid
from respan_common.drafts import drafting
from respan_common.errors import InputError, VolumeFormatError, VolumeNotFoundError
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.records import StageKey
from respan_common.volumes import open_volume
from respan_orchestrator.conversion import convert_files
from respan_orchestrator.tiff import TiffImage

REPORT = SilentReporter()


def ome_tiff(path: Path, values: NDArray[Any], axes: str = "CZYX") -> NDArray[Any]:
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (0.5, 0.1, 0.1), strict=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, ome=True, metadata={"axes": axes, **sizes})
    return values


def noise(*shape: int, dtype: str = "uint16") -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def add_labels(store: Path, values: NDArray[np.uint32]) -> None:
    key = StageKey("quantification", {"raw": "a"})
    with drafting(store, key, REPORT) as draft:
        writer = draft.labels("labels/spines", values.shape, VoxelSpacing(0.5, 0.1, 0.1), np.uint32)
        for block in grid(writer.shape_zyx, writer.block_zyx):
            writer.write(block.inner, values[block.inner])
        draft.publish()


def assert_fiji_reads(path: Path, czyx: NDArray[Any]) -> None:
    """Voxels, and the scale where ImageJ looks for it."""
    with tifffile.TiffFile(path) as tif:
        assert tif.is_imagej
        assert tif.imagej_metadata["unit"] in ("micron", "um", "µm")
        assert tif.imagej_metadata["spacing"] == pytest.approx(0.5)
    with TiffImage(path) as image:
        assert image.shape_czyx == czyx.shape
        assert image.spacing.zyx == pytest.approx((0.5, 0.1, 0.1))
        for channel, volume in enumerate(czyx, start=1):
            found = [image.read(channel, z) for z in range(len(volume))]
            assert np.array_equal(found, volume)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(2, 5, 20, 30), (1, 5, 20, 30), (3, 4, 7, 6)])
def test_a_tiff_becomes_an_ome_zarr_and_a_tiff_again(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    values = ome_tiff(tmp_path / "a.ome.tif", noise(*shape, dtype=dtype))
    (store,) = convert_files([tmp_path / "a.ome.tif"], "ome-zarr", None, REPORT)
    assert store == tmp_path / "a.ome.zarr"
    assert open_volume(store).spacing.zyx == (0.5, 0.1, 0.1)
    (back,) = convert_files([store], "tiff", tmp_path / "out", REPORT)
    assert back == tmp_path / "out" / "a.tif"
    assert_fiji_reads(back, values)


def test_an_ome_tiff_becomes_a_tiff_for_fiji(tmp_path: Path) -> None:
    values = ome_tiff(tmp_path / "a.ome.tif", noise(2, 5, 20, 30))
    (written,) = convert_files([tmp_path / "a.ome.tif"], "tiff", None, REPORT)
    assert written == tmp_path / "a.tif"
    assert_fiji_reads(written, values)


def test_a_label_image_becomes_a_tiff_with_its_ids(tmp_path: Path) -> None:
    ome_tiff(tmp_path / "a.tif", noise(1, 5, 20, 30))
    (store,) = convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT)
    labels = noise(5, 20, 30, dtype="uint32") * 1000
    add_labels(store, labels)
    (written,) = convert_files([store / "labels" / "spines"], "tiff", None, REPORT)
    assert written == tmp_path / "a_spines.tif"
    assert_fiji_reads(written, labels[np.newaxis])


def test_converting_again_finds_the_ome_zarr(tmp_path: Path) -> None:
    ome_tiff(tmp_path / "a.tif", noise(1, 5, 20, 30))
    first = convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT)
    changed = (first[0] / ".respan" / "ingest.json").stat().st_mtime_ns
    assert convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT) == first
    assert (first[0] / ".respan" / "ingest.json").stat().st_mtime_ns == changed


def test_an_ome_zarr_of_another_image_is_not_replaced(tmp_path: Path) -> None:
    ome_tiff(tmp_path / "a.tif", noise(1, 5, 20, 30))
    (store,) = convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT)
    ome_tiff(tmp_path / "a.tif", noise(1, 5, 20, 30) + 1)
    with pytest.raises(InputError, match="exists already"):
        convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT)
    assert open_volume(store).read().max() == noise(1, 5, 20, 30).max()


def test_an_original_is_never_overwritten(tmp_path: Path) -> None:
    ome_tiff(tmp_path / "a.tif", noise(1, 5, 20, 30))
    before = (tmp_path / "a.tif").read_bytes()
    (store,) = convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT)
    for path in (store, tmp_path / "a.tif"):
        with pytest.raises(InputError, match="exists already"):
            convert_files([path], "tiff", None, REPORT)
    assert (tmp_path / "a.tif").read_bytes() == before


def test_two_files_that_would_become_one_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    for folder in ("one", "two"):
        ome_tiff(tmp_path / folder / "a.tif", noise(1, 5, 20, 30))
    files = [tmp_path / "one" / "a.tif", tmp_path / "two" / "a.tif"]
    with pytest.raises(InputError, match="both become"):
        convert_files(files, "ome-zarr", tmp_path / "out", REPORT)
    assert not (tmp_path / "out").exists()


def test_settings_beside_a_file_say_its_voxel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(5, 20, 30), photometric="minisblack")
    with pytest.raises(InputError, match="voxel size is unknown"):
        convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT)
    settings = "Parameters: {input_resXY: 0.1, input_resZ: 0.5}"
    (tmp_path / "Analysis_Settings.yml").write_text(settings)
    (store,) = convert_files([tmp_path / "a.tif"], "ome-zarr", None, REPORT)
    (written,) = convert_files([tmp_path / "a.tif"], "tiff", tmp_path / "out", REPORT)
    assert open_volume(store).spacing.zyx == (0.5, 0.1, 0.1)
    assert_fiji_reads(written, noise(1, 5, 20, 30))


def test_an_ome_zarr_is_not_made_of_an_ome_zarr(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr").mkdir()
    with pytest.raises(InputError, match="already"):
        convert_files([tmp_path / "a.ome.zarr"], "ome-zarr", None, REPORT)


def test_a_folder_of_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        convert_files([tmp_path], "tiff", None, REPORT)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeNotFoundError):
        convert_files([tmp_path / "a.tif"], "tiff", None, REPORT)


def test_a_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0nonsense")
    for target in ("tiff", "ome-zarr"):
        with pytest.raises(VolumeFormatError):
            convert_files([tmp_path / "a.tif"], target, tmp_path / "out", REPORT)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ome-zarr or tiff"):
        convert_files([], "png", None, REPORT)
