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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from respan_common.geometry import Box
from respan_common.schemes import SCHEMES
from respan_training.phantoms.field import Field
from respan_training.phantoms.raster import Image, blurring, coverage, stain
from respan_training.phantoms.recipe import Detector, Optics, Recipe
from respan_training.phantoms.separation import seen_as
from respan_training.phantoms.solids import Cones, Floats, Points, union_distance_um
from respan_training.phantoms.spines import Spine

CLASSES = SCHEMES[3]

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
    to_head_um : float, same shape
    """

    box: Box
    light: Image
    in_head: NDArray[np.bool_]
    to_head_um: Floats


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
    return Glow(box, light, to_head_um <= to_neck_um, to_head_um)


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


def dendrite_mask(
    blurred: Image, nodes_um: Points, radius_um: NDArray[np.float64], field: Field, optics: Optics
) -> NDArray[np.bool_]:
    """Visible shaft: at least `HALF` as bright as the nearest point of the centerline.

    The centerline's own voxels belong to it in any case.

    Parameters
    ----------
    blurred : float32 (z, y, x)
        Light of everything but spines.
    nodes_um, radius_um
        All centerlines, n nodes.
    """
    mask = np.zeros(field.shape_zyx, dtype=bool)
    inside = field.contains(nodes_um, 1.0)
    if not inside.any():
        return mask
    nodes_um, radius_um = nodes_um[inside], radius_um[inside]
    on_axis = ndi.map_coordinates(
        blurred, (nodes_um / np.asarray(field.spacing.zyx)).T, order=1, mode="nearest"
    )
    candidates = np.argwhere(blurred > HALF * max(float(on_axis.min()), 1e-4))
    # Blur stretches a tube along z, so distances along z count less.
    squeeze = np.array([np.clip(optics.lateral_um / optics.axial_um, 0.25, 1), 1, 1])
    tree = cKDTree(nodes_um * squeeze)
    limit_um = float(radius_um.max()) + 2 * optics.lateral_um
    points_um = candidates * np.asarray(field.spacing.zyx)
    found = tree.query(points_um * squeeze, distance_upper_bound=limit_um)
    away_um, nearest = np.asarray(found[0]), np.asarray(found[1])
    near = np.isfinite(away_um)
    candidates, away_um, nearest = candidates[near], away_um[near], nearest[near]
    light = blurred[tuple(candidates.T)]
    seen = (light >= HALF * on_axis[nearest]) & (
        away_um <= radius_um[nearest] + 2 * optics.lateral_um
    )
    mask[tuple(candidates[seen].T)] = True
    mask[tuple(field.index_zyx(nodes_um[field.contains(nodes_um)]).T)] = True
    return mask


@dataclass(frozen=True)
class Sight:
    """How well one spine can be seen."""

    contrast: float
    """Its light over other sharp light, where it is brightest."""
    signal_to_noise: float
    visible: NDArray[np.bool_]
    """Voxels of the glow's box."""


def sight(glow: Glow, sharp: Image, rest: Image, detector: Detector, per_light: float) -> Sight:
    """Judge one spine.

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
        return Sight(0.0, 0.0, np.zeros(glow.light.shape, dtype=bool))
    dark = detector.excess * detector.background + (detector.read / detector.gain) ** 2
    dark += (detector.texture * detector.background) ** 2
    body = glow.light >= HALF * peak
    visible = body & (glow.light >= DOMINANCE * rivals)
    # A long faint thread has many voxels but none that anybody would mark.
    flicker = np.sqrt(detector.excess * per_light * others + dark)
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
    return Sight(contrast, signal / np.sqrt(max(variance, 1e-9)), visible)


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
    """

    instances: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    seen_as: NDArray[np.uint32]

    @property
    def voxels(self) -> NDArray[np.intp]:
        """Voxels of each spine's number; 0 for those that cannot be resolved."""
        return np.bincount(self.instances.ravel(), minlength=len(self.seen_as) + 1)[1:]


def label_spines(glows: list[Glow], sights: list[Sight], sharp: Image) -> SpineLabels:
    """Number and class of every visible voxel of a spine; where they overlap, the brighter wins.

    Parameters
    ----------
    sharp : float32 (z, y, x)
        Sharp light of everything but spines, whole field.
    """
    instances = np.zeros(sharp.shape, dtype=np.uint32)
    brightest = np.zeros(sharp.shape, dtype=np.float32)
    for number, (glow, seen) in enumerate(zip(glows, sights, strict=True), start=1):
        if seen.signal_to_noise < ROSE:
            continue
        wins = seen.visible & (glow.light > brightest[glow.box])
        brightest[glow.box][wins] = glow.light[wins]
        instances[glow.box][wins] = number
    voxels = np.bincount(instances.ravel(), minlength=len(glows) + 1)
    voxels[voxels < FEWEST_VOXELS] = 0
    instances[voxels[instances] == 0] = 0
    classes = np.zeros(sharp.shape, dtype=np.uint8)
    light = sharp.copy()
    for number, glow in enumerate(glows, start=1):
        light[glow.box] += glow.light
        if voxels[number]:
            _paint_parts(classes[glow.box], instances[glow.box] == number, glow)
    drawn_as = seen_as(instances, light, len(glows))
    drawn_as[voxels == 0] = 0
    return SpineLabels(drawn_as[instances], classes, drawn_as[1:])


def _paint_parts(classes: NDArray[np.uint8], mine: NDArray[np.bool_], glow: Glow) -> None:
    """Write head and neck into a view; a visible spine has at least one voxel of head."""
    classes[mine] = np.where(glow.in_head[mine], CLASSES["spine"], CLASSES["neck"])
    if not glow.in_head[mine].any():
        nearest = np.where(mine, glow.to_head_um, np.inf).argmin()
        classes[np.unravel_index(int(nearest), classes.shape)] = CLASSES["spine"]
