import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from respan_common.geometry import VoxelSpacing
from respan_quantification.contacts import SOMA_GAP_UM, find_contacts, reach_zyx
from respan_quantification.frame import Frame
from respan_quantification.growth import Contact

FINE = VoxelSpacing(0.1, 0.1, 0.1)
COARSE = VoxelSpacing(0.4, 0.15, 0.1)


def contacts(dendrites, somas, spacing=FINE):
    return find_contacts(dendrites, somas, Frame.of_whole(dendrites.shape, spacing))


def bar(gap_voxels, spacing=FINE):
    """Contact of a bar along x and a soma so many voxels beyond its end."""
    dendrites, somas = np.zeros((2, 5, 5, 40), np.uint32)
    dendrites[2, 2, :20] = 7
    somas[:, :, 20 + gap_voxels :] = 3
    return contacts(dendrites, somas, spacing).of(7)


@pytest.mark.parametrize("gap_voxels", range(6))
def test_the_gap_is_that_between_the_facing_sides(gap_voxels):
    found = bar(gap_voxels)
    assert found.gap_um == pytest.approx(0.1 * gap_voxels)
    assert (found.voxel_zyx, found.soma_id) == ((2, 2, 19), 3)


def test_what_is_farther_than_half_a_micron_is_no_contact():
    assert bar(6) is None


def brute_force(dendrites, somas, spacing):
    """For each dendrite the least (gap, way between centers, voxel, soma)."""
    found = {}
    for a, b in itertools.product(np.argwhere(dendrites), np.argwhere(somas)):
        way = float(np.linalg.norm((a - b) * spacing.zyx))
        gap = round(way * (1 - 1 / np.abs(a - b).max()), 9)
        if gap <= SOMA_GAP_UM:
            one = (gap, round(way, 9), tuple(a.tolist()), int(somas[tuple(b)]))
            number = int(dendrites[tuple(a)])
            found[number] = min(found.get(number, one), one)
    return {n: Contact(voxel, soma, gap) for n, (gap, _, voxel, soma) in found.items()}


@given(st.integers(0, 9999), st.sampled_from([FINE, COARSE]))
def test_the_nearest_of_all_pairs_is_found(seed, spacing):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 14, 3)
    kinds = rng.choice(3, size=shape, p=[0.97, 0.02, 0.01])
    ids = rng.integers(1, 4, size=shape)
    dendrites = np.where(kinds == 1, ids, 0).astype(np.uint32)
    somas = np.where(kinds == 2, ids, 0).astype(np.uint32)
    found = contacts(dendrites, somas, spacing)
    expected = brute_force(dendrites, somas, spacing)
    assert {int(n): found.of(int(n)) for n in found.ids} == expected


def test_equal_contacts_are_settled_by_raster_order_and_the_smaller_soma():
    dendrites, somas = np.zeros((2, 1, 3, 9), np.uint32)
    dendrites[0, 1, 2:7] = 1
    somas[0, 0, 2:7:2], somas[0, 2, 2:7:2] = 5, 4
    assert contacts(dendrites, somas).of(1) == Contact((0, 1, 2), 4, 0.0)


def test_nothing_in_contact_lies_beyond_the_reach():
    for spacing in (FINE, COARSE, VoxelSpacing(1, 0.05, 0.07)):
        for axis, (size, edge) in enumerate(zip(reach_zyx(spacing), spacing.zyx, strict=True)):
            assert size * edge - edge <= SOMA_GAP_UM + 1e-9 < (size + 1) * edge - edge, axis


def test_without_somas_there_is_no_contact():
    dendrites = np.ones((3, 3, 3), np.uint32)
    assert not len(contacts(dendrites, np.zeros_like(dendrites)).ids)
