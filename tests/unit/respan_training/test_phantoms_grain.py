"""Uneven dye: its statistics, and what of a phantom it changes."""

import numpy as np
import pytest

from respan_common.geometry import VoxelSpacing
from respan_training.phantoms.field import Field
from respan_training.phantoms.grain import Grain
from respan_training.phantoms.raster import Planes, averaging, project
from respan_training.phantoms.solids import balls

FIELD = Field((20, 30, 30), VoxelSpacing(0.2, 0.1, 0.1))
BALL = balls(np.full((1, 3), 1.5), np.array([0.9]), np.ones(1))


def at_random_places(strength, size_um, fields=40):
    """Factors at 500 places, 100 µm wide, of each of several random fields."""
    rng = np.random.default_rng(0)
    points_um = rng.uniform(0, 100, (500, 3))
    return np.array([Grain.draw(strength, size_um, rng).factor(points_um) for _ in range(fields)])


@pytest.mark.parametrize("strength", [0.1, 0.4, 0.8])
def test_the_factor_is_1_on_average_and_varies_by_its_strength(strength):
    factors = at_random_places(strength, 0.4)
    assert (factors > 0).all()
    assert factors.mean() == pytest.approx(1, abs=0.05)
    assert np.log(factors).std() == pytest.approx(strength, rel=0.05)


@pytest.mark.parametrize("size_um", [0.25, 0.8])
@pytest.mark.parametrize("axis", range(3))
def test_places_a_size_apart_are_alike_by_exp_minus_half(size_um, axis):
    rng = np.random.default_rng(1)
    points_um = rng.uniform(0, 100, (500, 3))
    pairs = []
    for _ in range(40):
        grain = Grain.draw(0.5, size_um, rng)
        pairs.append([grain.factor(points_um), grain.factor(points_um + size_um * np.eye(3)[axis])])
    one, other = np.log(np.array(pairs)).swapaxes(0, 1).reshape(2, -1)
    assert np.corrcoef(one, other)[0, 1] == pytest.approx(np.exp(-0.5), abs=0.05)


def test_strips_of_rows_give_the_same_grain_as_one_piece(monkeypatch):
    grain = Grain.draw(0.5, 0.3, np.random.default_rng(2))
    planes = Planes(FIELD, 1.0)
    (even,) = project(BALL, planes, [averaging(planes)])
    (whole,) = project(BALL, planes, [averaging(planes)], grain=grain)
    monkeypatch.setattr("respan_training.phantoms.raster.STRIP_VOXELS", 5000)
    (strips,) = project(BALL, planes, [averaging(planes)], grain=grain)
    np.testing.assert_allclose(strips, whole, atol=1e-6)
    assert not np.allclose(whole, even, atol=0.05)
    assert np.array_equal(whole > 0, even > 0)
    assert whole.sum() == pytest.approx(even.sum(), rel=0.15)


def test_no_light_stays_no_light():
    grain = Grain.draw(0.5, 0.3, np.random.default_rng(3))
    planes = Planes(FIELD, 0.0)
    nothing = BALL.subset(np.zeros(1, bool))
    (dark,) = project(nothing, planes, [averaging(planes)], grain=grain)
    assert not dark.any()
