"""One synthetic volume with its truth, from parameters and a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.errors import InputError
from respan_common.geometry import VoxelSpacing
from respan_common.params import SynthesisParams
from respan_training.phantoms import imaging
from respan_training.phantoms.annotation import (
    CLASSES,
    Glow,
    dendrite_mask,
    label_spines,
    sight,
    spine_glow,
)
from respan_training.phantoms.raster import Image, Planes, averaging, blurring, project
from respan_training.phantoms.recipe import Recipe, draw_recipe
from respan_training.phantoms.scene import Scene, draw_scene
from respan_training.phantoms.solids import together
from respan_training.phantoms.tables import centerlines_of, dendrite_table, spine_table


@dataclass(frozen=True)
class Phantom:
    """A synthetic volume and what is truly in it.

    Attributes
    ----------
    image : uint8 or uint16 (c, z, y, x)
    labels : uint8 (z, y, x)
        Classes of label scheme 3, as an annotator could draw them.
    instances : uint32 (z, y, x)
        Spine numbers, head and neck together; 0 for spines that are hidden, and of spines that
        melt into one another the brightest one's.
    spines : DataFrame
        Exact geometry of every spine, one row each; `resolvable` says whether it is labelled as
        itself, `seen_as` under which number if not.
    dendrites : DataFrame
        One row per arbor.
    centerlines : tuple of float64, shape (n, 5)
        Per dendrite, inside the field: z, y, x, radius in µm, row of the parent or -1.
    """

    image: NDArray[Any]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint32]
    spacing: VoxelSpacing
    spines: pd.DataFrame
    dendrites: pd.DataFrame
    centerlines: tuple[NDArray[np.float64], ...]


def make_phantom(params: SynthesisParams, number: int) -> Phantom:
    """Synthetic volume `number`; the same parameters and number give the same volume.

    Raises
    ------
    InputError
        For more than one time point.
    """
    if params.timepoints != 1:
        raise InputError(
            f"phantoms have 1 time point, not {params.timepoints}; set timepoints to 1"
        )
    rng = np.random.default_rng([params.seed, number])
    recipe = draw_recipe(params, rng)
    scene = draw_scene(recipe, rng)
    return picture(recipe, scene, params.channels, rng)


def picture(recipe: Recipe, scene: Scene, channels: int, rng: np.random.Generator) -> Phantom:
    """Image, labels and tables of a scene."""
    field = recipe.field
    sharp, rest, solid_soma = _light_without_spines(recipe, scene)
    per_light = recipe.detector.photons / recipe.optics.head_response
    shafts = together([scene.shafts, scene.soma])
    glows = [spine_glow(spine, shafts, recipe) for spine in scene.spines]
    sights = [sight(glow, sharp, rest, recipe.detector, per_light) for glow in glows]
    seen = label_spines(glows, sights, sharp)
    labels = seen.classes
    _label_rest(labels, sharp, solid_soma, recipe, scene)
    light = rest.copy()
    for glow in glows:
        light[glow.box] += glow.light
    image = [_expose(light * per_light, recipe, rng)]
    image += [
        _expose(_marker_photons(recipe, scene, glows, light * per_light, rng), recipe, rng)
        for _ in range(channels - 1)
    ]
    return Phantom(
        np.stack(image),
        labels,
        seen.instances,
        field.spacing,
        spine_table(scene, sights, seen),
        dendrite_table(scene, field),
        centerlines_of(scene, field),
    )


def _light_without_spines(recipe: Recipe, scene: Scene) -> tuple[Image, Image, Image]:
    """Sharp light, all light, and filled share of the soma."""
    field, optics = recipe.field, recipe.optics
    planes = Planes(field, 2.5 * max(optics.axial_um, optics.halo_axial_um if optics.halo else 0))
    z_um = field.axis_um(0)
    solids = together([scene.shafts, scene.soma, scene.distractors])
    wider = optics.wider(z_um)
    blurs = [blurring(z_um, planes.positions_um, optics.axial_um * wider, optics.skew)]
    blurs.append(blurring(z_um, planes.positions_um, optics.halo_axial_um, optics.skew))
    core, halo = project(solids, planes, blurs, recipe.scenery.membrane)
    core = imaging.blur_laterally(core, optics.lateral_um * wider, field)
    halo = imaging.blur_laterally(halo, np.full(len(halo), optics.halo_lateral_um), field)
    core *= np.float32(1 - optics.halo)
    rest = core + np.float32(optics.halo) * halo
    rest += imaging.patches_light(scene.patches_um, field)
    left = recipe.detector.left(z_um)[:, None, None]
    core *= left
    rest *= left
    soma = np.zeros(field.shape_zyx, dtype=np.float32)
    if len(scene.soma):
        (soma,) = project(scene.soma, planes, [averaging(planes)])
    return core, rest, soma


def _label_rest(
    labels: NDArray[np.uint8], sharp: Image, solid_soma: Image, recipe: Recipe, scene: Scene
) -> None:
    """Add shafts and soma to the classes, below spines."""
    paths = [path for dendrite in scene.dendrites for path in dendrite.paths]
    nodes_um = np.concatenate([path.nodes_um for path in paths])
    radius_um = np.concatenate([path.radius_um for path in paths])
    shaft = dendrite_mask(sharp, nodes_um, radius_um, recipe.field, recipe.optics)
    free = labels == 0
    labels[free & shaft] = CLASSES["dendrite"]
    if len(scene.soma):
        labels[free & (solid_soma >= 0.5 * float(scene.soma.brightness[0]))] = CLASSES["soma"]


def _expose(photons: Image, recipe: Recipe, rng: np.random.Generator) -> NDArray[Any]:
    photons = photons + imaging.background_photons(recipe.field, recipe.detector, rng)
    photons = imaging.shift_planes(photons, recipe.detector.motion_voxels, rng)
    photons = imaging.shift_lines(photons, recipe.detector.jitter_voxels, rng)
    photons = imaging.lose_lines(photons, recipe.detector.stripes, rng)
    return imaging.detect(np.maximum(photons, 0), recipe.detector, rng)


def _marker_photons(
    recipe: Recipe, scene: Scene, glows: list[Glow], neuron: Image, rng: np.random.Generator
) -> Image:
    """Expected light of a label that sits in some of the heads, with crosstalk of the neuron."""
    photons = np.float32(rng.uniform(0.01, 0.05)) * neuron
    optics, field = recipe.optics, recipe.field
    sigma_um = np.array([optics.axial_um, optics.lateral_um, optics.lateral_um])
    for spine, glow in zip(scene.spines, glows, strict=True):
        if rng.uniform() > 0.6:
            continue
        width_um = np.sqrt(sigma_um**2 + (0.3 * spine.head.across_um) ** 2)
        z, y, x = (
            np.exp(-0.5 * ((field.axis_um(i)[part] - spine.head.center_um[i]) / width_um[i]) ** 2)
            for i, part in enumerate(glow.box)
        )
        strength = recipe.detector.photons * np.exp(rng.normal(0, 0.4))
        photons[glow.box] += (strength * z[:, None, None] * y[:, None] * x).astype(np.float32)
    return photons
