from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from respan_common.blocks import grid
from respan_common.drafts import drafting, drafting_store
from respan_common.errors import VolumeFormatError, VolumeNotFoundError
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.records import StageKey
from respan_common.volumes import open_volume
from respan_orchestrator.pictures import (
    colored,
    neuron_channel,
    projection,
    scale_bar_um,
    stretched,
    write_overview,
)

SPACING = VoxelSpacing(0.5, 0.1, 0.1)


def publish_image(store: Path, values: NDArray[Any], spacing: VoxelSpacing = SPACING) -> None:
    names = [f"C{number + 1}" for number in range(len(values))]
    with drafting_store(store, StageKey("ingest", {"file": "a"}), SilentReporter()) as draft:
        writer = draft.image("", values.shape, spacing, values.dtype, names)
        for block in grid(writer.shape_zyx, writer.block_zyx):
            for channel in range(len(values)):
                writer.write(block.inner, values[channel][block.inner], channel + 1)
        draft.publish()


def publish_labels(store: Path, channel: int = 1, **labels: NDArray[Any]) -> None:
    key = StageKey("quantification", {"raw": open_volume(store).digest}, {"channel": channel})
    with drafting(store, key, SilentReporter()) as draft:
        for name, values in labels.items():
            writer = draft.labels(f"labels/{name}", values.shape, SPACING, np.uint32)
            for block in grid(writer.shape_zyx, writer.block_zyx):
                writer.write(block.inner, values[block.inner])
        draft.publish({"spines": 1.0})


def noise(*shape: int) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 1000, shape, dtype=np.uint16)


def test_a_projection_shrinks_to_the_maximum_of_each_pixels_voxels(tmp_path: Path) -> None:
    values = noise(1, 70, 530, 600)
    publish_image(tmp_path / "a.ome.zarr", values)
    found = projection(open_volume(tmp_path / "a.ome.zarr"), (53, 60))
    assert np.array_equal(found, values[0].max(axis=0).reshape(53, 10, 60, 10).max(axis=(1, 3)))


def test_a_projection_at_full_size_is_the_maximum_over_z(tmp_path: Path) -> None:
    values = noise(1, 3, 17, 23)
    publish_image(tmp_path / "a.ome.zarr", values)
    assert np.array_equal(
        projection(open_volume(tmp_path / "a.ome.zarr"), (17, 23)), values[0].max(axis=0)
    )


@pytest.mark.parametrize("voxel", [(0, 0, 0), (3, 511, 512), (3, 512, 511), (3, 1032, 1100)])
def test_a_spine_of_a_single_voxel_does_not_vanish(
    tmp_path: Path, voxel: tuple[int, int, int]
) -> None:
    publish_image(tmp_path / "a.ome.zarr", np.zeros((1, 4, 1033, 1101), np.uint8))
    spines = np.zeros((4, 1033, 1101), np.uint32)
    spines[voxel] = 70_000
    publish_labels(tmp_path / "a.ome.zarr", spines=spines)
    volume = open_volume(tmp_path / "a.ome.zarr", "labels/spines")
    found = projection(volume, (97, 103))
    assert found.max() == 70_000
    assert np.count_nonzero(found) == 1


def test_negative_values_survive_a_projection(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", np.full((1, 2, 4, 4), -7, np.int16))
    assert (projection(open_volume(tmp_path / "a.ome.zarr"), (2, 2)) == -7).all()


def test_an_image_without_labels_has_a_picture(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", noise(1, 4, 40, 60))
    picture = imread(write_overview(tmp_path / "a.ome.zarr", tmp_path / "new" / "a.png"))
    assert picture.shape[1] > picture.shape[0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize("shape", [(1, 5, 5), (1, 1, 1), (2, 3, 400), (2, 400, 3)])
def test_an_image_of_any_shape_has_a_picture(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    publish_image(tmp_path / "a.ome.zarr", noise(1, *shape))
    labels = np.ones(shape, np.uint32)
    publish_labels(tmp_path / "a.ome.zarr", spines=labels, dendrites=labels, skeleton=labels)
    picture = imread(write_overview(tmp_path / "a.ome.zarr", tmp_path / "a.png"))
    assert max(picture.shape) <= 1650


def test_a_large_image_has_a_picture_of_bounded_size(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", np.zeros((1, 1, 2500, 2100), np.uint8))
    picture = imread(write_overview(tmp_path / "a.ome.zarr", tmp_path / "a.png"))
    assert picture.shape[1] <= 1650
    assert picture.shape[0] <= 1000


def test_voxels_that_are_longer_in_y_make_a_higher_picture(tmp_path: Path) -> None:
    for name, y_um in (("square", 0.1), ("high", 0.2)):
        publish_image(
            tmp_path / f"{name}.ome.zarr", noise(1, 2, 50, 100), VoxelSpacing(1, y_um, 0.1)
        )
    square, high = (
        imread(write_overview(tmp_path / f"{name}.ome.zarr", tmp_path / f"{name}.png"))
        for name in ("square", "high")
    )
    assert high.shape[1] == square.shape[1]
    assert high.shape[0] - 74 == 2 * (square.shape[0] - 74)


def test_labels_on_a_finer_grid_in_z_are_drawn(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", noise(1, 4, 40, 60))
    publish_labels(tmp_path / "a.ome.zarr", spines=np.ones((8, 40, 60), np.uint32))
    picture = imread(write_overview(tmp_path / "a.ome.zarr", tmp_path / "a.png"))[:, :, :3]
    half = picture.shape[1] // 2
    middle = picture[100 : picture.shape[0] - 100]
    assert np.ptp(middle[:, :half], axis=2).max() < 0.1
    assert np.ptp(middle[:, half + 50 : -50], axis=2).min() > 0.1


def test_a_picture_can_be_written_as_webp(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", noise(1, 4, 40, 60))
    written = write_overview(tmp_path / "a.ome.zarr", tmp_path / "a.webp")
    assert written.read_bytes()[8:12] == b"WEBP"


def test_the_channel_that_was_analyzed_is_drawn(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", noise(2, 4, 40, 60))
    publish_labels(tmp_path / "a.ome.zarr", channel=2)
    assert neuron_channel(tmp_path / "a.ome.zarr", open_volume(tmp_path / "a.ome.zarr")) == 2


def test_the_first_channel_is_drawn_before_any_analysis(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", noise(2, 4, 40, 60))
    assert neuron_channel(tmp_path / "a.ome.zarr", open_volume(tmp_path / "a.ome.zarr")) == 1


def test_an_image_that_does_not_exist_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(VolumeNotFoundError):
        write_overview(tmp_path / "a.ome.zarr", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_damaged_labels_are_not_drawn_as_if_they_were_empty(tmp_path: Path) -> None:
    publish_image(tmp_path / "a.ome.zarr", noise(1, 4, 40, 60))
    publish_labels(tmp_path / "a.ome.zarr", spines=np.ones((4, 40, 60), np.uint32))
    shards = (tmp_path / "a.ome.zarr" / "labels" / "spines" / "0" / "c").rglob("*")
    next(path for path in shards if path.is_file()).unlink()
    with pytest.raises(VolumeFormatError):
        write_overview(tmp_path / "a.ome.zarr", tmp_path / "a.png")


def test_an_image_of_a_single_value_is_black() -> None:
    assert not stretched(np.full((3, 3), 7, np.uint16)).any()


def test_a_few_bright_pixels_on_nothing_are_seen() -> None:
    values = np.zeros((100, 100), np.uint16)
    values[5, 5] = 9
    assert stretched(values).max() == 1


def test_background_is_transparent_and_labels_are_not() -> None:
    picture = colored(np.array([[0, 1], [2, 4_000_000_000]], np.uint32))
    assert (picture[:, :, 3] > 0).tolist() == [[False, True], [True, True]]
    assert not np.array_equal(picture[0, 1], picture[1, 0])


@pytest.mark.parametrize(("width_um", "bar_um"), [(40, 10), (39, 5), (0.4, 0.1), (8000, 2000)])
def test_a_scale_bar_has_a_round_length(width_um: float, bar_um: float) -> None:
    assert scale_bar_um(width_um) == pytest.approx(bar_um)
