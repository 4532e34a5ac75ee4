from collections import Counter

import numpy as np
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
