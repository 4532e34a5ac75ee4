"""Surfaces of real spines; skipped where they are not at hand (see RESPAN_TEST_DATA)."""

import pytest
from bench.spine_shapes import compare, data_folder, summary

from respan_common.geometry import VoxelSpacing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not data_folder().is_dir(), reason=f"no {data_folder()}"),
]


@pytest.fixture(scope="module")
def found():
    table = summary(compare(data_folder(), VoxelSpacing(0.04, 0.04, 0.04)))
    return table.set_index(["surfaces", "measure"])


@pytest.mark.parametrize("surfaces", ["dxplorer", "microns"])
def test_volumes_are_those_of_the_closed_surfaces(found, surfaces):
    row = found.loc[surfaces, "volume of the closed surface"]
    assert row["correlation"] > 0.999
    assert row["median ratio"] == pytest.approx(1, abs=0.01)


def test_lengths_are_those_of_electron_microscopy(found):
    row = found.loc["microns", "length"]
    assert row["correlation"] > 0.99
    assert row["median ratio"] == pytest.approx(1, abs=0.03)


def test_lengths_and_diameters_rank_spines_as_others_do(found):
    least = {"length": 0.97, "head_diameter": 0.9, "neck_diameter": 0.7}
    for measure, correlation in least.items():
        assert found.loc["dxplorer", measure]["correlation"] > correlation
