import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tests.strategies import triples

from respan_common.geometry import VoxelSpacing
from respan_quantification.objects import (
    Runs,
    Voxels,
    boundary,
    box_of,
    boxes,
    components,
    keep,
    touches_faces,
    volumes_um3,
    voxel_counts,
)

SPACING = VoxelSpacing(0.3, 0.1, 0.2)


@st.composite
def masks(draw):
    shape = draw(triples(1, 8))
    share = draw(st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 999))).random(shape) < share


@st.composite
def label_images(draw):
    """Any ids in any places: objects may touch, hang apart, or miss a number."""
    shape = draw(triples(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return rng.choice([0, 0, 0, 1, 2, 4], size=shape).astype(np.uint32)


@given(masks())
def test_components_cover_exactly_the_mask_and_are_those_of_scipy(mask):
    labels = components(mask)
    expected, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert labels.dtype == np.uint32
    assert np.array_equal(labels > 0, mask)
    assert labels.max() == count
    pairs = np.unique(np.stack([labels[mask], expected[mask]]), axis=1)
    assert pairs.shape[1] == count


@given(masks())
def test_components_are_numbered_by_their_first_voxel(mask):
    labels = components(mask)
    firsts = [np.flatnonzero(labels == n)[0] for n in range(1, labels.max() + 1)]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 3), (3, 3, 3), (1, 101, 101), (5, 1, 1)])
def test_a_lattice_of_dots_is_as_many_components(shape):
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    labels = components(mask)
    assert labels.shape == shape
    assert labels.max() == mask.sum()


def test_voxels_that_share_a_corner_belong_together():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert components(mask).max() == 1


@given(masks() | label_images())
def test_runs_cover_exactly_the_objects_and_have_one_label_each(objects):
    runs = Runs.of(objects)
    drawn = np.zeros_like(objects)
    for low, high in zip(runs.index_zyx, runs.stops_zyx, strict=True):
        run = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert not drawn[run].any()
        drawn[run] = objects[tuple(low)]
    assert np.array_equal(drawn, objects)
    assert runs.lengths.sum() == (objects != 0).sum()


@given(masks())
def test_no_run_of_a_mask_follows_another_without_a_gap(mask):
    runs = Runs.of(mask)
    stops = runs.stops_zyx - [1, 1, 0]
    beyond = {tuple(stop) for stop in stops.tolist()}
    assert not beyond & {tuple(start) for start in runs.index_zyx.tolist()}
    linear = np.ravel_multi_index(tuple(runs.index_zyx.T), mask.shape)
    assert (np.diff(linear) > 0).all()


@given(label_images())
def test_counts_are_those_of_the_voxels(labels):
    counts = voxel_counts(labels)
    assert counts.sum() == labels.size
    assert all(counts[n] == (labels == n).sum() for n in range(len(counts)))


@given(label_images())
def test_a_volume_is_voxels_times_a_voxels_volume_and_the_background_has_none(labels):
    volumes = volumes_um3(labels, SPACING)
    assert volumes[0] == 0
    assert volumes.sum() == pytest.approx((labels > 0).sum() * 0.3 * 0.1 * 0.2)


@given(label_images(), st.lists(st.booleans(), min_size=5, max_size=5))
def test_what_is_kept_is_renumbered_without_gaps_in_the_old_order(labels, flags):
    kept = keep(labels, np.array(flags))
    survivors = [n for n in range(1, 5) if flags[n]]
    for new, old in enumerate(survivors, start=1):
        assert np.array_equal(kept == new, labels == old)
    assert kept.max() <= len(survivors)


def test_keeping_everything_changes_nothing():
    labels = components(np.random.default_rng(0).random((5, 6, 7)) < 0.1)
    assert np.array_equal(keep(labels, np.ones(int(labels.max()) + 1, bool)), labels)


@given(label_images())
def test_boxes_are_tight_and_belong_to_the_ids_that_occur(labels):
    found = boxes(labels)
    assert set(found) == set(np.unique(labels[labels > 0]).tolist())
    for number, box in found.items():
        assert box == ndimage.find_objects(labels)[number - 1]


def test_ids_larger_than_the_array_have_boxes():
    labels = np.array([[[0, 4_000_000_000]]], np.uint32)
    assert boxes(labels) == {4_000_000_000: (slice(0, 1), slice(0, 1), slice(1, 2))}


@given(masks())
def test_the_box_of_a_mask_is_tight(mask):
    if mask.any():
        assert box_of(mask) == ndimage.find_objects(mask.astype(int))[0]


def test_a_box_at_a_face_touches_it_along_that_axis_only():
    box = (slice(0, 2), slice(1, 3), slice(2, 5))
    shape = (4, 4, 5)
    assert touches_faces(box, shape, (0,))
    assert not touches_faces(box, shape, (1,))
    assert touches_faces(box, shape, (2,))
    assert touches_faces(box, shape, (0, 1, 2))
    assert not touches_faces(box, shape, ())


@given(label_images())
def test_a_boundary_voxel_has_a_face_neighbor_of_another_object(labels):
    z, y, x = labels.shape
    around = np.pad(labels, 1, mode="edge")
    faces = [
        around[1 + a : 1 + a + z, 1 + b : 1 + b + y, 1 + c : 1 + c + x]
        for a, b, c in [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
    ]
    differs = np.any([face != labels for face in faces], axis=0)
    assert np.array_equal(boundary(labels), differs & (labels > 0))


def test_an_object_that_fills_the_array_has_no_boundary():
    assert not boundary(np.ones((3, 4, 5), np.uint32)).any()


@given(label_images())
def test_voxels_are_all_those_of_the_objects_sorted_by_id(labels):
    voxels = Voxels.of(labels)
    assert len(voxels.ids) == (labels > 0).sum()
    assert np.array_equal(labels[tuple(voxels.index_zyx.T)], voxels.ids)
    assert (np.diff(voxels.ids.astype(int)) >= 0).all()
    for number, rows in voxels.groups():
        assert np.array_equal(voxels.index_zyx[rows], np.argwhere(labels == number))


@given(label_images())
def test_sums_and_extremes_are_taken_object_by_object(labels):
    voxels = Voxels.of(labels)
    values = np.random.default_rng(0).normal(size=len(voxels.ids))
    each = [values[voxels.ids == n] for n in voxels.present]
    assert voxels.counts.tolist() == [len(one) for one in each]
    assert voxels.minimum(values).tolist() == [one.min() for one in each]
    assert voxels.maximum(values).tolist() == [one.max() for one in each]
    assert voxels.total(values) == pytest.approx([one.sum() for one in each])


@given(label_images())
def test_a_part_holds_the_chosen_voxels_and_the_ids_that_still_occur(labels):
    voxels = Voxels.of(labels)
    chosen = voxels.index_zyx[:, 2] % 2 == 0
    part = voxels.part(chosen)
    assert np.array_equal(part.index_zyx, voxels.index_zyx[chosen])
    assert part.present.tolist() == np.unique(part.ids).tolist()
    assert part.counts.sum() == chosen.sum()


def test_absent_objects_are_missing_in_a_column():
    labels = np.array([[[1, 0, 3]]], np.uint32)
    column = Voxels.of(labels).column(np.array([5.0, 7.0]), 4)
    assert np.array_equal(column, [5.0, np.nan, 7.0, np.nan], equal_nan=True)


def test_no_object_has_no_voxel_and_no_sum():
    nothing = Voxels.of(np.zeros((2, 3, 4), np.uint32))
    assert not len(nothing.ids)
    assert not len(nothing.counts)
    assert not len(nothing.total(np.zeros(0)))
    assert list(nothing.groups()) == []
    assert boxes(np.zeros((2, 3, 4), np.uint32)) == {}
