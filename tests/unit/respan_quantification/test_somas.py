import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import triples

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
