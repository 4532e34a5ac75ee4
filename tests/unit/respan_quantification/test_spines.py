from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.respan_quantification.phantoms import (
    FINE,
    NECK,
    SOMA,
    TENFOLD,
    Scene,
    params,
)

from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing
from respan_common.schemes import SCHEMES
from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.objects import components
from respan_quantification.spines import find_spines

ANISOTROPIC = VoxelSpacing(0.3, 0.12, 0.1)


class Image:
    """A class image with everything that finding spines in a part of it needs."""

    def __init__(self, classes, spacing, scheme=3, seed=0, **changes):
        self.roles, self.spacing = SCHEMES[scheme], spacing
        self.classes, self.params = classes, params(**changes)
        self.dendrites = components(classes == self.roles["dendrite"])
        rng = np.random.default_rng(seed)
        self.grey = np.where(classes > 0, 100, 10) + rng.integers(0, 20, classes.shape)

    def find(self, outer, inner, **options):
        frame = Frame(outer, inner, self.classes.shape, self.spacing)
        classes = ClassImage(self.classes[outer], self.roles)
        return frame, find_spines(
            classes, self.dendrites[outer], self.grey[outer], frame, self.params, **options
        )


def described(frame, spines):
    """Everything about each spine by its anchor, in voxels of the whole image."""
    found = {}
    for spine, rows in spines.voxels.groups():
        base = spines.bases[spine]
        anchor = int(spines.anchors[spine - 1])
        found[anchor] = {
            "voxels": frame.linear(spines.voxels.index_zyx[rows]).tolist(),
            "in_head": spines.in_head[rows].tolist(),
            "inferred": spines.inferred[rows].tolist(),
            "gap_um": spines.nearest.gap_um[rows].tolist(),
            "nearest": frame.linear(spines.nearest.index_zyx[rows]).tolist(),
            "base": (base.dendrite_id, base.touches, base.gap_um),
            "feet": frame.linear(np.array([base.voxel_zyx, base.dendrite_zyx])).tolist(),
            "attached": spines.attached[spine],
            "quality": str(spines.quality[spine - 1]),
            "border": bool(spines.touches_border[spine - 1]),
            "complete": bool(spines.complete[spine - 1]),
        }
    assert list(found) == sorted(found)
    return found


def in_one_piece(image):
    box = Frame.of_whole(image.classes.shape, image.spacing).outer
    frame, found = image.find(box, box)
    assert found.stragglers == []
    return described(frame, found.spines), Counter(found.discarded)


def in_blocks(image, block_zyx, halo_zyx):
    spines, discarded, again = {}, Counter(), 0
    for block in grid(image.classes.shape, block_zyx, halo_zyx):
        todo = [(block.outer, None)]
        while todo:
            outer, only = todo.pop()
            frame, found = image.find(outer, block.inner, only=only)
            more = described(frame, found.spines)
            assert not more.keys() & spines.keys()
            spines |= more
            discarded.update(found.discarded)
            todo += [(box, [anchor]) for anchor, box in found.stragglers]
            again += len(found.stragglers)
            assert all(box != outer for _, box in found.stragglers)
    return spines, discarded, again


def crowd(spacing, seed, spines=14, size_um=(3, 7, 9)):
    """Dendrites at angles with spines of all kinds: touching, with necks and without, specks."""
    rng = np.random.default_rng(seed)
    scene = Scene(size_um, spacing)
    size = np.array(size_um)
    for _ in range(2):
        ends = rng.uniform(0, 1, (2, 3)) * size
        ends[:, 2] = (-0.5, size[2] + 0.5)
        scene.tube(*ends, 0.4)
    axis = rng.uniform(0, 1, (spines, 3)) * size
    for center in axis:
        radius = rng.uniform(0.15, 0.4)
        scene.ball(center, radius)
        toward = rng.normal(size=3) / 3
        if rng.random() < 0.6:
            scene.ball(center + 1.7 * radius * toward / np.linalg.norm(toward), radius)
        if rng.random() < 0.6:
            scene.tube(center, center + 3 * toward, 0.13, NECK)
    scene.ball(rng.uniform(0, 1, 3) * size, 0.5, SOMA)
    for voxel in rng.integers(0, scene.classes.shape, (10, 3)):
        scene.classes[tuple(voxel)] = rng.choice([1, NECK])
    return scene


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6),
    spacing=st.sampled_from([FINE, ANISOTROPIC, TENFOLD]),
    cut=st.tuples(*[st.floats(0.2, 1.2)] * 3),
    halo_um=st.sampled_from([0.0, 0.5, 2.0, 4.5]),
    scheme=st.sampled_from([1, 3, 4]),
)
def test_spines_do_not_depend_on_the_blocks(seed, spacing, cut, halo_um, scheme):
    classes = crowd(spacing, seed).classes
    if scheme != 3:
        classes = recoded(classes, scheme)
    image = Image(classes, spacing, scheme, max_spine_distance_um=1.5, max_neck_length_um=1.5)
    block = tuple(max(int(c * n), 1) for c, n in zip(cut, classes.shape, strict=True))
    block = tuple(max(b, n // 3) for b, n in zip(block, classes.shape, strict=True))
    whole, dropped = in_one_piece(image)
    parts, dropped_in_parts, _ = in_blocks(image, block, spacing.reach(halo_um))
    assert parts.keys() == whole.keys()
    for anchor, spine in whole.items():
        assert parts[anchor] == spine
    assert dropped_in_parts == dropped


def recoded(classes, scheme):
    """The same scene as another scheme has it: without necks, or with cores inside membranes."""
    roles, other = SCHEMES[scheme], np.zeros_like(classes)
    for role in ("dendrite", "soma", "neck"):
        if role in roles:
            other[classes == SCHEMES[3][role]] = roles[role]
    heads = classes == 1
    if scheme == 1:
        other[heads] = roles["spine"]
        return other
    inside = heads.copy()
    for axis in (1, 2):
        inside &= np.roll(heads, 1, axis) & np.roll(heads, -1, axis)
    other[heads], other[inside] = roles["spine_shell"], roles["spine_core"]
    return other


def one_spine(spacing=FINE, neck_um=0.6, draw_neck=True):
    """A dendrite along x with one spine above the middle of it."""
    scene = Scene((3, 5, 8), spacing).tube((1.5, 1, -1), (1.5, 1, 9), 0.5)
    scene.ball((1.5, 1.8 + neck_um, 4), 0.3)
    return scene.tube((1.5, 1, 4), (1.5, 1.8 + neck_um, 4), 0.12, NECK) if draw_neck else scene


def test_a_spine_that_a_cut_reaches_waits_and_is_found_in_the_box_it_asks_for():
    image = Image(one_spine().classes, FINE)
    left = (slice(0, 30), slice(0, 50), slice(0, 40))
    _, found = image.find(left, left)
    assert found.spines.count == 0
    ((anchor, box),) = found.stragglers
    frame, again = image.find(box, left, only=[anchor])
    assert again.spines.anchors.tolist() == [anchor]
    assert again.stragglers == []
    assert described(frame, again.spines) == in_one_piece(image)[0]


def test_what_remains_cut_is_marked_when_arrays_cannot_grow():
    image = Image(one_spine().classes, FINE)
    left = (slice(0, 30), slice(0, 50), slice(0, 40))
    _, found = image.find(left, left, final=True)
    assert (found.spines.count, found.stragglers) == (1, [])
    assert found.spines.complete.tolist() == [False]


def test_a_spine_whose_nearest_dendrite_may_be_beyond_the_cut_waits():
    scene = Scene((3, 6, 8), FINE).tube((1.5, 1, -1), (1.5, 1, 9), 0.4).ball((1.5, 3.2, 4), 0.3)
    scene.tube((1.5, 5.2, -1), (1.5, 5.2, 9), 0.4)
    image = Image(scene.classes, FINE)
    near = (slice(0, 30), slice(0, 42), slice(0, 80))
    _, found = image.find(near, near)
    assert (found.spines.count, len(found.stragglers)) == (0, 1)


def test_a_seen_neck_is_certain_an_invisible_one_is_not_and_a_missing_one_has_no_quality():
    def quality(scene, grey=None, **changes):
        image = Image(scene.classes, FINE, **changes)
        image.grey = image.grey if grey is None else grey
        box = Frame.of_whole(image.classes.shape, FINE).outer
        return image.find(box, box)[1].spines.quality[0]

    bare = one_spine(draw_neck=False)
    assert quality(one_spine()) == 1
    assert np.isnan(quality(bare, generate_necks=False))
    bright = np.where(one_spine().classes > 0, 100, 10)
    dark = np.where(bare.classes > 0, 100, 10)
    assert quality(bare, bright) > 0.8
    assert quality(bare, dark) < 0.5
    assert quality(bare, np.full(dark.shape, 7)) == 0
    assert quality(one_spine(neck_um=1.5, draw_neck=False), dark) < quality(bare, dark)


def test_paths_that_meet_share_their_voxels_and_the_shorter_gap_is_painted():
    scene = Scene((3, 6, 8), FINE).tube((1.5, 1, -1), (1.5, 1, 9), 0.5)
    scene.ball((1.5, 2.9, 3.6), 0.3).ball((1.5, 3.1, 4.4), 0.3)
    stem = np.zeros(scene.classes.shape, bool)
    stem[15, 10:27, 40] = True
    image = Image(scene.classes, FINE)
    image.grey = np.where((scene.classes > 0) | stem, 500, 10)
    box = Frame.of_whole(image.classes.shape, FINE).outer
    spines = image.find(box, box)[1].spines
    assert list(spines.attached.values()) == ["inferred"] * 2
    places = [set(map(tuple, spines.paths[n][1:-1].tolist())) for n in (1, 2)]
    shared = places[0] & places[1]
    assert shared
    shorter = int(np.argmin(spines.gaps_um)) + 1
    assert {int(spines.whole[place]) for place in shared} == {shorter}


def test_a_straight_neck_is_preferred_to_a_nearer_dendrite_if_it_is_visible():
    scene = Scene((3, 6, 8), FINE).tube((1.5, 1, -1), (1.5, 1, 9), 0.4)
    scene.tube((1.5, 4.1, -1), (1.5, 4.1, 9), 0.4).ball((1.5, 2.8, 4), 0.3)
    neck = scene.tube_mask((1.5, 1, 4), (1.5, 2.8, 4), 0.15)
    image = Image(scene.classes, FINE)
    box = Frame.of_whole(image.classes.shape, FINE).outer
    own, other = image.dendrites[15, 10, 40], image.dendrites[15, 41, 40]
    image.grey = np.where(image.classes > 0, 100, 10)
    assert image.find(box, box)[1].spines.bases[1].dendrite_id == other
    image.grey = np.where((image.classes > 0) | neck, 70, 10)
    assert image.find(box, box)[1].spines.bases[1].dendrite_id == own


@pytest.mark.parametrize("spacing", [FINE, TENFOLD])
@pytest.mark.parametrize("across", [(0, 1, 0), (1, 0, 0), (1, 1, 0)])
@pytest.mark.parametrize("gap_um", [0.5, 2.5])
def test_spines_between_and_beside_parallel_dendrites_belong_to_the_one_they_stand_on(
    spacing, across, gap_um
):
    unit = np.asarray(across) / np.linalg.norm(across)
    middle, half = np.array([5.3, 5, 8]), unit * (1.2 + gap_um / 2)
    along = np.array([0, 0, 1.0])
    scene = Scene((10, 10, 16), spacing)
    for side in (-1, 1):
        foot = middle + side * half
        scene.tube(foot - 9 * along, foot + 9 * along, 1.2)
    side_of, stems = [], []
    sideways = np.cross(unit, along)
    for number, x in enumerate(np.linspace(-6.5, 6.5, 12)):
        side = (-1, 1)[number % 2]
        ways = [sideways, -sideways, side * unit, -side * unit if gap_um > 1 else sideways]
        foot = middle + side * half + x * along
        stems.append((foot, foot + 1.85 * ways[number // 2 % 4]))
        side_of.append(side)
    for foot, head in stems:
        scene.ball(head, 0.4).tube(foot, head, 0.15, NECK)
    image = Image(scene.classes, spacing, min_spine_volume_um3=0.02)
    box = Frame.of_whole(image.classes.shape, spacing).outer
    frame, found = image.find(box, box)
    spines = found.spines
    right = []
    for spine, rows in spines.voxels.groups():
        head = frame.points_um(spines.voxels.index_zyx[rows]).mean(axis=0)
        stem = int(
            np.argmin([np.linalg.norm(head + np.array(spacing.zyx) / 2 - s[1]) for s in stems])
        )
        foot = (middle + side_of[stem] * half) / spacing.zyx
        right.append(spines.bases[spine].dendrite_id == image.dendrites[tuple(foot.astype(int))])
    assert len(right) >= 6
    assert all(right)


def test_spines_at_the_images_faces_are_flagged_or_dropped():
    scene = Scene((3, 4, 8), FINE).tube((1.5, 1, -1), (1.5, 1, 9), 0.5).ball((1.5, 1.7, 0.1), 0.35)
    scene.ball((0.1, 1.2, 4), 0.45)
    box = Frame.of_whole(scene.classes.shape, FINE).outer
    spines = Image(scene.classes, FINE).find(box, box)[1].spines
    assert spines.touches_border.tolist() == [True, True]
    found = Image(scene.classes, FINE, remove_border_spines=True).find(box, box)[1]
    assert (found.spines.count, found.discarded["discarded_at_border"]) == (1, 1)
