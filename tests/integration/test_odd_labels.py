"""Classes that hold nothing, everything or next to nothing, as the stage finds them in a store."""

import numpy as np
import pandas as pd
import pytest
from tests.integration.test_quantification import FILES, LABELS, grey, publish
from tests.unit.respan_quantification.phantoms import DENDRITE, NECK, SOMA, SPINE, one_spine

from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_common.schemes import SCHEMES
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_quantification import stage

SPACING = VoxelSpacing(0.3, 0.1, 0.1)
SHAPE = (6, 24, 30)
ONE_THREAD = Runtime("cpu", 1)


def quantified(store, classes, raw=None, scheme=3, spacing=SPACING, **params):
    """Record and tables of a store with these classes."""
    image = grey(classes) if raw is None else raw
    publish(store, classes, image, spacing, roles=SCHEMES[scheme])
    values = QuantificationParams(**({"min_dendrite_volume_um3": 0.0} | params))
    record = stage.run(stage.QuantificationJob(store, values, ONE_THREAD), SilentReporter())
    spines, dendrites = (pd.read_parquet(store / name) for name in FILES[:2])
    return record, spines, dendrites


@pytest.fixture(scope="module")
def usual_columns(tmp_path_factory):
    """Columns of the tables of an ordinary image."""
    store = tmp_path_factory.mktemp("usual") / "cell.ome.zarr"
    scene = one_spine()
    _, spines, dendrites = quantified(store, scene.classes, spacing=scene.spacing)
    assert len(spines) == len(dendrites) == 1
    return list(spines.columns), list(dendrites.columns)


def filled(value, shape=SHAPE):
    return np.full(shape, value, np.uint8)


def one_voxel(value):
    classes = filled(0)
    classes[3, 12, 15] = value
    return classes


@pytest.mark.parametrize(
    ("scheme", "shape"), [(1, (1, 24, 30)), (2, (1, 1, 30)), (3, SHAPE), (4, (1, 1, 1))]
)
def test_one_class_everywhere_or_none_at_all_is_a_result(tmp_path, usual_columns, scheme, shape):
    for value in (0, *SCHEMES[scheme].values()):
        store = tmp_path / f"{value}.ome.zarr"
        record, spines, dendrites = quantified(store, filled(value, shape), scheme=scheme)
        assert (list(spines.columns), list(dendrites.columns)) == usual_columns
        assert (len(spines), record.numbers["spines"]) == (0, 0)
        is_dendrite = value == SCHEMES[scheme]["dendrite"]
        assert len(dendrites) == record.numbers["dendrites"] == int(is_dendrite)
        assert record.warnings
        for name in LABELS[:3]:
            assert not open_volume(store, f"labels/{name}").read().any()


@pytest.mark.parametrize("value", [SPINE, DENDRITE, SOMA, NECK])
def test_a_single_voxel_is_a_result(tmp_path, value):
    record, spines, dendrites = quantified(tmp_path / "cell.ome.zarr", one_voxel(value))
    assert len(spines) == 0
    assert len(dendrites) == record.numbers["dendrites"] == int(value == DENDRITE)


def test_a_spine_of_one_voxel_on_a_dendrite_is_measured(tmp_path):
    classes = filled(0)
    classes[3, 10:14] = DENDRITE
    classes[3, 14, 15] = SPINE
    _, spines, _ = quantified(tmp_path / "cell.ome.zarr", classes, min_spine_volume_um3=0.0)
    assert len(spines) == 1
    assert spines["head_vol"].iloc[0] == pytest.approx(SPACING.voxel_volume_um3)


def test_values_without_a_meaning_are_nothing(tmp_path):
    scene = one_spine()
    odd = scene.classes.copy()
    odd[:4, :4] = 9  # far from the spine: what is near it and not 0 is no background, either
    raw = grey(scene.classes)
    tables = [
        quantified(tmp_path / f"{n}.ome.zarr", classes, raw, spacing=scene.spacing)[1]
        for n, classes in enumerate((scene.classes, odd))
    ]
    pd.testing.assert_frame_equal(*tables)


def test_intensities_that_are_no_numbers_spoil_no_other_measurement(tmp_path):
    scene = one_spine()
    raw = grey(scene.classes).astype(np.float32)
    _, whole, _ = quantified(tmp_path / "whole.ome.zarr", scene.classes, raw, spacing=scene.spacing)
    raw[(0, *np.argwhere(scene.classes == SPINE)[0])] = np.nan
    _, holed, _ = quantified(tmp_path / "holed.ome.zarr", scene.classes, raw, spacing=scene.spacing)
    assert len(holed) == len(whole) == 1
    for column in ("head_vol", "spine_length", "neck_length", "head_C2_mean_int"):
        assert holed[column].iloc[0] == pytest.approx(whole[column].iloc[0], nan_ok=True)
    mean = holed["head_C1_mean_int"].iloc[0]
    assert np.isnan(mean) or mean == pytest.approx(whole["head_C1_mean_int"].iloc[0])
