import os
import sys
from pathlib import Path

import pytest

from respan_common.errors import InputError, SettingsError
from respan_orchestrator.experiment import check_writable, scan_experiment, stem_of

SETTINGS = "Analysis_Settings.yml"


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def names(experiment) -> dict[str, list[str]]:
    return {sub.name: [image.path.name for image in sub.images] for sub in experiment.sub_folders}


def test_every_child_with_images_or_settings_is_a_sub_folder(tmp_path):
    touch(tmp_path, "A/1.tif", "B/2.tiff", f"C/{SETTINGS}", "notes/read me.txt")
    experiment = scan_experiment(tmp_path)
    assert names(experiment) == {"A": ["1.tif"], "B": ["2.tiff"], "C": []}
    assert any("no images" in warning for warning in experiment.warnings)


def test_a_folder_of_images_is_its_own_sub_folder(tmp_path):
    touch(tmp_path, "1.tif", SETTINGS, "Tables/x.tif", "Validation_Data/y.tif", "old/readme.txt")
    assert names(scan_experiment(tmp_path)) == {tmp_path.name: ["1.tif"]}


def test_images_beside_sub_folders_are_ignored_with_a_warning(tmp_path):
    touch(tmp_path, "loose.tif", "A/1.tif")
    experiment = scan_experiment(tmp_path)
    assert names(experiment) == {"A": ["1.tif"]}
    assert "loose.tif" in experiment.warnings[0]


@pytest.mark.parametrize(
    "folder", ["Tables", "validation_data", "Zarr", "SWC_files", ".hidden", "a.ome.zarr", "selfnet"]
)
def test_output_folders_are_not_searched(tmp_path, folder):
    touch(tmp_path, f"{folder}/1.tif", "A/1.tif")
    assert names(scan_experiment(tmp_path)) == {"A": ["1.tif"]}


def test_images_come_in_natural_order(tmp_path):
    touch(tmp_path, "d10.tif", "d2.TIF", "D1.ome.tif", "b.tiff", "notes.txt", "._d2.tif")
    (tmp_path / "folder.tif").mkdir()
    assert names(scan_experiment(tmp_path))[tmp_path.name] == [
        "b.tiff",
        "D1.ome.tif",
        "d2.TIF",
        "d10.tif",
    ]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("a.b.TIF", "a.b"),
        ("a_0000.tif", "a_0000"),
        ("tif.tif", "tif"),
    ],
)
def test_the_stem_is_the_name_without_any_extension(name, stem):
    assert stem_of(Path(name)) == stem


def test_names_that_clash_name_one_another_and_spare_the_others(tmp_path):
    touch(tmp_path, "a.tif", "a.ome.tif", "A.TIF", "b.tif")
    images = {image.path.name: image for image in scan_experiment(tmp_path).sub_folders[0].images}
    assert images["b.tif"].problem == ""
    for name in ("a.tif", "a.ome.tif", "A.TIF"):
        assert "a.ome.tif" in images[name].problem
        assert "A.TIF" in images[name].problem


def test_two_spellings_of_an_accent_clash(tmp_path):
    touch(tmp_path, "caf\u00e9.tif", "cafe\u0301.tif")
    assert all(image.problem for image in scan_experiment(tmp_path).sub_folders[0].images)


def test_spaces_and_unicode_are_kept(tmp_path):
    touch(tmp_path, "Tier 1 µm/dendrite Ä 日本.tif")
    image = scan_experiment(tmp_path).sub_folders[0].images[0]
    assert image.store.name == "dendrite Ä 日本.ome.zarr"
    assert image.store.parent.parent.name == "Tier 1 µm"


def test_settings_of_the_parent_stand_in(tmp_path):
    touch(tmp_path, "A/1.tif", "B/1.tif")
    (tmp_path / SETTINGS).write_text("Parameters: {input_resZ: 2}")
    (tmp_path / "B" / SETTINGS).write_text("Parameters: {input_resZ: 3}")
    found = [sub.settings().input_z_um for sub in scan_experiment(tmp_path).sub_folders]
    assert found == [2.0, 3.0]


def test_a_sub_folder_without_settings_fails_alone_and_by_name(tmp_path):
    touch(tmp_path, "A/1.tif")
    with pytest.raises(SettingsError, match=r"A has no settings"):
        scan_experiment(tmp_path).sub_folders[0].settings()


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="not there"):
        scan_experiment(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no images"):
        scan_experiment(tmp_path)
    touch(tmp_path, f"A/{SETTINGS}", "file.txt")
    with pytest.raises(InputError, match="no sub-folder"):
        scan_experiment(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        scan_experiment(tmp_path / "file.txt")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder nobody may write to")
def test_a_folder_that_cannot_be_written_is_refused_before_work_starts(tmp_path):
    check_writable(tmp_path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="cannot be written"):
        check_writable(Path("/proc/self"))


def test_a_store_lies_beside_its_image_or_in_the_bucket_under_the_images_whole_path(
    tmp_path, monkeypatch
):
    folder = touch(tmp_path / "My Exp", "A/cell1.tif", "B/cell1.tif")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.delenv("RESPAN_VOLUMES", raising=False)
    stores = [part.images[0].store for part in scan_experiment(folder).sub_folders]
    assert stores[0] == folder / "A" / "Zarr" / "cell1.ome.zarr"
    monkeypatch.setenv("RESPAN_VOLUMES", "s3://lab/volumes")
    stores = [part.images[0].store for part in scan_experiment(folder).sub_folders]
    root = f"s3://lab/volumes{folder.resolve()}"
    assert [str(store) for store in stores] == [f"{root}/{name}/cell1.ome.zarr" for name in "AB"]
    through_link = scan_experiment(tmp_path / "link" / ".." / "My Exp").sub_folders
    assert [part.images[0].store for part in through_link] == stores
