"""What an annotator could see: light of single spines, and labels that follow from it.

Rules, the same for spines and shafts: a thing is as large as the part of its own blurred image
that is at least `HALF` of its peak. A spine's voxel must also hold at least `DOMINANCE` times as
much light of this spine as sharp light of everything else, and exceed the noise of one voxel. A
spine is resolvable when its brightest voxel reaches `PEAK_NOISES`, one connected part of at least
`FEWEST_VOXELS` voxels and `OPEN_SHARE` of it is visible, and the light of that part stands out of
the noise by `ROSE` standard deviations: a spine hidden in the blur of its shaft is in the truth
table, but not in the labels, and no sliver at the rim of a shaft is called a spine. Spines between
which the light does not dip are one instance, the brightest one's (see `separation`). Wide, smooth
light out of focus adds noise but hides no shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from respan_common.geometry import Box
from respan_training.phantoms.classes import CLASSES
from respan_training.phantoms.field import Field
from respan_training.phantoms.paths import Path
from respan_training.phantoms.raster import Image, blurring, coverage, stain
from respan_training.phantoms.recipe import Detector, Optics, Recipe
from respan_training.phantoms.separation import seen_as
from respan_training.phantoms.solids import Cones, union_distance_um
from respan_training.phantoms.spines import Spine

HALF = 0.45
"""Share of a thing's own peak at which its visible edge lies."""

DOMINANCE = 1.0
"""Least ratio of a spine's light to other sharp light in its voxels."""

ROSE = 7.0
"""Signal to noise at which a human is sure of an object in noise; Rose found 5 for seeing one."""

PEAK_NOISES = 2.0
"""Standard deviations of one voxel's noise that a visible spine's peak reaches."""

OPEN_SHARE = 0.5
"""Least visible share of the spine's own half-peak region; the rest may drown in the shaft."""

FEWEST_VOXELS = 3

FINE_UM = 0.05
"""Grid on which a single spine is drawn, in the image plane."""


@dataclass(frozen=True)
class Glow:
    """Blurred light of one spine in its own box of the image.

    Attributes
    ----------
    box : Box
    light : float32 (z, y, x) of that box
    in_head : bool, same shape
        Voxels nearer to the head's surface than to the neck's.
    """

    box: Box
    light: Image
    in_head: NDArray[np.bool_]


def spine_glow(spine: Spine, shafts: Cones, recipe: Recipe) -> Glow:
    """Light of one spine without its shaft, through the sharp part of the optics.

    The wide part is left out: a spine's share in it is below any noise. The optics are those at
    the depth of the head.
    """
    field, optics = recipe.field, recipe.optics
    sigma_um = np.array([optics.axial_um, optics.lateral_um, optics.lateral_um])
    sigma_um *= float(optics.wider(spine.head.center_um[0]))
    box = _box(spine.low_um - 3 * sigma_um, spine.high_um + 3 * sigma_um, field)
    fine = _fine_axes(spine, field)
    density = _spine_density(spine, shafts, fine, recipe.scenery.membrane)
    light: Image = density
    coarse = [field.axis_um(axis)[part] for axis, part in enumerate(box)]
    for axis in range(3):
        skew = optics.skew if axis == 0 else 0.0
        matrix = blurring(coarse[axis], fine[axis], float(sigma_um[axis]), skew)
        light = np.moveaxis(np.tensordot(matrix, light, axes=(1, axis)), 0, axis)
    z, y, x = coarse[0][:, None, None], coarse[1][:, None], coarse[2]
    to_head_um = np.asarray(spine.head.distance_um(z, y, x))
    to_neck_um = union_distance_um(z, y, x, spine.neck)
    light = light * np.float32((1 - optics.halo) * spine.brightness)
    light *= recipe.detector.left(coarse[0])[:, None, None]
    return Glow(box, light, to_head_um <= to_neck_um)


def _box(low_um: NDArray[np.float64], high_um: NDArray[np.float64], field: Field) -> Box:
    start, stop = field.index_zyx(low_um), field.index_zyx(high_um) + 1
    z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return (z, y, x)


def _fine_axes(spine: Spine, field: Field) -> list[NDArray[np.float64]]:
    steps_um = [min(0.1, field.spacing.z_um)] + [min(FINE_UM, field.spacing.y_um)] * 2
    low, high = spine.low_um, spine.high_um
    return [
        np.arange(low[axis] - step, high[axis] + 1.5 * step, step)
        for axis, step in enumerate(steps_um)
    ]


def _spine_density(
    spine: Spine, shafts: Cones, fine: list[NDArray[np.float64]], membrane: float
) -> Image:
    z, y, x = (axis.astype(np.float32) for axis in fine)
    z, y = z[:, None, None], y[:, None]
    distance_um = np.minimum(
        spine.head.distance_um(z, y, x), union_distance_um(z, y, x, spine.neck)
    )
    shaft_um = union_distance_um(z, y, x, shafts.near(spine.low_um[None], spine.high_um[None]))
    filled = coverage(distance_um, FINE_UM) * (1 - coverage(shaft_um, FINE_UM))
    return np.asarray(filled * stain(distance_um, membrane), dtype=np.float32)


def shaft_masks(
    blurred: Image, paths: Sequence[Path], field: Field, optics: Optics
) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
    """Visible shaft: at least `HALF` as bright as the nearest point of the centerline.

    The centerline's own voxels belong to it in any case.

    Parameters
    ----------
    blurred : float32 (z, y, x)
        Light of everything but spines.
    paths
        Centerlines.

    Yields
    ------
    tuple
        Planes, and the mask in them; none if no centerline is near the field.
    """
    inside = [field.contains(path.nodes_um, 1.0) for path in paths]
    if not any(part.any() for part in inside):
        return
    nodes_um = np.concatenate([p.nodes_um[part] for p, part in zip(paths, inside, strict=True)])
    radius_um = np.concatenate([p.radius_um[part] for p, part in zip(paths, inside, strict=True)])
    own = field.index_zyx(nodes_um[field.contains(nodes_um)])
    on_axis = ndi.map_coordinates(
        blurred, (nodes_um / np.asarray(field.spacing.zyx)).T, order=1, mode="nearest"
    )
    least = HALF * max(float(on_axis.min()), 1e-4)
    # Blur stretches a tube along z, so distances along z count less.
    squeeze = np.array([np.clip(optics.lateral_um / optics.axial_um, 0.25, 1), 1, 1])
    tree = cKDTree(nodes_um * squeeze)
    limit_um = float(radius_um.max()) + 2 * optics.lateral_um
    for slab in field.slabs():
        here, first = blurred[slab], np.array([slab.start, 0, 0])
        candidates = np.argwhere(here > least)
        points_um = field.spacing.points_um(candidates + first)
        found = tree.query(points_um * squeeze, distance_upper_bound=limit_um)
        away_um, nearest = np.asarray(found[0]), np.asarray(found[1])
        near = np.isfinite(away_um)
        candidates, away_um, nearest = candidates[near], away_um[near], nearest[near]
        seen = (here[tuple(candidates.T)] >= HALF * on_axis[nearest]) & (
            away_um <= radius_um[nearest] + 2 * optics.lateral_um
        )
        mask = np.zeros(here.shape, dtype=bool)
        mask[tuple(candidates[seen].T)] = True
        is_here = (own[:, 0] >= slab.start) & (own[:, 0] < slab.stop)
        mask[tuple((own[is_here] - first).T)] = True
        yield slab, mask


@dataclass(frozen=True)
class Sight:
    """How well one spine can be seen."""

    contrast: float
    """Its light over other sharp light, where it is brightest."""
    signal_to_noise: float


def sight(
    glow: Glow, sharp: Image, rest: Image, detector: Detector, per_light: float
) -> tuple[Sight, NDArray[np.bool_]]:
    """Judge one spine; also say which voxels of the glow's box show it.

    Parameters
    ----------
    sharp, rest : float32 (z, y, x)
        Light of everything but spines and even background, whole field: its sharp part, and all.
    per_light : float
        Photons for a light of 1.
    """
    others, rivals = rest[glow.box], sharp[glow.box]
    peak = float(glow.light.max(initial=0.0))
    if peak <= 0:
        return Sight(0.0, 0.0), np.zeros(glow.light.shape, dtype=bool)
    dark = detector.dark_variance
    body = glow.light >= HALF * peak
    visible = body & (glow.light >= DOMINANCE * rivals)
    # A long faint thread has many voxels but none that anybody would mark.
    flicker = detector.flicker(per_light * others)
    visible = _largest_part(visible & (per_light * glow.light >= flicker))
    if visible.sum() < OPEN_SHARE * body.sum() or per_light * peak < PEAK_NOISES * float(
        flicker.ravel()[glow.light.argmax()]
    ):
        visible[:] = False
    brightest = np.unravel_index(int(glow.light.argmax()), glow.light.shape)
    contrast = peak / max(float(rivals[brightest]), 1e-6)
    signal = per_light * float(glow.light[visible].sum())
    noise = per_light * float((glow.light + others)[visible].sum())
    variance = detector.excess * noise + dark * int(visible.sum())
    return Sight(contrast, signal / np.sqrt(max(variance, 1e-9))), visible


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Largest connected part (26 neighbors) of a mask; an empty mask stays empty."""
    parts = np.zeros(mask.shape, dtype=np.int32)
    ndi.label(mask, structure=np.ones((3, 3, 3)), output=parts)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(mask & (parts == sizes.argmax()))


@dataclass(frozen=True)
class SpineLabels:
    """What can be seen of n spines.

    Attributes
    ----------
    instances : uint32 (z, y, x)
        Number i + 1 for spine i, which also stands for those that melt into it.
    classes : uint8 (z, y, x)
        0 outside spines.
    seen_as : uint32, shape (n,)
        Number under which each is found in `instances`: its own if it can be resolved, another's
        if it melts into that one, 0 if it is hidden.
    voxels : int, shape (n,)
        Voxels of each spine's number; 0 for those that cannot be resolved.
    """

    instances: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    seen_as: NDArray[np.uint32]
    voxels: NDArray[np.intp]


class Annotator:
    """Draws spine after spine; where visible ones overlap, the brighter wins.

    Attributes
    ----------
    light : float32 (z, y, x)
        Sum of all spines' sharp light.
    boxes : list of Box
        Where each spine's light is.
    """

    def __init__(self, field: Field) -> None:
        self.light: Image = field.zeros(np.float32)
        self.boxes: list[Box] = []
        self._field = field
        self._instances = field.zeros(np.uint32)
        self._classes = field.zeros(np.uint8)
        self._brightest = field.zeros(np.float32)

    def add(self, glow: Glow, seen: Sight, visible: NDArray[np.bool_]) -> None:
        """Draw the next spine: its light in any case, itself if it stands out of the noise."""
        self.boxes.append(glow.box)
        self.light[glow.box] += glow.light
        if seen.signal_to_noise < ROSE:
            return
        brightest = self._brightest[glow.box]
        wins = visible & (glow.light > brightest)
        brightest[wins] = glow.light[wins]
        self._instances[glow.box][wins] = len(self.boxes)
        parts = np.where(glow.in_head[wins], CLASSES["spine"], CLASSES["neck"])
        self._classes[glow.box][wins] = parts

    def labels(self, spines: Sequence[Spine], sharp: Image) -> SpineLabels:
        """Number and class of every visible voxel, once all spines are drawn.

        Parameters
        ----------
        sharp : float32 (z, y, x)
            Sharp light of everything but spines.
        """
        voxels = self._counted()
        self._rename(np.where(voxels < FEWEST_VOXELS, 0, np.arange(len(voxels))))
        self._give_heads(spines)
        index = self._index()
        light = self.light[tuple(index.T)] + sharp[tuple(index.T)]
        numbers = self._instances[tuple(index.T)]
        drawn_as = seen_as(index, numbers, light, len(spines))
        drawn_as[voxels < FEWEST_VOXELS] = 0
        self._rename(drawn_as)
        return SpineLabels(self._instances, self._classes, drawn_as[1:], self._counted()[1:])

    def _counted(self) -> NDArray[np.intp]:
        """Voxels of each number from 0."""
        counted = np.zeros(len(self.boxes) + 1, dtype=np.intp)
        for slab in self._field.slabs():
            counted += np.bincount(self._instances[slab].ravel(), minlength=len(counted))
        return counted

    def _rename(self, new: NDArray[np.integer]) -> None:
        """Give spines other numbers; what becomes 0 is no spine any more."""
        for slab in self._field.slabs():
            self._instances[slab] = new[self._instances[slab]]
            self._classes[slab][self._instances[slab] == 0] = 0

    def _give_heads(self, spines: Sequence[Spine]) -> None:
        """Of a visible spine without a voxel of head, the voxel nearest to it becomes one."""
        for number, (box, spine) in enumerate(zip(self.boxes, spines, strict=True), start=1):
            mine = self._instances[box] == number
            classes = self._classes[box]
            if not mine.any() or (classes[mine] == CLASSES["spine"]).any():
                continue
            place = np.argwhere(mine)
            first = np.array([part.start for part in box])
            z, y, x = self._field.spacing.points_um(place + first).T
            nearest = int(np.argmin(spine.head.distance_um(z, y, x)))
            classes[tuple(place[nearest])] = CLASSES["spine"]

    def _index(self) -> NDArray[np.intp]:
        """Voxels (n, 3) of all spines, in the order of the array."""
        found = [
            np.argwhere(self._instances[slab]) + np.array([slab.start, 0, 0])
            for slab in self._field.slabs()
        ]
        return np.concatenate(found)
