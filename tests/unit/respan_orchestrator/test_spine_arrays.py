"""Arrays of stores whose every voxel is known."""

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from respan_common.drafts import drafting, drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing, whole
from respan_common.records import StageKey
from respan_orchestrator import spine_arrays
from respan_orchestrator.ledger import Ledger
from respan_orchestrator.spine_arrays import remove_spine_arrays, write_spine_arrays

SPACING = VoxelSpacing(0.5, 0.1, 0.1)
SHAPE = (12, 60, 70)
REPORT = SilentReporter()
BOX_UM = 2.1
BOX = (5, 21, 21)
CENTERS = {1: (1, 5, 5), 2: (6, 30, 30), 3: (6, 30, 58), 4: (11, 59, 69)}


def store_of(folder: Path, dtype="uint16", raw_shape=SHAPE, raw_spacing=SPACING) -> Path:
    """Four spines: a head of 3 x 3 x 3 voxels, two neck voxels below it in y, one dendrite."""
    store = folder / "Zarr" / "cell.ome.zarr"
    store.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    raw = rng.integers(1, 200, (2, *raw_shape)).astype(dtype)
    with drafting_store(store, StageKey("ingest", {"file": "1"}), REPORT) as draft:
        image = draft.image("", raw.shape, raw_spacing, raw.dtype, ["GFP", "PSD95"])
        for channel in (1, 2):
            image.write(whole(raw_shape), raw[channel - 1], channel)
        draft.publish()
    heads, necks, dendrites = (np.zeros(SHAPE, np.uint32) for _ in range(3))
    for number, (z, y, x) in CENTERS.items():
        heads[max(z - 1, 0) : z + 2, y - 1 : y + 2, x - 1 : x + 2] = number
        necks[z, y - 3 : y - 1, x] = number
    dendrites[5:8, 10:14, :] = 7
    with drafting(store, StageKey("quantification", {"raw": "1"}), REPORT) as draft:
        for name, values in (("heads", heads), ("necks", necks), ("dendrites", dendrites)):
            draft.labels(f"labels/{name}", SHAPE, SPACING, np.uint32).write(whole(SHAPE), values)
        draft.publish()
    return store


def table() -> pd.DataFrame:
    rows = [(number, 7, *map(float, center)) for number, center in CENTERS.items()]
    return pd.DataFrame(rows, columns=["spine_id", "dendrite_id", "z", "y", "x"])


def written(store: Path, folder: Path, box_um: float = BOX_UM, **more) -> list[str]:
    found = write_spine_arrays(store, folder, more.pop("spines", table()), box_um, REPORT, **more)
    assert sorted(found) == sorted(folder.iterdir())
    return [path.name for path in found]


def index_of(folder: Path) -> dict[int, dict[str, str]]:
    with (folder / "Spine_index_cell.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["spine_id"]): row for row in csv.DictReader(file)}


def raw_of(store: Path) -> np.ndarray:
    from respan_common.volumes import open_volume

    return np.stack([open_volume(store).read(channel=channel) for channel in (1, 2)])


def test_a_picture_holds_masks_and_every_channel_around_the_head(tmp_path):
    store, folder = store_of(tmp_path), tmp_path / "Spine_Arrays"
    assert written(store, folder) == [
        "Spine_vols_cell_b1.tif",
        "Spine_MIPs_cell_b1.tif",
        "Spine_vols_cell_b1_masked.tif",
        "Spine_MIPs_cell_b1_masked.tif",
        "Spine_index_cell.csv",
    ]
    pictures = tifffile.imread(folder / "Spine_vols_cell_b1.tif")
    assert pictures.shape == (4, BOX[0], 5, *BOX[1:])
    neck, head, dendrite, *grey = np.moveaxis(pictures[1], 1, 0)
    box = np.s_[4:9, 20:41, 20:41]
    assert np.array_equal(grey, raw_of(store)[(slice(None), *box)])
    assert (neck.sum(), head.sum(), dendrite.sum()) == (2, 27, 0)
    assert head[1:4, 9:12, 9:12].all()
    assert pictures[:, :, :3].max() == 1


def test_masked_pictures_are_dark_outside_the_spine(tmp_path):
    folder = tmp_path / "Spine_Arrays"
    written(store_of(tmp_path), folder)
    plain = tifffile.imread(folder / "Spine_vols_cell_b1.tif")
    masked = tifffile.imread(folder / "Spine_vols_cell_b1_masked.tif")
    body = plain[:, :, :2].any(axis=2, keepdims=True)
    assert np.array_equal(masked[:, :, 3:], plain[:, :, 3:] * body)
    assert np.array_equal(masked[:, :, :3], plain[:, :, :3])


@pytest.mark.parametrize("end", ["", "_masked"])
def test_projections_are_the_volumes_maxima_along_z(tmp_path, end):
    folder = tmp_path / "Spine_Arrays"
    written(store_of(tmp_path), folder)
    volumes = tifffile.imread(folder / f"Spine_vols_cell_b1{end}.tif")
    mips = tifffile.imread(folder / f"Spine_MIPs_cell_b1{end}.tif")
    assert np.array_equal(mips, volumes.max(axis=1))


def test_every_plane_says_its_spine_and_channel(tmp_path):
    folder = tmp_path / "Spine_Arrays"
    written(store_of(tmp_path), folder)
    for file, repeats in (("Spine_vols_cell_b1.tif", BOX[0]), ("Spine_MIPs_cell_b1.tif", 1)):
        with tifffile.TiffFile(folder / file) as tif:
            meta = tif.imagej_metadata
        names = ["neck", "head", "dendrite", "GFP", "PSD95"]
        expected = [f"spine {n} {name}" for n in CENTERS for _ in range(repeats) for name in names]
        assert meta["Labels"] == expected
        assert meta["unit"] == "micron"


def test_beyond_the_image_a_picture_is_zero_and_the_index_says_so(tmp_path):
    store, folder = store_of(tmp_path), tmp_path / "Spine_Arrays"
    written(store, folder)
    pictures, index = tifffile.imread(folder / "Spine_vols_cell_b1.tif"), index_of(folder)
    assert [index[n]["padded"] for n in CENTERS] == ["True", "False", "False", "True"]
    assert [index[4][f"{axis}_start"] for axis in "zyx"] == ["9", "49", "59"]
    assert pictures[3, :3, 3, :11, :11].all()
    assert not pictures[3, 3:].any()
    assert not pictures[3, :, :, 11:].any()
    assert not pictures[3, :, :, :, 11:].any()
    assert index[1]["z_start"] == "-1"


def test_the_index_names_spines_that_the_box_cuts(tmp_path):
    store, folder = store_of(tmp_path), tmp_path / "Spine_Arrays"
    written(store, folder)
    assert {row["cut"] for row in index_of(folder).values()} == {"False"}
    written(store, folder, box_um=0.5)
    assert index_of(folder)[2]["cut"] == "True"


def test_pictures_do_not_depend_on_how_many_fit_the_memory(tmp_path, monkeypatch):
    store, folder = store_of(tmp_path), tmp_path / "Spine_Arrays"
    written(store, folder)
    together = tifffile.imread(folder / "Spine_vols_cell_b1.tif")
    monkeypatch.setattr(spine_arrays, "_BATCH_BYTES", 2 * together[0].nbytes)
    monkeypatch.setattr(spine_arrays, "_SHARD", (12, 60, 35))
    monkeypatch.setattr(spine_arrays, "_CHUNK", (12, 60, 35))
    names = written(store, folder)
    assert sum(name.startswith("Spine_vols") for name in names) == 4
    index = index_of(folder)
    assert {n: index[n]["file"][-5] for n in CENTERS} == {1: "1", 2: "1", 3: "2", 4: "2"}
    for number, row in index.items():
        apart = tifffile.imread(folder / row["file"])[int(row["position"]) - 1]
        assert np.array_equal(apart, together[number - 1])


def test_after_a_crash_only_missing_batches_are_written(tmp_path, monkeypatch):
    store, folder = store_of(tmp_path), tmp_path / "Spine_Arrays"
    monkeypatch.setattr(spine_arrays, "_BATCH_BYTES", 1)
    log = tmp_path / "export.log"
    names = written(store, folder, ledger=Ledger(log, "key"))
    (folder / "Spine_MIPs_cell_b3.tif").unlink()
    index = (folder / "Spine_index_cell.csv").read_text()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tif")}
    assert written(store, folder, ledger=Ledger(log, "key")) == names
    again = {path.name for path in folder.glob("*.tif")} - {
        name for name, time in before.items() if (folder / name).stat().st_mtime_ns == time
    }
    assert all("_b3" in name for name in again)
    assert len(again) == 4
    assert (folder / "Spine_index_cell.csv").read_text() == index


def test_memory_does_not_grow_with_the_number_of_spines(tmp_path, monkeypatch):
    store = store_of(tmp_path)
    monkeypatch.setattr(spine_arrays, "_BATCH_BYTES", 2 * 2**20)

    def peak(count: int) -> int:
        many = pd.concat([table()] * (count // 4), ignore_index=True)
        many["spine_id"] = np.arange(1, count + 1)
        tracemalloc.start()
        write_spine_arrays(store, tmp_path / "Spine_Arrays", many, 6.1, REPORT)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(4)
    few = peak(4)
    assert peak(40) < 1.1 * few


def test_an_older_exports_files_are_removed_and_those_of_other_images_stay(tmp_path):
    store, folder = store_of(tmp_path), tmp_path / "Spine_Arrays"
    folder.mkdir()
    others = ["Spine_vols_cell_b1_b2.tif", "Spine_vols_other_b1.tif", "Spine_index_cell2.csv"]
    for name in [*others, "Spine_MIPs_cell_b9.tif", "Spine_vols_cell_b9_masked.tif"]:
        (folder / name).touch()
    write_spine_arrays(store, folder, table(), BOX_UM, REPORT)
    names = {path.name for path in folder.iterdir()}
    assert set(others) <= names
    assert not {name for name in names if "b9" in name}
    remove_spine_arrays(folder, "cell")
    assert {path.name for path in folder.iterdir()} == set(others)


def test_an_image_without_spines_has_an_empty_index(tmp_path):
    folder = tmp_path / "Spine_Arrays"
    assert written(store_of(tmp_path), folder, spines=table()[:0]) == ["Spine_index_cell.csv"]
    assert index_of(folder) == {}


def test_raw_slices_are_repeated_where_restoration_made_labels_finer(tmp_path):
    coarse = VoxelSpacing(1.5, 0.1, 0.1)
    store = store_of(tmp_path, raw_shape=(4, *SHAPE[1:]), raw_spacing=coarse)
    folder = tmp_path / "Spine_Arrays"
    written(store, folder)
    pictures = tifffile.imread(folder / "Spine_vols_cell_b1.tif")
    expected = raw_of(store)[:, [1, 1, 2, 2, 2], 20:41, 20:41]
    assert np.array_equal(np.moveaxis(pictures[1], 1, 0)[3:], expected)


@pytest.mark.parametrize(
    ("dtype", "stored"), [("uint8", "uint8"), ("uint16", "uint16"), ("int16", "float32")]
)
def test_grey_values_are_kept(tmp_path, dtype, stored):
    folder = tmp_path / "Spine_Arrays"
    written(store_of(tmp_path, dtype), folder)
    assert tifffile.imread(folder / "Spine_vols_cell_b1.tif").dtype == stored
