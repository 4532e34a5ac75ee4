import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tests.strategies import triples

from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing
from respan_quantification import shafts
from respan_quantification.census import merge, survey
from respan_quantification.frame import Frame
from respan_quantification.objects import components
from respan_quantification.shafts import (
    Lattice,
    Shafts,
    gather,
    halo_zyx,
    is_sampled,
    lattices,
    merge_shafts,
)

FINE = VoxelSpacing(0.1, 0.1, 0.1)
ODD = VoxelSpacing(0.37, 0.113, 0.091)
REACH_UM = 0.6
VOXELS = Lattice((1, 1, 1), 1.0, REACH_UM)
COARSE = Lattice((1, 3, 2), 0.3, REACH_UM)
SHAPE = (9, 26, 31)


def blobs(seed, shape=SHAPE, level=0.02):
    """Rounded objects, some thicker than `REACH_UM`, many of them cut by the image's faces."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, (1, 2.5, 2.5)) > level


def scene(seed):
    """Dendrites and somas of an image; they may touch."""
    somas = blobs(seed + 1000, level=0.06)
    return components(blobs(seed) & ~somas), components(somas)


def merged(dendrites, somas, spacing, lattice, block_zyx=None):
    """Every dendrite from its parts in blocks of that size; absent: from the image in one piece."""
    shape = dendrites.shape
    blocks = grid(shape, block_zyx or shape, halo_zyx(spacing, lattice.reach_um))
    chosen = dict.fromkeys(range(1, int(dendrites.max()) + 1), lattice)
    parts = [
        gather(dendrites[b.outer], somas[b.outer], Frame(b.outer, b.inner, shape, spacing), chosen)
        for b in blocks
    ]
    return {
        number: merge_shafts(
            [part.part(number) for part in parts if number in part.ids], lattice, spacing, shape
        )
        for number in chosen
    }


def one(mask, spacing=FINE, lattice=VOXELS):
    """The only dendrite of an image in one piece."""
    found = merged(mask.astype(np.uint32), np.zeros(mask.shape, np.uint32), spacing, lattice)
    return found[1]


@given(st.integers(0, 999), triples(6, 32), st.sampled_from([FINE, ODD]))
@settings(max_examples=12, deadline=None)
@pytest.mark.parametrize("lattice", [VOXELS, COARSE])
def test_blocks_give_what_the_whole_image_gives_wherever_they_cut(
    lattice, seed, block_zyx, spacing
):
    dendrites, somas = scene(seed)
    cut = merged(dendrites, somas, spacing, lattice, block_zyx)
    whole = merged(dendrites, somas, spacing, lattice)
    for number, expected in whole.items():
        found = cut[number]
        assert np.array_equal(found.cells, expected.cells)
        assert np.array_equal(found.radius_um, expected.radius_um)
        assert np.array_equal(found.samples, expected.samples)
        assert found.contact == expected.contact


def test_a_fine_lattice_keeps_every_voxel_and_its_distance():
    mask = np.zeros((7, 9, 12), bool)
    mask[2:5, 2:7, 2:10] = True
    found = one(mask, ODD)
    assert np.array_equal(found.cells, np.argwhere(mask))
    assert np.array_equal(found.samples, found.cells)
    truth = ndimage.distance_transform_edt(mask, ODD.zyx)
    assert found.radius_um == pytest.approx(truth[mask], rel=1e-6)


def test_a_cell_is_as_thick_as_its_thickest_voxel():
    mask = np.zeros((12, 12, 40), bool)
    mask[3:9, 3:9, 4:36] = True
    found = one(mask, lattice=Lattice((3, 3, 4), 1.0, 1.0))
    truth = ndimage.distance_transform_edt(mask, FINE.zyx)
    for cell, radius_um in zip(found.cells, found.radius_um, strict=True):
        z, y, x = (slice(c * f, (c + 1) * f) for c, f in zip(cell, (3, 3, 4), strict=True))
        assert radius_um == pytest.approx(truth[z, y, x].max(), rel=1e-6)


def test_what_is_thicker_than_the_halo_is_about_right_on_coarse_cells():
    z, y, x = np.indices((60, 60, 60)) - 29.5
    ball = z**2 + y**2 + x**2 <= 25**2
    found = one(ball, lattice=Lattice((2, 2, 2), 1.0, 1.0))
    assert found.radius_um.max() == pytest.approx(2.5, abs=0.2)


def test_faces_of_the_image_are_no_background():
    mask = np.zeros((6, 6, 20), bool)
    mask[:, :3] = True
    assert one(mask).radius_um.max() == pytest.approx(0.3)


def test_samples_are_the_wanted_share_and_spread_evenly():
    voxels = np.argwhere(np.ones((40, 50, 60), bool))
    chosen = voxels[is_sampled(voxels, 0.25)]
    assert len(chosen) == pytest.approx(0.25 * len(voxels), rel=0.02)
    assert chosen.mean(axis=0) == pytest.approx(voxels.mean(axis=0), rel=0.02)
    per_plane = np.bincount(chosen[:, 2])
    assert per_plane.min() > 0.8 * per_plane.mean()


def test_a_larger_share_contains_the_smaller():
    voxels = np.argwhere(np.ones((10, 20, 30), bool))
    few, many = is_sampled(voxels, 0.1), is_sampled(voxels, 0.6)
    assert not (few & ~many).any()
    assert is_sampled(voxels, 1.0).all()


def census_of_box(shape):
    frame = Frame.of_whole(shape, FINE)
    return merge([survey(np.ones(shape, bool), frame)])


def test_an_ordinary_dendrite_keeps_its_voxels():
    found = lattices(census_of_box((20, 30, 40)), FINE, 3.0)
    assert found == {1: Lattice((1, 1, 1), 1.0, 3.0)}
    assert found[1].is_fine


def test_cells_of_a_large_dendrite_are_as_few_as_allowed_and_nearly_cubic(monkeypatch):
    monkeypatch.setattr(shafts, "MOST_CELLS", 1000)
    monkeypatch.setattr(shafts, "SAMPLED_VOXELS", 2400)
    lattice = lattices(census_of_box((20, 30, 40)), VoxelSpacing(0.4, 0.1, 0.1), 3.0)[1]
    assert lattice.sample_share == pytest.approx(0.1)
    assert np.prod(np.ceil(np.divide((20, 30, 40), lattice.factor_zyx))) <= 1000
    z, y, x = lattice.factor_zyx
    assert z < y
    assert abs(y - x) <= 1


@pytest.mark.parametrize("lattice", [VOXELS, COARSE])
def test_a_blocks_part_survives_being_stored_as_arrays(tmp_path, lattice):
    dendrites, somas = scene(3)
    chosen = dict.fromkeys(range(1, int(dendrites.max()) + 1), lattice)
    part = gather(dendrites, somas, Frame.of_whole(SHAPE, FINE), chosen)
    np.savez(tmp_path / "part.npz", **part.arrays())
    with np.load(tmp_path / "part.npz") as stored:
        again = Shafts.of_arrays(stored)
    assert part.arrays().keys() == again.arrays().keys()
    assert all(np.array_equal(again.arrays()[k], v) for k, v in part.arrays().items())
    assert len(part.contacts.ids)


def test_a_block_without_dendrites_has_an_empty_part():
    nothing = np.zeros((4, 5, 6), np.uint32)
    part = gather(nothing, nothing + 1, Frame.of_whole(nothing.shape, FINE), {})
    assert not len(part.ids)
    assert not len(part.contacts.ids)


def test_a_dendrite_that_fills_the_image_has_a_finite_thickness():
    for lattice in (VOXELS, COARSE):
        assert np.isfinite(one(np.ones((5, 6, 7), bool), lattice=lattice).radius_um).all()
