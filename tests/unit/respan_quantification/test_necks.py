import numpy as np
import pytest
from tests.unit.respan_quantification.phantoms import FINE, NECK, Scene, quantified

from respan_common.geometry import VoxelSpacing
from respan_quantification.necks import give_predicted_necks


def test_a_neck_that_touches_one_spine_is_all_that_spines():
    heads = np.zeros((3, 3, 12), np.uint32)
    heads[1, 1, :3] = 7
    necks = np.zeros(heads.shape, bool)
    necks[1, 1, 3:9] = True
    whole, loose = give_predicted_necks(heads, necks, FINE)
    assert whole[1, 1].tolist() == [7] * 9 + [0] * 3
    assert not loose.any()


def test_a_neck_between_two_spines_is_shared_by_the_way_inside_it():
    heads = np.zeros((3, 3, 12), np.uint32)
    heads[1, 1, 0], heads[1, 1, 11] = 4, 9
    necks = np.zeros(heads.shape, bool)
    necks[1, 1, 1:11] = True
    whole, _ = give_predicted_necks(heads, necks, FINE)
    assert whole[1, 1].tolist() == [4] * 6 + [9] * 6


def test_sharing_counts_micrometers_and_not_voxels():
    heads = np.zeros((9, 3, 9), np.uint32)
    heads[8, 1, 0], heads[0, 1, 8] = 1, 2
    necks = np.zeros(heads.shape, bool)
    necks[:8, 1, 0] = necks[0, 1, :8] = True
    whole, _ = give_predicted_necks(heads, necks, VoxelSpacing(1.0, 0.1, 0.1))
    assert whole[1, 1, 0] == 2
    assert whole[7, 1, 0] == 1


def test_a_neck_without_a_spine_is_loose():
    necks = np.zeros((3, 3, 12), bool)
    necks[1, 1, 4:6] = True
    whole, loose = give_predicted_necks(np.zeros(necks.shape, np.uint32), necks, FINE)
    assert whole.max() == 0
    assert (loose == necks).all()


def row_of_spines(count, gap_um=0.8):
    scene = Scene((3, 4, 2 + 2 * count), FINE).tube((1.5, 1, 0.5), (1.5, 1, 1.5 + 2 * count), 0.5)
    for n in range(count):
        scene.ball((1.5, 1.5 + gap_um + 0.3, 1.5 + 2 * n), 0.3)
    return scene


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_loose_piece_of_neck_finds_its_spine_whatever_its_number(count):
    scene = row_of_spines(count)
    for n in range(count):
        scene.tube((1.5, 1.75, 1.5 + 2 * n), (1.5, 2.05, 1.5 + 2 * n), 0.15, NECK)
    found = quantified(scene.classes, FINE)
    assert found.spine_table["attached"].tolist() == ["inferred"] * count
    assert (found.labels["spines"][scene.classes == NECK] > 0).all()


def test_an_inferred_neck_goes_around_another_spine():
    scene = Scene((4, 5, 8), FINE).tube((2, 1, 0.5), (2, 1, 7.5), 0.5)
    scene.ball((2, 1.9, 4), 0.4).ball((2, 3.1, 4), 0.4)
    found = quantified(scene.classes, FINE, spine_splitting="connected")
    table = found.spine_table.sort_values("y_um")
    assert table["attached"].tolist() == ["seen", "inferred"]
    assert table["neck_length"].iloc[1] > 1.2
    heads = found.labels["heads"]
    assert len(np.unique(heads)) == 3


def test_an_inferred_neck_follows_the_bright_way():
    scene = Scene((3, 5, 8), FINE).tube((1.5, 1, 0.5), (1.5, 1, 7.5), 0.5).ball((1.5, 3, 4), 0.3)
    detour = scene.tube_mask((1.5, 3, 4), (1.5, 2.2, 5), 0.2)
    detour |= scene.tube_mask((1.5, 2.2, 5), (1.5, 1, 5), 0.2)
    raw = np.where(detour | (scene.classes > 0), 500, 10).astype(np.uint16)[None]
    found = quantified(scene.classes, FINE, raw=raw)
    path = found.labels["necks"] > 0
    assert detour[path].mean() > 0.8


def test_no_neck_is_inferred_through_a_soma():
    scene = Scene((3, 4, 6), FINE).tube((1.5, 0.8, 0.5), (1.5, 0.8, 5.5), 0.5)
    scene.classes[:, 14:20][scene.classes[:, 14:20] == 0] = 3
    scene.ball((1.5, 2.6, 3), 0.4)
    assert quantified(scene.classes, FINE).spine_table["attached"].tolist() == ["none"]
