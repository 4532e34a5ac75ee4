import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from respan_common.errors import CancelledError, InputError, RespanError
from respan_common.events import Reporter, SilentReporter
from respan_common.volumes import open_volume
from respan_orchestrator import ingest
from respan_orchestrator.experiment import scan_experiment
from respan_orchestrator.ingest import IngestJob, decide_spacing, ingest_job, run
from respan_orchestrator.tiff_metadata import FileSpacing

IMAGEJ = {"imagej": True, "resolution": (10, 10)}


def job_for(path: Path, **changes) -> IngestJob:
    sizes = {"z_um": 0.5, "xy_um": 0.1} | changes
    return IngestJob(path, path.parent / "Zarr" / f"{path.stem}.ome.zarr", "settings.yml", **sizes)


def noise(*shape: int, dtype="uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(-90, 90, shape).astype(dtype)


def ingested(path: Path, **changes):
    job = job_for(path, **changes)
    run(job, SilentReporter())
    return open_volume(job.store)


@pytest.mark.parametrize(
    ("shape", "axes", "czyx"),
    [
        ((70, 40, 50), "ZYX", (1, 70, 40, 50)),
        ((3, 2, 40, 50), "ZCYX", (2, 3, 40, 50)),
        ((2, 3, 600, 530), "CZYX", (2, 3, 600, 530)),
        ((40, 50), "YX", (1, 1, 40, 50)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_the_store_has_the_files_voxels(tmp_path, shape, axes, czyx, dtype):
    values = noise(*shape, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": axes}, photometric="minisblack")
    volume = ingested(tmp_path / "a.tif")
    assert (volume.channels, *volume.shape_zyx) == czyx
    assert volume.dtype == np.dtype(dtype)
    assert volume.spacing.zyx == (0.5, 0.1, 0.1)
    moved = np.swapaxes(values, 0, 1) if axes == "ZCYX" else values
    for channel in range(czyx[0]):
        expected = moved.reshape(czyx)[channel]
        assert np.array_equal(volume.read(channel=channel + 1), expected)


def test_an_image_is_found_read_and_placed_by_its_settings(tmp_path):
    folder = tmp_path / "Mouse 1 µm"
    folder.mkdir()
    (folder / "Analysis_Settings.yml").write_text("Parameters: {input_resXY: 0.2, input_resZ: 0.7}")
    tifffile.imwrite(folder / "dendrite 1.tif", noise(5, 8, 9))
    found = scan_experiment(tmp_path).sub_folders[0]
    record = run(ingest_job(found.images[0], found.settings()), SilentReporter())
    assert record.numbers == {"channels": 1, "z": 5, "y": 8, "x": 9}
    assert open_volume(folder / "Zarr/dendrite 1.ome.zarr").spacing.zyx == (0.7, 0.2, 0.2)


def test_the_same_file_is_read_once_and_a_changed_file_anew(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(5, 8, 9))
    first = run(job_for(path), SilentReporter())
    again = run(job_for(path), SilentReporter())
    assert (again.digest, again.finished_at) == (first.digest, first.finished_at)
    tifffile.imwrite(path, noise(5, 8, 9) + 1)
    assert run(job_for(path), SilentReporter()).digest != first.digest
    assert np.array_equal(open_volume(job_for(path).store).read(), noise(5, 8, 9) + 1)


def test_a_failed_image_leaves_no_store(tmp_path):
    values = np.zeros((5, 8, 9), "float32")
    values[2, 0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(RespanError, match="no numbers"):
        ingested(tmp_path / "a.tif")
    assert not job_for(tmp_path / "a.tif").store.exists()


def test_a_cancelled_reading_stops_and_is_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "_SLAB_BYTES", 1)
    tifffile.imwrite(tmp_path / "a.tif", noise(130, 8, 9))
    calls = iter(range(1000))
    with pytest.raises(CancelledError):
        run(job_for(tmp_path / "a.tif"), Reporter(lambda event: None, lambda: next(calls) > 90))
    accepted = []
    run(job_for(tmp_path / "a.tif"), Reporter(accepted.append, lambda: False))
    assert accepted[0].blocks_done == 1
    assert np.array_equal(open_volume(job_for(tmp_path / "a.tif").store).read(), noise(130, 8, 9))


def test_small_slabs_give_the_same_voxels(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "_SLAB_BYTES", 1)
    values = noise(66, 530, 520)
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert np.array_equal(ingested(tmp_path / "a.tif").read(), values)


def test_memory_does_not_grow_with_depth(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", noise(640, 128, 128), compression="zlib")
    with ingest.TiffImage(tmp_path / "a.tif") as image:
        tracemalloc.start()
        for z in range(640):
            image.read(1, z)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 128 * 128 * 2 * 30


NOTHING = FileSpacing()
FILE = FileSpacing(0.5, 0.1, 0.1)


@pytest.mark.parametrize(
    ("found", "settings", "expected"),
    [
        (NOTHING, {"z_um": 1.0, "xy_um": 0.2}, (1.0, 0.2, 0.2)),
        (FILE, {"z_um": None, "xy_um": None}, (0.5, 0.1, 0.1)),
        (FileSpacing(None, 0.1, 0.1), {"z_um": 1.0, "xy_um": None}, (1.0, 0.1, 0.1)),
        (FILE, {"z_um": 0.5049, "xy_um": 0.1}, (0.5049, 0.1, 0.1)),
        (FILE, {"z_um": 1.0, "xy_um": 0.2, "voxel_size_from": "file"}, (0.5, 0.1, 0.1)),
        (FILE, {"z_um": 1.0, "xy_um": 0.2, "voxel_size_from": "settings"}, (1.0, 0.2, 0.2)),
        (
            FileSpacing(None, 0.1, 0.1),
            {"z_um": 1.0, "xy_um": 0.2, "voxel_size_from": "file"},
            (1.0, 0.1, 0.1),
        ),
    ],
)
def test_the_voxel_size_comes_from_whoever_knows_it(found, settings, expected):
    assert decide_spacing(found, job_for(Path("a.tif"), **settings), depth=5).zyx == expected


@pytest.mark.parametrize(
    ("settings", "axis"), [({"z_um": 0.51, "xy_um": 0.1}, "z"), ({"xy_um": 0.102}, "y")]
)
def test_a_contradiction_shows_both_values_and_the_way_out(settings, axis):
    with pytest.raises(InputError) as error:
        decide_spacing(FILE, job_for(Path("a.tif"), **settings), depth=5)
    for text in (f"in {axis} is", "0.5 µm" if axis == "z" else "0.1 µm", "voxel_size_from"):
        assert text in str(error.value)


def test_a_single_planes_step_in_z_contradicts_nobody():
    job = job_for(Path("a.tif"), z_um=2.0)
    assert decide_spacing(FILE, job, depth=1).zyx == (2.0, 0.1, 0.1)


def test_an_unknown_voxel_size_says_which_key_to_write():
    with pytest.raises(InputError, match=r"input_resXY and input_resZ \(µm\) in settings\.yml"):
        decide_spacing(NOTHING, job_for(Path("a.tif"), z_um=None, xy_um=None), depth=5)
    with pytest.raises(InputError, match=r"set Parameters: input_resZ \(µm\)"):
        decide_spacing(FileSpacing(None, 0.1, 0.1), job_for(Path("a.tif"), z_um=None), depth=5)
