import numpy as np
import pytest
import tifffile

from respan_common.errors import VolumeFormatError
from respan_common.geometry import VoxelSpacing
from respan_training.tiffs import read_spacing, read_volume, write_volume

VOLUME = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
SPACING = VoxelSpacing(1.0, 0.102, 0.103)


def test_a_volume_comes_back_with_its_voxel_size(tmp_path):
    write_volume(tmp_path / "a.tif", VOLUME, SPACING)
    array, spacing = read_volume(tmp_path / "a.tif")
    assert (array == VOLUME).all()
    assert spacing.zyx == pytest.approx(SPACING.zyx, rel=1e-5)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a.tif", "b.tif"):
        write_volume(tmp_path / name, VOLUME, SPACING)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_the_voxel_size_of_ome_tiff_is_read_in_its_unit(tmp_path):
    sizes = {"PhysicalSizeX": 102, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.103}
    metadata = {"axes": "ZYX", **sizes, "PhysicalSizeZ": 1.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", VOLUME, ome=True, metadata=metadata)
    assert read_spacing(tmp_path / "a.ome.tif").zyx == pytest.approx((1.0, 0.103, 0.102))


def test_a_plain_tiff_has_no_voxel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, photometric="minisblack")
    assert read_spacing(tmp_path / "a.tif") is None


def test_a_slice_is_no_volume(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0])
    with pytest.raises(VolumeFormatError, match="2 axes"):
        read_volume(tmp_path / "a.tif")


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"no tiff")
    with pytest.raises(VolumeFormatError, match=r"a\.tif cannot be read"):
        read_volume(tmp_path / "a.tif")


def test_object_numbers_become_narrow_and_too_large_ones_are_refused(tmp_path):
    numbers = np.zeros((2, 3, 4), np.uint32)
    numbers[1, 2, 3] = 65535
    write_volume(tmp_path / "a.tif", numbers, SPACING)
    written, _ = read_volume(tmp_path / "a.tif")
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(written, numbers)
    with pytest.raises(VolumeFormatError, match="65536"):
        write_volume(tmp_path / "a.tif", numbers + 1, SPACING)
