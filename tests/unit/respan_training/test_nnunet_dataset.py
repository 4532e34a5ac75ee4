import json

import numpy as np
import pytest
import tifffile

from respan_common.errors import InputError, VolumeFormatError
from respan_common.geometry import VoxelSpacing
from respan_training.nnunet_dataset import read_case, read_training_set
from respan_training.tiffs import write_volume

SHAPE = (4, 8, 8)
SPACING = VoxelSpacing(1.0, 0.1, 0.1)


def add_case(folder, name, values, channels=1, spacing=SPACING):
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels.flat[: len(values)] = values
    write_volume(folder / "labelsTr" / f"{name}.tif", labels, spacing)
    for index in range(channels):
        image = np.full(SHAPE, index + 1, dtype=np.uint16)
        write_volume(folder / "imagesTr" / f"{name}_{index:04d}.tif", image, spacing)


def test_label_names_follow_from_all_files_and_not_from_the_first(tmp_path):
    add_case(tmp_path, "a", [1, 2])
    add_case(tmp_path, "b", [1, 4])
    data = read_training_set(tmp_path)
    assert data.description["labels"] == {
        "background": 0, "spine": 1, "dendrite": 2, "soma": 3, "neck": 4
    }  # fmt: skip
    assert "model type 3" in data.warnings[0]


def test_names_in_dataset_json_are_kept(tmp_path):
    add_case(tmp_path, "a", [1, 2])
    names = {"background": 0, "dendrite": 1, "soma": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names}))
    data = read_training_set(tmp_path)
    assert data.description["labels"] == names
    assert not data.warnings


def test_a_value_that_dataset_json_does_not_name_is_an_error(tmp_path):
    add_case(tmp_path, "a", [1, 5])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "dendrite": 1}}))
    with pytest.raises(InputError, match=r"class values \[5\]"):
        read_training_set(tmp_path)


def test_nothing_is_written_into_the_users_folder(tmp_path):
    add_case(tmp_path, "a", [1, 2])
    before = sorted(tmp_path.rglob("*"))
    read_training_set(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_channels_are_counted_and_stacked(tmp_path):
    add_case(tmp_path, "a", [1, 2], channels=2)
    data = read_training_set(tmp_path)
    volume = read_case(data.cases[0], data.has_spacing)
    assert list(data.description["channel_names"]) == ["0", "1"]
    assert volume.image.shape == (2, *SHAPE)
    assert volume.image[1].min() == 2


def test_the_voxel_size_comes_from_the_file(tmp_path):
    add_case(tmp_path, "a", [1])
    data = read_training_set(tmp_path)
    spacing = read_case(data.cases[0], data.has_spacing).spacing
    assert spacing.zyx == pytest.approx(SPACING.zyx)


def test_a_sidecar_goes_before_the_file(tmp_path):
    add_case(tmp_path, "a", [1])
    (tmp_path / "imagesTr" / "a.json").write_text('{"spacing": [2, 0.3, 0.3]}')
    data = read_training_set(tmp_path)
    assert read_case(data.cases[0], data.has_spacing).spacing == VoxelSpacing(2, 0.3, 0.3)


def test_an_image_without_voxel_size_among_others_is_an_error(tmp_path):
    add_case(tmp_path, "a", [1])
    add_case(tmp_path, "b", [1])
    image = np.ones(SHAPE, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "imagesTr" / "b_0000.tif", image, photometric="minisblack")
    with pytest.raises(InputError, match="voxel size of b is unknown"):
        read_training_set(tmp_path)


def test_a_label_without_image_is_an_error(tmp_path):
    add_case(tmp_path, "a", [1])
    (tmp_path / "imagesTr" / "a_0000.tif").unlink()
    with pytest.raises(InputError, match=r"imagesTr/a_0000\.tif is missing"):
        read_training_set(tmp_path)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing to train on"):
        read_training_set(tmp_path)


def test_image_and_labels_of_different_shape_are_an_error(tmp_path):
    add_case(tmp_path, "a", [1])
    write_volume(tmp_path / "labelsTr" / "a.tif", np.ones((4, 8, 9), dtype=np.uint8), SPACING)
    data = read_training_set(tmp_path)
    with pytest.raises(VolumeFormatError, match="differ in shape"):
        read_case(data.cases[0], data.has_spacing)


def test_one_changed_voxel_changes_the_digest(tmp_path):
    add_case(tmp_path, "a", [1, 2])
    before = read_training_set(tmp_path).digest
    assert read_training_set(tmp_path).digest == before
    add_case(tmp_path, "a", [1, 2, 2])
    assert read_training_set(tmp_path).digest != before
