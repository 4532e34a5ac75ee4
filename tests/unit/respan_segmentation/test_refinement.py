"""A second look at spines, where both looks are known by construction."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tests.nnunet_models import write_random_model

from respan_common.geometry import VoxelSpacing, whole
from respan_common.model_folders import describe
from respan_common.params import SegmentationParams
from respan_segmentation.refinement import Refinement

CUBE, FLAT = VoxelSpacing(0.5, 0.5, 0.5), VoxelSpacing(1.0, 0.25, 0.25)
LABELS = {"background": 0, "spine": 1, "dendrite": 2, "soma": 3, "neck": 4}
ROLES = {name: value for name, value in LABELS.items() if value}
SPINE, DENDRITE, SOMA, NECK = 1, 2, 3, 4
SHAPE = (16, 40, 40)


class Greys:
    """A stand-in for a model: class k where the image is 100 k."""

    devices = (torch.device("cpu"),)

    def __init__(self, classes):
        self.values = torch.arange(classes, dtype=torch.float32).view(-1, 1, 1, 1)

    def predictor(self, **options):
        return lambda windows: (-(window / 100 - self.values).abs() for window in windows)


class Memory:
    """An image that is written shard by shard, each exactly once."""

    def __init__(self, shape, shard):
        self.shape_zyx, self.block_zyx = shape, shard
        self.values = np.full(shape, 255, np.uint8)

    def write(self, box, values, channel=1):
        assert (self.values[box] == 255).all()
        self.values[box] = values


@pytest.fixture
def refine(tmp_path):
    """Function from the first model's classes and the second's to refined classes and counts."""

    def refined(
        first, seen, *, spacing=CUBE, margin_um=1.0, shard=None, roles=ROLES, labels=LABELS
    ):
        folder = write_random_model(
            tmp_path / "second",
            labels=labels,
            patch=(8, 8, 8),
            normalization="NoNormalization",
        )
        image, counts = Memory(first.shape, shard or first.shape), []
        refinement = Refinement(
            "refined",
            describe(folder),
            Greys(len(labels)),
            SegmentationParams(refinement_margin_um=margin_um),
            roles,
            lambda box: 100.0 * seen[box],
            lambda box: first[box],
            image,
            spacing,
            lambda: None,
            lambda shard, *found: counts.append(found),
        )
        for column in refinement.columns(whole(first.shape)):
            assert list(refinement.sweep(column)) == column
        assert (image.values < 255).all()
        return image.values, np.sum(counts, axis=0).tolist()

    return refined


def scene(*parts, shape=SHAPE):
    """Classes from boxes and the value that each has."""
    classes = np.zeros(shape, np.uint8)
    for box, value in parts:
        classes[box] = value
    return classes


A = np.s_[4:8, 10:14, 10:14]
A_BETTER = np.s_[5:9, 9:13, 11:15]
B = np.s_[4:8, 26:30, 26:30]


def test_an_object_is_replaced_by_what_the_second_model_sees(refine):
    first, seen = scene((A, SPINE), (B, SPINE)), scene((A_BETTER, SPINE), (B, NECK))
    found, counts = refine(first, seen)
    np.testing.assert_array_equal(found, seen)
    assert counts == [2, 0]


def test_what_does_not_overlap_the_object_is_not_added(refine):
    beside = np.s_[4:8, 10:14, 15:16]
    found, _ = refine(scene((A, SPINE)), scene((A, SPINE), (beside, SPINE)))
    np.testing.assert_array_equal(found, scene((A, SPINE)))


def test_an_object_that_the_second_model_denies_vanishes(refine):
    found, counts = refine(scene((A, SPINE), (B, SPINE)), scene((B, SPINE)))
    np.testing.assert_array_equal(found, scene((B, SPINE)))
    assert counts == [2, 0]


def test_an_object_becomes_what_the_second_model_says_it_is(refine):
    upper, lower = np.s_[4:6, 10:14, 10:14], np.s_[6:8, 10:14, 10:14]
    seen = scene((upper, DENDRITE), (lower, SOMA))
    found, _ = refine(scene((A, SPINE)), seen)
    np.testing.assert_array_equal(found, seen)


LONG = np.s_[4:8, 16:17, 2:30]
"""14 µm."""


def test_a_too_large_object_stays_as_it_is(refine):
    first = scene((LONG, SPINE), (A, SPINE))
    found, counts = refine(first, scene((A, NECK)))
    np.testing.assert_array_equal(found, scene((LONG, SPINE), (A, NECK)))
    assert counts == [1, 1]


def test_other_objects_keep_their_voxels(refine):
    first = scene((A, SPINE), (LONG, NECK))
    everything = np.s_[4:8, 10:18, 10:14]
    found, _ = refine(first, scene((everything, SPINE)))
    grown = np.s_[4:8, 10:16, 10:14]
    np.testing.assert_array_equal(found, scene((grown, SPINE), (LONG, NECK)))


def test_objects_and_their_looks_may_lie_at_the_images_borders(refine):
    corners = [np.s_[0:3, 0:4, 0:4], np.s_[13:16, 36:40, 36:40]]
    first = scene(*[(corner, SPINE) for corner in corners])
    seen = scene(*[(corner, NECK) for corner in corners])
    found, counts = refine(first, seen)
    np.testing.assert_array_equal(found, seen)
    assert counts == [2, 0]


@pytest.mark.parametrize(("spacing", "margin"), [(CUBE, (2, 2, 2)), (FLAT, (1, 4, 4))])
def test_nothing_beyond_the_margin_changes(refine, spacing, margin):
    first = scene((A, SPINE))
    first[12:] = DENDRITE
    found, _ = refine(first, np.full(SHAPE, SPINE), spacing=spacing)
    around = tuple(slice(s.start - m, s.stop + m) for s, m in zip(A, margin, strict=True))
    expected = first.copy()
    expected[around] = SPINE
    np.testing.assert_array_equal(found, expected)


def test_heads_and_necks_are_translated_between_label_sets(refine):
    fine = {"background": 0, "dendrite": 1, "spine core": 2, "spine membrane": 3, "neck": 4}
    parts = [np.s_[4:8, 10:14, x : x + 1] for x in range(10, 14)]
    seen = scene(*zip(parts, (1, 2, 3, 4), strict=True))
    found, _ = refine(scene((A, SPINE)), seen, labels=fine)
    wanted = (DENDRITE, SPINE, SPINE, NECK)
    np.testing.assert_array_equal(found, scene(*zip(parts, wanted, strict=True)))


def test_a_spine_is_a_core_where_the_image_has_cores(refine):
    roles = {"dendrite": 1, "spine_core": 2, "spine_shell": 3}
    found, _ = refine(scene((A, 3)), scene((A, SPINE)), roles=roles)
    np.testing.assert_array_equal(found, scene((A, 2)))


def clouds(seed, share):
    """Irregular objects of all sizes, many of which nearly touch."""
    noise = np.random.default_rng(seed).normal(size=(20, 60, 60))
    values = gaussian_filter(noise, (1.0, 2.0, 2.0))
    return np.where(values > np.quantile(values, 1 - share), values, 0)


@pytest.mark.parametrize("margin_um", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shard", [(5, 20, 15), (20, 8, 60), (3, 60, 7)])
def test_the_result_does_not_depend_on_where_shards_end(refine, shard, margin_um):
    first = np.where(clouds(0, 0.12) > 0, SPINE, 0).astype(np.uint8)
    first[clouds(1, 0.1) > 0] = DENDRITE
    seen = np.where(clouds(2, 0.3) > 0, NECK, 0)
    seen[clouds(0, 0.2) > 0] = SPINE
    how = {"spacing": VoxelSpacing(1.0, 0.5, 0.5), "margin_um": margin_um}
    expected, counts = refine(first, seen, **how)
    found, in_shards = refine(first, seen, shard=shard, **how)
    np.testing.assert_array_equal(found, expected)
    assert in_shards[0] == counts[0] > 10
    assert (expected != first).any()


def test_an_object_across_shards_equals_the_same_object_inside_one(refine):
    first, seen = scene((A, SPINE)), scene((A_BETTER, SPINE))
    expected, _ = refine(first, seen)
    found, counts = refine(first, seen, shard=(6, 12, 12))
    np.testing.assert_array_equal(found, expected)
    assert counts == [1, 0]
