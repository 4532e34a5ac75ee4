import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from respan_common.drafts import drafting, drafting_store
from respan_common.errors import CancelledError, VolumeFormatError
from respan_common.events import Progress, Reporter, SilentReporter
from respan_common.geometry import VoxelSpacing, whole
from respan_common.records import StageKey
from respan_common.volumes import open_volume
from respan_orchestrator import export, fiji, planes, table_export
from respan_orchestrator.analysis_settings import apply_overrides, translate
from respan_orchestrator.export import export_image, export_image_tiff
from respan_orchestrator.ledger import Ledger
from respan_orchestrator.summary import write_sub_folder_summary
from respan_orchestrator.tiff import TiffImage

SPACING = VoxelSpacing(0.5, 0.102, 0.102)
SHAPE = (5, 12, 14)
REPORT = SilentReporter()
SETTINGS = translate([], Path("settings.yml"))


def raw_store(folder: Path, name: str = "d 1", dtype="uint16", channels: int = 2) -> Path:
    store = folder / "Zarr" / f"{name}.ome.zarr"
    store.parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.tif").touch()
    values = np.random.default_rng(0).integers(0, 100, (channels, *SHAPE)).astype(dtype)
    with drafting_store(store, StageKey("ingest", {"file": "1"}), REPORT) as draft:
        names = [f"C{n + 1}" for n in range(channels)]
        image = draft.image("", values.shape, SPACING, values.dtype, names)
        for channel in range(channels):
            image.write(whole(SHAPE), values[channel], channel + 1)
        draft.publish()
    return store


def add_labels(store: Path, stage: str, groups: dict, attributes: dict | None = None) -> None:
    with drafting(store, StageKey(stage, {"raw": "1"}), REPORT) as draft:
        for name, values in groups.items():
            labels = draft.labels(
                f"labels/{name}", SHAPE, SPACING, values.dtype, attributes=attributes
            )
            labels.write(whole(SHAPE), values)
        draft.publish()


def segmented(store: Path) -> Path:
    classes = np.zeros(SHAPE, np.uint8)
    classes[2, 4, :] = 2
    classes[1:4, 6, 3:5] = 1
    add_labels(store, "segmentation", {"classes": classes}, {"roles": {"spine": 1, "dendrite": 2}})
    return store


def quantified(store: Path, spines: pd.DataFrame | None = None) -> Path:
    heads = np.zeros(SHAPE, np.uint32)
    heads[2, 6, 3] = 70_001
    groups = {"heads": heads, "necks": heads * 0, "dendrites": heads * 0 + 3, "skeleton": heads * 0}
    with drafting(
        store, StageKey("quantification", {"raw": open_volume(store).digest}), REPORT
    ) as draft:
        for name, values in groups.items():
            draft.labels(f"labels/{name}", SHAPE, SPACING, np.uint32).write(whole(SHAPE), values)
        table = SPINES if spines is None else spines
        table.to_parquet(draft.file(table_export.SPINES))
        DENDRITES.to_parquet(draft.file(table_export.DENDRITES))
        draft.file("skeletons/dendrites.swc").write_text("# RESPAN\n1 3 0 0 0 0.5 -1\n")
        draft.publish()
    return store


SPINES = pd.DataFrame(
    {
        "spine_id": [1, 70_001],
        "x": [3.0, 4.0],
        "y": [6.0, 6.0],
        "z": [2.0, 2.0],
        "dendrite_id": [3, 3],
        "spine_vol": [0.1, 0.3],
        "neck_length": [np.nan, 0.4],
        "attached": ["path", "contact"],
    }
)
DENDRITES = pd.DataFrame(
    {
        "dendrite_id": [3, 4],
        "dendrite_length": [15.0, 5.0],
        "dendrite_volume": [2.0, 2.0],
        "total_spines": [2, 0],
        "neck_length": [0.4, np.nan],
    }
)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_output_has_respans_name(tmp_path):
    store = quantified(segmented(raw_store(tmp_path)))
    written = export_image(store, tmp_path, SETTINGS, REPORT)
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "Validation_Data/Segmentation_Labels/d 1.tif",
        "Validation_Data/Validation_MIPs/MIP_d 1.tif",
        "Spine_Arrays/Spine_vols_d 1_b1.tif",
        "Spine_Arrays/Spine_MIPs_d 1_b1.tif",
        "Spine_Arrays/Spine_vols_d 1_b1_masked.tif",
        "Spine_Arrays/Spine_MIPs_d 1_b1_masked.tif",
        "Spine_Arrays/Spine_index_d 1.csv",
        "Tables/d 1_detected_spines.csv",
        "Tables/d 1_dendrite_summary.csv",
        "SWC_files/d 1.swc",
    ]
    assert not list(tmp_path.rglob("*.tmp"))


def test_labels_come_back_as_they_were_with_their_scale(tmp_path):
    store = segmented(raw_store(tmp_path))
    export_image(store, tmp_path, SETTINGS, REPORT)
    path = tmp_path / "Validation_Data/Segmentation_Labels/d 1.tif"
    with TiffImage(path) as image:
        found = np.array([image.read(1, z) for z in range(SHAPE[0])])
        assert image.spacing.zyx == pytest.approx(SPACING.zyx, rel=1e-6)
        assert found.dtype == np.uint8
    assert np.array_equal(found, open_volume(store, "labels/classes").read())


def test_fiji_reads_pixels_per_micron_and_the_slice_distance(tmp_path):
    export_image(segmented(raw_store(tmp_path)), tmp_path, SETTINGS, REPORT)
    for path in (tmp_path / "Validation_Data").rglob("*.tif"):
        with tifffile.TiffFile(path) as tif:
            assert tif.imagej_metadata["unit"] == "micron"
            assert tif.imagej_metadata["spacing"] == 0.5
            for name in ("XResolution", "YResolution"):
                above, below = tif.pages[0].tags[name].value
                assert above / below == pytest.approx(1 / 0.102, rel=1e-6)


def test_projections_are_named_and_large_ids_do_not_wrap(tmp_path):
    store = quantified(segmented(raw_store(tmp_path)))
    export_image(store, tmp_path, SETTINGS, REPORT)
    with tifffile.TiffFile(tmp_path / "Validation_Data/Validation_MIPs/MIP_d 1.tif") as tif:
        mips, names = tif.asarray(), tif.imagej_metadata["Labels"]
    assert names == [
        "neuron",
        "putative spines",
        "spine ids",
        "neck ids",
        "dendrite ids",
        "skeleton",
    ]
    assert mips.shape == (6, 12, 14)
    assert mips[2].max() == 70_001
    assert set(np.unique(mips[1])) == {0, 1}
    assert np.array_equal(mips[0], open_volume(store).read(channel=1).max(axis=0))


def test_projections_do_not_depend_on_how_much_is_read_at_once(tmp_path, monkeypatch):
    store = quantified(segmented(raw_store(tmp_path)))
    monkeypatch.setattr(planes, "_SLAB_BYTES", 1)
    export_image(store, tmp_path, SETTINGS, REPORT)
    found = tifffile.imread(tmp_path / "Validation_Data/Validation_MIPs/MIP_d 1.tif")
    assert np.array_equal(found[0], open_volume(store).read(channel=1).max(axis=0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_images_keep_their_values_and_channels(tmp_path, dtype):
    store = raw_store(tmp_path, dtype=dtype)
    path = export_image_tiff(open_volume(store), tmp_path / "out.tif", REPORT)
    with TiffImage(path) as image:
        assert image.shape_czyx == (2, *SHAPE)
        for channel in (1, 2):
            found = np.array([image.read(channel, z) for z in range(SHAPE[0])])
            assert np.array_equal(found, open_volume(store).read(channel=channel))


def test_a_large_file_is_a_bigtiff_with_its_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(fiji, "_LARGEST_CLASSIC_BYTES", 100)
    path = export_image_tiff(open_volume(raw_store(tmp_path)), tmp_path / "out.tif", REPORT)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff
    with TiffImage(path) as image:
        assert image.shape_czyx == (2, *SHAPE)
        assert image.spacing.zyx == pytest.approx(SPACING.zyx)
        assert image.channel_names == ["C1", "C2"]


def test_a_missing_value_is_an_empty_field(tmp_path):
    export_image(quantified(raw_store(tmp_path)), tmp_path, SETTINGS, REPORT)
    spines = rows_of(tmp_path / "Tables/d 1_detected_spines.csv")
    assert [row["neck_length"] for row in spines] == ["", "0.4"]
    assert [row["spine_id"] for row in spines] == ["1", "70001"]
    dendrites = rows_of(tmp_path / "Tables/d 1_dendrite_summary.csv")
    assert dendrites[1]["neck_length"] == ""
    assert (dendrites[0]["Filename"], dendrites[0]["res_XY"]) == ("d 1", "0.102")


def test_a_stage_that_was_not_done_leaves_no_older_export(tmp_path):
    store = quantified(segmented(raw_store(tmp_path)))
    export_image(store, tmp_path, SETTINGS, REPORT)
    fresh = raw_store(tmp_path / "other", "d 1")
    assert export_image(fresh, tmp_path, SETTINGS, REPORT) == []
    assert not list(tmp_path.glob("Tables/*.csv"))
    assert not list((tmp_path / "Validation_Data").rglob("*.tif"))


def test_a_damaged_table_is_not_exported(tmp_path):
    store = quantified(raw_store(tmp_path))
    with (store / table_export.SPINES).open("ab") as file:
        file.write(b"x")
    with pytest.raises(VolumeFormatError, match="damaged"):
        export_image(store, tmp_path, SETTINGS, REPORT)
    summary = rows_of(write_sub_folder_summary(tmp_path))
    assert summary[0]["Filename"] == "d 1"
    assert summary[0]["total_spines"] == ""


def test_a_failed_export_leaves_no_half_file(tmp_path, monkeypatch):
    store = segmented(raw_store(tmp_path))

    def broken(*args):
        raise OSError("disk full")
        yield

    monkeypatch.setattr(export, "planes", broken)
    with pytest.raises(OSError, match="disk full"):
        export_image(store, tmp_path, SETTINGS, REPORT)
    assert not [path for path in (tmp_path / "Validation_Data").rglob("*") if path.is_file()]


def settings(*options: str):
    return apply_overrides(SETTINGS, options)


def test_pictures_can_be_switched_off_and_older_ones_go(tmp_path):
    store = quantified(segmented(raw_store(tmp_path)))
    more = settings("analysis.validation_volumes=True")
    names = {path.name for path in export_image(store, tmp_path, more, REPORT)}
    assert {"MIP_d 1.tif", "d 1.tif", "Spine_vols_d 1_b1.tif"} <= names
    assert (tmp_path / "Validation_Data/Validation_Vols/d 1.tif").is_file()
    less = settings("analysis.validation_mips=False", "analysis.spine_arrays=False")
    export_image(store, tmp_path, less, REPORT)
    left = {path.name for path in tmp_path.rglob("*.tif")}
    assert left == {"d 1.tif"}, "image and class image have the same name"
    assert not list((tmp_path / "Spine_Arrays").iterdir())


def test_the_box_of_spine_arrays_has_the_size_that_settings_say(tmp_path):
    store = quantified(segmented(raw_store(tmp_path)))
    export_image(store, tmp_path, settings("analysis.roi_volume_size=1"), REPORT)
    found = tifffile.imread(tmp_path / "Spine_Arrays/Spine_vols_d 1_b1.tif")
    assert found.shape == (2, 3, 5, 11, 11)


def test_an_interrupted_export_goes_on_after_its_last_complete_file(tmp_path, monkeypatch):
    store = quantified(segmented(raw_store(tmp_path)))

    def broken(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_mips", broken)
        with pytest.raises(OSError, match="disk full"):
            export_image(store, tmp_path, SETTINGS, REPORT, Ledger(tmp_path / "log", "key"))
    labels = tmp_path / "Validation_Data/Segmentation_Labels/d 1.tif"
    before = labels.stat().st_mtime_ns
    written = export_image(store, tmp_path, SETTINGS, REPORT, Ledger(tmp_path / "log", "key"))
    assert labels.stat().st_mtime_ns == before
    assert all(path.is_file() for path in written)


def test_progress_rises_to_the_end_and_can_stop_the_work(tmp_path):
    store = quantified(segmented(raw_store(tmp_path)))
    heard: list[Progress] = []
    report = Reporter(heard.append, cancelled=lambda: False)
    report.least_interval_s = 0
    export_image(store, tmp_path, settings("analysis.validation_volumes=True"), report)
    shares = [event.done / event.total for event in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 10
    with pytest.raises(CancelledError):
        export_image(store, tmp_path, SETTINGS, Reporter(heard.append, cancelled=lambda: True))


def test_meshes_lie_in_respans_folders_and_older_ones_go(tmp_path):
    store = segmented(raw_store(tmp_path))
    with drafting(store, StageKey("quantification", {"raw": "1"}), REPORT) as draft:
        for part in ("spine", "head", "neck"):
            draft.file(f"meshes/{part}/3.obj").write_text(part)
        draft.publish()
    folder = tmp_path / "Validation_Data/Spine_Meshes/d 1"
    (folder / "head").mkdir(parents=True)
    (folder / "head/99.obj").touch()
    written = export_image(store, tmp_path, SETTINGS, REPORT)
    assert set(folder.rglob("*.obj")) <= set(written)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.obj")} == {
        f"{part}/3.obj" for part in ("spine", "head", "neck")
    }
    export_image(quantified(store), tmp_path, SETTINGS, REPORT)
    assert not folder.exists()
