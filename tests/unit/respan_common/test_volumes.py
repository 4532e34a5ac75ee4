from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.strategies import triples
from tests.unit.respan_common.stores import (
    FOUR_SHARDS,
    SPACING,
    publish_image,
    publish_labels,
    ramp,
)

from respan_common import ngff
from respan_common.errors import InputError, VolumeFormatError, VolumeNotFoundError
from respan_common.geometry import VoxelSpacing
from respan_common.volumes import (
    LevelWriter,
    build_pyramid,
    exists,
    open_volume,
    read_level,
    shard_files,
)

DTYPES = [np.uint8, np.uint16, np.int16, np.float32, np.uint32]


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "cell.ome.zarr"
    publish_image(folder, ramp((2, *FOUR_SHARDS)))
    publish_labels(folder, ramp(FOUR_SHARDS, np.uint32))
    return folder


def shards(store: Path, group: str) -> list[Path]:
    return sorted(path for path in (store / group / "0" / "c").rglob("*") if path.is_file())


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_voxel_comes_back_with_its_extremes(tmp_path, dtype):
    values = ramp((1, 3, 20, 30), dtype)
    limits = np.finfo(dtype) if dtype is np.float32 else np.iinfo(dtype)
    values[0, 0, 0, :2] = limits.min, limits.max
    store = tmp_path / "x.ome.zarr"
    publish_image(store, values)
    volume = open_volume(store)
    assert volume.dtype == dtype
    assert np.array_equal(volume.read(), values[0])
    by_zarr = zarr.open_array(store / "0", mode="r")[...]
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store / '0'}/"}}
    by_tensorstore = tensorstore.open(spec, read=True).result().read().result()
    assert np.array_equal(by_zarr, by_tensorstore)


def test_a_volume_says_what_it_is(store):
    image, labels = open_volume(store), open_volume(store, "labels/classes")
    assert (image.shape_zyx, image.channels) == (FOUR_SHARDS, 2)
    assert image.channel_names == ["channel 1", "channel 2"]
    assert image.spacing == SPACING
    assert (labels.shape_zyx, labels.channels, labels.dtype) == (FOUR_SHARDS, 1, np.uint32)
    assert labels.attributes["roles"] == {"spine": 1, "dendrite": 2}
    assert image.digest != labels.digest


def test_a_box_and_a_channel_are_read_alone(store):
    box = (slice(1, 3), slice(500, 600), slice(0, 530))
    expected = ramp((2, *FOUR_SHARDS))[1][box]
    assert np.array_equal(open_volume(store).read(box, channel=2), expected)


@pytest.mark.parametrize("channel", [0, 3, -1])
def test_a_channel_that_is_not_there_is_an_error_that_says_how_many_are(store, channel):
    with pytest.raises(InputError, match=rf"channel {channel} does not exist.*2 channels"):
        open_volume(store).read(channel=channel)


def test_what_was_never_written_is_not_found(store):
    with pytest.raises(VolumeNotFoundError, match=r"no OME-Zarr"):
        open_volume(store.with_name("other.ome.zarr"))
    with pytest.raises(VolumeNotFoundError, match="no finished 'restored'"):
        open_volume(store, "restored")
    assert not exists(store, "restored")
    assert not exists(store.with_name("other.ome.zarr"), "")


@pytest.mark.parametrize("group", ["", "labels/classes"])
@pytest.mark.parametrize("how", ["missing", "truncated", "added"])
def test_a_damaged_shard_is_an_error_on_opening(store, group, how):
    shard = shards(store, group)[-1]
    if how == "missing":
        shard.unlink()
    elif how == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        shard.with_name("77").write_bytes(b"")
    with pytest.raises(VolumeFormatError, match="damaged"):
        open_volume(store, group)


@pytest.mark.parametrize("where", [0, 0.5, 1])
def test_a_shard_with_a_flipped_byte_is_an_error_on_reading(store, where):
    shard = shards(store, "labels/classes")[0]
    data = bytearray(shard.read_bytes())
    data[int(where * (len(data) - 1))] ^= 0xFF
    shard.write_bytes(bytes(data))
    with pytest.raises(VolumeFormatError, match="damaged"):
        open_volume(store, "labels/classes").read()


def test_a_group_without_its_metadata_is_an_error_and_is_made_again(store):
    (store / "labels" / "classes" / "zarr.json").unlink()
    with pytest.raises(VolumeFormatError, match=r"zarr\.json"):
        open_volume(store, "labels/classes")
    assert not publish_labels(store, ramp(FOUR_SHARDS, np.uint32)).is_old
    open_volume(store, "labels/classes")


def test_a_level_that_is_not_there_is_an_error(store):
    with pytest.raises(VolumeFormatError, match="9"):
        open_volume(store, level=9).read()


def test_part_of_a_shard_cannot_be_written(tmp_path):
    writer = LevelWriter(tmp_path, FOUR_SHARDS, np.uint8)
    with pytest.raises(AssertionError, match="end on a shard"):
        writer.write((slice(0, 5), slice(0, 500), slice(0, 512)), ramp((5, 500, 512)))
    with pytest.raises(AssertionError, match="start on a shard"):
        writer.write((slice(0, 5), slice(1, 600), slice(0, 512)), ramp((5, 599, 512)))


@given(triples(1, 3000), st.integers(1, 3))
def test_every_array_has_the_shards_that_its_shape_needs(shape, channels):
    per_channel = shard_files(shape)
    assert per_channel >= math.prod(shape) / (64 * 512 * 512)
    assert shard_files((channels, *shape)) == channels * per_channel


def write_whole(folder: Path, values: np.ndarray) -> None:
    array = LevelWriter(folder, values.shape, values.dtype)
    box = tuple(slice(0, size) for size in values.shape[-3:])
    for channel in range(values.shape[0]) if values.ndim == 4 else [0]:
        array.write(box, values[channel] if values.ndim == 4 else values, channel + 1)


def mean_of_cells(values: np.ndarray, step: tuple[int, int, int]) -> np.ndarray:
    """The slow way: a loop over coarse voxels."""
    shape = ngff.level_shape(values.shape, step)
    coarse = np.zeros(shape)
    for index in np.ndindex(shape):
        cell = tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, step, strict=True))
        coarse[index] = values[cell].mean(dtype=np.float64)
    return coarse


@settings(deadline=None, max_examples=20)
@given(shape=triples(1, 9), step=triples(1, 2), dtype=st.sampled_from(DTYPES), seed=st.integers(0))
def test_a_coarse_image_voxel_is_the_mean_of_its_fine_ones(
    tmp_path_factory, shape, step, dtype, seed
):
    values = np.random.default_rng(seed).integers(0, 127, (2, *shape)).astype(dtype)
    folder = tmp_path_factory.mktemp("pyramid")
    write_whole(folder, values)
    build_pyramid(folder, [(1, 1, 1), step], averaged=True)
    coarse = read_level(folder, 1)
    for channel in range(2):
        expected = mean_of_cells(values[channel], step)
        error = np.abs(coarse[channel].astype(float) - expected)
        assert error.max() <= (1e-4 if dtype is np.float32 else 0.5)


@settings(deadline=None, max_examples=20)
@given(shape=triples(1, 9), step=triples(1, 2), seed=st.integers(0))
def test_a_coarse_label_is_one_of_its_fine_ones(tmp_path_factory, shape, step, seed):
    values = np.random.default_rng(seed).integers(0, 2**32, shape, dtype=np.uint32)
    folder = tmp_path_factory.mktemp("pyramid")
    write_whole(folder, values)
    build_pyramid(folder, [(1, 1, 1), step], averaged=False)
    z, y, x = step
    assert np.array_equal(read_level(folder, 1), values[::z, ::y, ::x])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32])
def test_the_brightest_voxels_do_not_overflow_in_the_mean(tmp_path, dtype):
    values = np.full((1, 2, 4, 4), np.iinfo(dtype).max, dtype)
    write_whole(tmp_path, values)
    build_pyramid(tmp_path, [(1, 1, 1), (2, 2, 2)], averaged=True)
    assert np.all(read_level(tmp_path, 1) == np.iinfo(dtype).max)


@pytest.mark.parametrize("shape", [(1, 601, 533), (3, 601, 533), (67, 17, 515)])
def test_published_pyramids_of_odd_shapes_agree_with_their_metadata(tmp_path, shape):
    store = tmp_path / "odd.ome.zarr"
    values = ramp(shape, np.uint32)
    publish_image(store, values[np.newaxis].astype(np.uint16))
    publish_labels(store, values)
    factors = ngff.pyramid_factors(shape, SPACING)
    assert len(factors) > 1
    for group in ("", "labels/classes"):
        for level, factor in enumerate(factors):
            volume = open_volume(store, group, level)
            assert volume.shape_zyx == ngff.level_shape(shape, factor)
            scaled = [edge * step for edge, step in zip(SPACING.zyx, factor, strict=True)]
            assert volume.spacing == VoxelSpacing(*scaled)
    z, y, x = factors[-1]
    coarsest = open_volume(store, "labels/classes", len(factors) - 1).read()
    assert np.array_equal(coarsest, values[::z, ::y, ::x])
