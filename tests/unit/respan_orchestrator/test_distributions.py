import numpy as np
import pytest

from respan_orchestrator.distributions import densities, distribution, round_up, ticks


def test_nothing_measured_has_no_distribution() -> None:
    assert distribution("spine_vol", {}) is None
    assert distribution("spine_vol", {"A": [np.array([np.nan])]}) is None


def test_all_images_of_a_sub_folder_are_one_histogram() -> None:
    found = distribution("spine_vol", {"A": [np.array([1.0, 2.0]), np.array([9.0, np.nan])]})
    assert found is not None
    assert [(one.sub_folder, one.count, one.median) for one in found.histograms] == [("A", 3, 2.0)]


def test_shares_are_comparable_between_sub_folders() -> None:
    values = {"A": [np.array([0.1] * 10)], "B": [np.array([0.1] * 5 + [0.9] * 5)]}
    found = distribution("spine_length", values)
    assert found is not None
    a, b = found.histograms
    assert max(a.heights) == 1
    assert max(b.heights) == pytest.approx(0.5)


def test_one_giant_does_not_flatten_all_others() -> None:
    found = distribution("spine_vol", {"A": [np.append(np.linspace(0.1, 1, 999), 1e6)]})
    assert found is not None
    assert found.top < 2
    assert found.histograms[0].heights[-1] > 0
    assert "or more" in found.histograms[0].captions[-1]


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [5.0], [1e-9, 2e-9]])
def test_every_value_is_in_a_bar(values: list[float]) -> None:
    found = distribution("spine_vol", {"A": [np.array(values)]})
    assert found is not None
    assert max(found.histograms[0].heights) == 1
    assert found.top > 0


def test_images_without_a_density_are_no_points() -> None:
    found = densities([("A", "one", 1.0), ("A", "two", 2.0), ("B", "three", None)])
    assert found is not None
    assert [(row.sub_folder, row.mean, len(row.points)) for row in found.rows] == [("A", 1.5, 2)]
    assert densities([("A", "one", None)]) is None


def test_dendrites_without_spines_have_a_density_of_0() -> None:
    found = densities([("A", "one", 0.0)])
    assert found is not None
    assert found.rows[0].mean == 0
    assert found.top > 0


@pytest.mark.parametrize(("value", "rounded"), [(1, 1), (1.01, 1.5), (9, 10), (0.031, 0.04)])
def test_a_round_number_is_not_smaller(value: float, rounded: float) -> None:
    assert round_up(value) == pytest.approx(rounded)


@pytest.mark.parametrize("top", [1.0, 3.6, 0.024, 700.0])
def test_an_axis_has_a_few_ticks_within_it(top: float) -> None:
    assert 3 <= len(ticks(top)) <= 8
    assert max(ticks(top)) <= top * (1 + 1e-9)
