"""Heads whose place is known, in slices that are thicker than they are."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage as ndi

from respan_common.geometry import VoxelSpacing, grow, relative
from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.light import centers_of_light
from respan_quantification.objects import Voxels, box_of

THICK = VoxelSpacing(1.0, 0.1, 0.1)
SHAPE = (9, 30, 30)
FOLD = 20
SPINE, DENDRITE, NECK = 1, 2, 4
BACKGROUND = 50.0


def center_of(classes, grey, background=BACKGROUND, spacing=THICK, box=None):
    """Center, in voxels of the whole image, of the one head in a class image, seen in a box."""
    frame = Frame.of_whole(classes.shape, spacing)
    if box is not None:
        frame = Frame(box, box, classes.shape, spacing)
        classes, grey = classes[box], grey[box]
    voxels = Voxels.of(np.isin(classes, (SPINE, NECK)).astype(np.uint32))
    heads = voxels.part(classes[tuple(voxels.index_zyx.T)] == SPINE)
    (center,) = centers_of_light(
        heads,
        SimpleNamespace(voxels=voxels),
        frame,
        ClassImage(classes, {"spine": SPINE, "dendrite": DENDRITE, "neck": NECK}),
        (classes == DENDRITE).astype(np.uint32),
        grey,
        np.array([background]),
    )
    return center


def seen_at(z, radius_um=0.3, sigma_um=(0.8, 0.15, 0.15)):
    """Class image and grey values of a ball around plane z (may lie between planes), blurred."""
    fine_z = (np.arange(SHAPE[0] * FOLD) + 0.5) / FOLD - 0.5
    off_z, off_y, off_x = np.ix_(
        (fine_z - z) * THICK.z_um,
        (np.arange(SHAPE[1]) - 14.3) * THICK.y_um,
        (np.arange(SHAPE[2]) - 15.2) * THICK.x_um,
    )
    ball = (np.sqrt(off_z**2 + off_y**2 + off_x**2) <= radius_um).astype(float)
    sigma = (sigma_um[0] / THICK.z_um * FOLD, sigma_um[1] / THICK.y_um, sigma_um[2] / THICK.x_um)
    light = ndi.gaussian_filter(ball, sigma).reshape(SHAPE[0], FOLD, *SHAPE[1:]).mean(axis=1)
    classes = np.where(light > 0.45 * light.max(), SPINE, 0).astype(np.uint8)
    return classes, BACKGROUND + 200 * light / light.max()


@pytest.mark.parametrize("z", [3.6, 3.75, 3.9, 4.0, 4.2, 4.45])
def test_a_head_is_found_between_slices(z):
    classes, grey = seen_at(z)
    center = center_of(classes, grey)
    assert center[0] == pytest.approx(z, abs=0.02)
    assert center[1:] == pytest.approx((14.3, 15.2), abs=0.1)


def test_whole_slices_alone_say_less():
    off = [np.argwhere(seen_at(z)[0] == SPINE)[:, 0].mean() - z for z in (3.75, 3.9, 4.2)]
    assert np.abs(off).min() > 0.1


def test_gain_and_offset_change_nothing():
    classes, grey = seen_at(3.7)
    expected = center_of(classes, grey)
    found = center_of(classes, 3.5 * grey + 7, background=3.5 * BACKGROUND + 7)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_image_has_the_mirrored_center(axis):
    classes, grey = seen_at(3.7)
    expected = center_of(classes, grey)
    expected[axis] = SHAPE[axis] - 1 - expected[axis]
    found = center_of(np.flip(classes, axis), np.flip(grey, axis))
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_block_gives_the_same_bits_as_the_whole():
    classes, grey = seen_at(3.7)
    inside = box_of(classes == SPINE)
    box = grow(inside, (1, 2, 3), SHAPE)
    assert relative(inside, box)[0].start == 1
    np.testing.assert_array_equal(center_of(classes, grey, box=box), center_of(classes, grey))


def test_without_blur_it_is_the_centroid():
    classes = np.zeros(SHAPE, dtype=np.uint8)
    classes[3:6, 10:14, 10:13] = SPINE
    grey = np.where(classes > 0, 300.0, BACKGROUND)
    assert center_of(classes, grey) == pytest.approx((4, 11.5, 11))


@pytest.mark.parametrize("role", [DENDRITE, SPINE])
def test_the_light_of_another_object_above_does_not_pull(role):
    classes = np.zeros(SHAPE, dtype=np.uint8)
    classes[4, 10:14, 10:14] = SPINE
    grey = np.where(classes > 0, 300.0, BACKGROUND)
    grey[[3, 5], 10:14, 10:14] = 120
    touched = classes.copy()
    touched[5, 8:16, 8:16] = role
    bright = grey.copy()
    bright[5, 8:16, 8:16] = 900
    center = center_of_the_first(touched, bright) if role == SPINE else center_of(touched, bright)
    assert center == pytest.approx((4, 11.5, 11.5))


def center_of_the_first(classes, grey):
    """Center where the voxels of plane 4 are one spine, and those of others another."""
    first = np.where(np.arange(SHAPE[0])[:, None, None] == 4, 1, 2)
    voxels = Voxels.of(np.where(classes == SPINE, first, 0).astype(np.uint32))
    return centers_of_light(
        voxels,
        SimpleNamespace(voxels=voxels),
        Frame.of_whole(SHAPE, THICK),
        ClassImage(classes, {"spine": SPINE}),
        np.zeros(SHAPE, dtype=np.uint32),
        grey,
        np.array([BACKGROUND, BACKGROUND]),
    )[0]


@pytest.mark.parametrize("grey", [40.0, BACKGROUND, np.nan])
def test_without_light_it_is_the_centroid(grey):
    classes, _ = seen_at(3.7)
    plain = np.argwhere(classes == SPINE).mean(axis=0)
    assert center_of(classes, np.full(SHAPE, grey)) == pytest.approx(plain)
    assert center_of(classes, np.full(SHAPE, 300.0), background=np.nan) == pytest.approx(plain)


def test_voxels_without_a_number_count_as_dark():
    classes, grey = seen_at(4.0)
    dark, broken = grey.copy(), grey.copy()
    dark[4, 14, 15], broken[4, 14, 15] = 0, np.nan
    np.testing.assert_array_equal(center_of(classes, broken), center_of(classes, dark))


def test_a_head_in_the_first_plane_has_no_plane_below():
    classes = np.zeros(SHAPE, dtype=np.uint8)
    classes[0, 10:14, 10:14] = SPINE
    grey = np.where(classes > 0, 300.0, BACKGROUND)
    grey[1, 10:14, 10:14] = 200
    assert center_of(classes, grey) == pytest.approx((0, 11.5, 11.5))
