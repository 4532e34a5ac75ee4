import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import triples
from tests.unit.respan_quantification.phantoms import (
    DENDRITE,
    FINE,
    NECK,
    SOMA,
    SPINE,
    Scene,
    quantified,
)

from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing
from respan_quantification.frame import Frame
from respan_quantification.objects import boundary, components
from respan_quantification.somas import SomaSurface, soma_balls, soma_moments, soma_surface

ODD = VoxelSpacing(0.37, 0.113, 0.091)


def frames(shape, block_zyx):
    blocks = grid(shape, block_zyx, (1, 1, 1))
    return [Frame(block.outer, block.inner, shape, ODD) for block in blocks]


@st.composite
def somas(draw):
    shape = draw(triples(1, 9))
    share = draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    return components(np.random.default_rng(draw(st.integers(0, 999))).random(shape) < share)


@given(somas(), triples(1, 9))
def test_blocks_give_the_surface_of_the_whole_image_wherever_they_cut(labels, block_zyx):
    parts = [soma_surface(labels[f.outer], f) for f in frames(labels.shape, block_zyx)]
    found = SomaSurface.joined(parts[::-1])
    shell = boundary(labels)
    assert np.array_equal(found.index_zyx, np.argwhere(shell))
    assert np.array_equal(found.ids, labels[shell])


@given(somas(), triples(1, 9))
def test_blocks_give_the_balls_of_the_whole_image_wherever_they_cut(labels, block_zyx):
    parts = [soma_moments(labels[f.inner], f) for f in frames(labels.shape, block_zyx)]
    whole = soma_moments(labels, Frame.of_whole(labels.shape, ODD))
    assert soma_balls(parts, ODD) == soma_balls([whole], ODD)


@given(somas())
def test_a_ball_has_its_somas_volume_and_centroid(labels):
    balls = soma_balls([soma_moments(labels, Frame.of_whole(labels.shape, ODD))], ODD)
    assert len(balls) == labels.max()
    for number, ball in balls.items():
        index = np.argwhere(labels == number)
        assert ball.center_um == pytest.approx(ODD.points_um(index).mean(axis=0))
        volume_um3 = 4 / 3 * np.pi * ball.radius_um**3
        assert volume_um3 == pytest.approx(len(index) * ODD.voxel_volume_um3)


def test_an_image_without_somas_has_neither_surface_nor_balls():
    assert not len(SomaSurface.joined([]).ids)
    assert soma_balls([], ODD) == {}


def cell_with_a_thick_place(value):
    """A soma of 4.2 µm³, its dendrite, and in it a ball of 0.5 µm³ with two spines."""
    scene = Scene((3, 4, 12), FINE).ball((1.5, 1.5, 1.5), 1.0, SOMA)
    scene.ball((1.5, 1.5, 7.0), 0.5, value)
    scene.tube((1.5, 1.5, 1.5), (1.5, 1.5, 11.5), 0.3)
    scene.tube((1.5, 1.5, 7.0), (1.5, 2.6, 7.0), 0.1, NECK).ball((1.5, 2.8, 7.0), 0.25, SPINE)
    scene.ball((1.5, 0.4, 7.0), 0.25, SPINE)
    return scene.classes


@pytest.mark.parametrize("block_zyx", [None, (8, 16, 16), (7, 40, 70), (30, 15, 71)])
def test_what_is_too_small_for_a_soma_is_measured_as_dendrite(block_zyx):
    found = quantified(
        cell_with_a_thick_place(SOMA), FINE, block_zyx=block_zyx, min_soma_volume_um3=2.0
    )
    known = quantified(cell_with_a_thick_place(DENDRITE), FINE)
    for name in ("dendrites", "soma", "spines", "necks", "skeleton"):
        assert np.array_equal(found.labels[name], known.labels[name]), name
    assert found.dendrite_table["soma_id"].tolist() == [1]
    assert (len(found.dendrite_table), len(found.spine_table)) == (1, 2)
    for name in ("dendrite_table", "spine_table"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(known, name))


def test_by_default_every_soma_is_one_and_parts_its_dendrites():
    found = quantified(cell_with_a_thick_place(SOMA), FINE)
    assert found.labels["soma"].max() == 2
    assert len(found.dendrite_table) == 2


def test_an_image_whose_somas_are_all_too_small_has_none():
    found = quantified(cell_with_a_thick_place(SOMA), FINE, min_soma_volume_um3=100.0)
    assert not found.labels["soma"].any()
    assert found.dendrite_table["soma_id"].isna().all()
    assert len(found.dendrite_table) == 1
