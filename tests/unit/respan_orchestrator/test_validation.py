"""Validation pictures of a store whose every voxel is known."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from respan_common.drafts import drafting, drafting_store
from respan_common.errors import VolumeFormatError
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing, whole
from respan_common.records import StageKey
from respan_common.volumes import open_volume
from respan_orchestrator import planes
from respan_orchestrator.validation import write_mips, write_volumes

SPACING = VoxelSpacing(0.5, 0.102, 0.102)
SHAPE = (7, 20, 24)
REPORT = SilentReporter()
SIX = ["neuron", "putative spines", "spine ids", "neck ids", "dendrite ids", "skeleton"]
EIGHT = [*SIX, "to dendrite (µm)", "along dendrite (µm)"]


def store_of(
    folder: Path, largest_id: int = 300, distances: bool = False, roles: dict | None = None
) -> Path:
    store = folder / "cell.ome.zarr"
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 5000, (2, *SHAPE)).astype(np.uint16)
    with drafting_store(store, StageKey("ingest", {"file": "1"}), REPORT) as draft:
        image = draft.image("", raw.shape, SPACING, raw.dtype, ["C1", "C2"])
        for channel in (1, 2):
            image.write(whole(SHAPE), raw[channel - 1], channel)
        draft.publish()
    labels = {name: np.zeros(SHAPE, np.uint32) for name in ("heads", "necks", "dendrites")}
    labels["dendrites"][3, 4:8, :] = 2
    labels["heads"][2:4, 12, 5:7] = largest_id
    labels["necks"][3, 8:12, 5] = largest_id
    labels["skeleton"] = np.where(np.arange(SHAPE[1])[:, None] == 6, labels["dendrites"], 0)
    classes = np.where(labels["heads"] > 0, 1, np.where(labels["dendrites"] > 0, 2, 0))
    with drafting(store, StageKey("segmentation", {"raw": "1"}), REPORT) as draft:
        kept = {"roles": roles or {"spine": 1, "dendrite": 2}}
        group = draft.labels("labels/classes", SHAPE, SPACING, np.uint8, attributes=kept)
        group.write(whole(SHAPE), classes.astype(np.uint8))
        draft.publish()
    with drafting(store, StageKey("quantification", {"raw": "1"}), REPORT) as draft:
        for name, values in labels.items():
            group = draft.labels(f"labels/{name}", SHAPE, SPACING, np.uint32)
            group.write(whole(SHAPE), values.astype(np.uint32))
        if distances:
            shape = (2, *SHAPE)
            image = draft.image("distances", shape, SPACING, np.float32, ["to", "along"])
            z, y, x = np.indices(SHAPE, np.float32)
            image.write(whole(SHAPE), np.minimum(np.abs(z - 3) + np.abs(y - 6), 5), 1)
            image.write(whole(SHAPE), np.where(labels["dendrites"] > 0, x, np.nan), 2)
        draft.publish()
    return store


def written(write, store: Path, channel: int = 1) -> tuple[np.ndarray, list[str]]:
    path = write(store, store.parent / "out.tif", channel, REPORT)
    with tifffile.TiffFile(path) as tif:
        meta = tif.imagej_metadata
        assert (meta["unit"], meta["spacing"]) == ("micron", 0.5)
        return tif.asarray(), meta["Labels"]


def test_volumes_hold_every_voxel_of_all_channels_in_respans_order(tmp_path):
    store = store_of(tmp_path)
    volumes, labels = written(write_volumes, store, channel=2)
    assert volumes.shape == (SHAPE[0], 6, *SHAPE[1:])
    assert volumes.dtype == np.uint16
    assert labels == SIX * SHAPE[0]
    assert np.array_equal(volumes[:, 0], open_volume(store).read(channel=2))
    assert np.array_equal(volumes[:, 1], open_volume(store, "labels/heads").read() > 0)
    for channel, name in enumerate(("heads", "necks", "dendrites", "skeleton"), start=2):
        assert np.array_equal(volumes[:, channel], open_volume(store, f"labels/{name}").read())


def test_distances_are_channels_seven_and_eight(tmp_path):
    store = store_of(tmp_path, distances=True)
    volumes, labels = written(write_volumes, store)
    assert labels[:8] == EIGHT
    assert volumes.dtype == np.float32
    for channel in (1, 2):
        truth = open_volume(store, "distances").read(channel=channel)
        assert np.array_equal(volumes[:, 5 + channel], truth, equal_nan=True)


def test_projections_show_the_way_to_the_dendrite_and_ignore_voxels_without_value(tmp_path):
    mips, labels = written(write_mips, store_of(tmp_path, distances=True))
    assert labels == EIGHT
    assert np.array_equal(mips[6, :, 0], np.minimum(np.abs(np.arange(20) - 6), 5))
    assert np.array_equal(mips[7, 6], np.arange(24))
    assert np.isnan(mips[7, 10]).all()


def test_channels_keep_their_places_when_the_model_knows_no_spines(tmp_path):
    mips, labels = written(write_mips, store_of(tmp_path, roles={"dendrite": 2}))
    assert labels == SIX
    assert not mips[1].any()


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, "uint16"), (65_536, "float32")])
def test_ids_above_65535_do_not_wrap(tmp_path, largest, dtype):
    volumes, _ = written(write_volumes, store_of(tmp_path, largest))
    assert volumes.dtype == dtype
    assert volumes[:, 2].max() == largest


@pytest.mark.parametrize("write", [write_mips, write_volumes])
def test_ids_that_no_tiff_for_fiji_tells_apart_are_refused(tmp_path, write):
    store = store_of(tmp_path, 2**24)
    with pytest.raises(VolumeFormatError, match=r"spine ids .* reach 16777216"):
        write(store, tmp_path / "out.tif", 1, REPORT)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("write", [write_mips, write_volumes])
def test_pictures_do_not_depend_on_how_much_is_read_at_once(tmp_path, monkeypatch, write):
    store = store_of(tmp_path, distances=True)
    one, _ = written(write, store)
    monkeypatch.setattr(planes, "_SLAB_BYTES", 1)
    other, _ = written(write, store)
    assert np.array_equal(one, other, equal_nan=True)
