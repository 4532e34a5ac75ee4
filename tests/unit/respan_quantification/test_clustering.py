import numpy as np
import pytest
from tests.unit.respan_quantification.test_network import arbor, straight

from respan_quantification import columns
from respan_quantification.clustering import clustering

NAMES = set(columns.names(columns.dendrite(1)))


def along(network, positions):
    return network.feet(np.ones(len(positions), np.int64), np.asarray(positions, float))


def test_regular_spines_are_farther_apart_than_chance():
    network = straight(100.0)
    found = clustering(network, along(network, np.arange(50) * 2 + 1))
    assert found["nearest_neighbor_mean_um"] == pytest.approx(2.0)
    # On a line, the nearest of two random neighbors is half the mean gap away.
    assert found["nearest_neighbor_ratio"] == pytest.approx(2.0, rel=0.1)
    assert found["nearest_neighbor_p"] == pytest.approx(2 / 200)
    assert found["k_ratio_1um"] == 0


def test_clustered_spines_are_nearer_than_chance_and_have_more_pairs():
    network = straight(200.0, 801)
    centers = np.random.default_rng(0).uniform(5, 195, 12)
    positions = (centers[:, None] + np.arange(5) * 0.3).ravel()
    found = clustering(network, along(network, positions))
    assert found["nearest_neighbor_ratio"] < 0.5
    assert found["nearest_neighbor_p"] == pytest.approx(2 / 200)
    for radius in (1, 2, 5):
        assert found[f"k_ratio_{radius}um"] > found[f"k_high_{radius}um"]


def test_random_spines_are_significant_as_often_as_chance_has_it():
    network, random = arbor(5, 200), np.random.default_rng(1)
    found = [clustering(network, network.random_feet(20, random), seed) for seed in range(60)]
    p = np.array([one["nearest_neighbor_p"] for one in found])
    # 5 % of 60 is 3; ten or more would happen once in a thousand times.
    assert (p <= 0.05).sum() < 10
    assert 0.35 < p.mean() < 0.65
    ratios = np.array([one["nearest_neighbor_ratio"] for one in found])
    assert ratios.mean() == pytest.approx(1, abs=0.1)
    inside = [one["k_low_2um"] <= one["k_ratio_2um"] <= one["k_high_2um"] for one in found]
    assert np.mean(inside) > 0.85


def test_forks_do_not_look_like_clusters():
    network = arbor(9, 400)
    random = np.random.default_rng(2)
    ratios = [
        clustering(network, network.random_feet(40, random), seed)["k_ratio_5um"]
        for seed in range(20)
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_a_single_spine_has_no_spread():
    network = straight()
    assert clustering(network, along(network, [3.0])) == {}
    assert clustering(network, along(network, [])) == {}


def test_the_same_spines_have_the_same_statistics_and_every_one_is_a_column():
    network = straight()
    feet = along(network, [1.0, 4.0, 60.0])
    assert clustering(network, feet) == clustering(network, feet)
    assert set(clustering(network, feet)) <= NAMES


def test_many_spines_have_fewer_placements_but_enough():
    network = straight(1000.0, 2001)
    feet = network.random_feet(2000, np.random.default_rng(0))
    assert clustering(network, feet)["random_placements"] == 39
