"""One synthetic volume with its truth, from parameters and a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.errors import InputError
from respan_common.geometry import Box, VoxelSpacing
from respan_common.params import SynthesisParams
from respan_common.schemes import SCHEMES
from respan_training.phantoms import imaging
from respan_training.phantoms.annotation import (
    PEAK_NOISES,
    Annotator,
    Sight,
    shaft_masks,
    sight,
    spine_glow,
)
from respan_training.phantoms.classes import CLASSES, to_scheme
from respan_training.phantoms.raster import Image, Planes, averaging, blurring, project
from respan_training.phantoms.recipe import Recipe, draw_recipe
from respan_training.phantoms.scene import Scene, draw_scene
from respan_training.phantoms.solids import together
from respan_training.phantoms.surfaces import Surface, spine_surface
from respan_training.phantoms.tables import centerlines_of, dendrite_table, spine_table


@dataclass(frozen=True)
class Phantom:
    """A synthetic volume and what is truly in it.

    Arrays of a large one lie in files (`Field.zeros`).

    Attributes
    ----------
    image : uint8 or uint16 (c, z, y, x)
    labels : uint8 (z, y, x)
        Classes of a label scheme, as an annotator could draw them.
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
    surfaces : iterator of Surface
        Of every spine in turn, to be taken once; none unless they were asked for.
    """

    image: NDArray[Any]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint32]
    spacing: VoxelSpacing
    spines: pd.DataFrame
    dendrites: pd.DataFrame
    centerlines: tuple[NDArray[np.float64], ...]
    surfaces: Iterator[Surface]


def make_phantom(params: SynthesisParams, number: int, scratch: Path | None = None) -> Phantom:
    """Synthetic volume `number`; the same parameters and number give the same volume.

    Parameters
    ----------
    scratch
        Folder on whose disk there is room for a volume too large for the memory.

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
    recipe = replace(recipe, field=replace(recipe.field, scratch=scratch))
    phantom = picture(recipe, scene, params.channels, rng, params.label_scheme)
    return replace(phantom, surfaces=_surfaces(scene)) if params.meshes else phantom


def picture(
    recipe: Recipe, scene: Scene, channels: int, rng: np.random.Generator, scheme: int = 3
) -> Phantom:
    """Image, labels and tables of a scene."""
    field = recipe.field
    sharp, rest = _light_without_spines(recipe, scene)
    annotator = Annotator(field)
    sights = _add_spines(annotator, sharp, rest, recipe, scene)
    seen = annotator.labels(scene.spines, sharp)
    _label_rest(seen.classes, sharp, recipe, scene)
    if "axon" in SCHEMES[scheme]:
        _label_axons(seen.classes, sharp, recipe, scene)
    to_scheme(seen.classes, seen.instances, scheme, field)
    for slab in field.slabs():
        rest[slab] += annotator.light[slab]
        rest[slab] *= np.float32(recipe.photons_per_light)
    image = field.zeros(recipe.detector.dtype, channels=channels)
    imaging.expose(rest, field, recipe.detector, rng, image[0])
    for further in image[1:]:
        marker = _marker_photons(recipe, scene, annotator.boxes, rest, rng)
        imaging.expose(marker, field, recipe.detector, rng, further)
    return Phantom(
        image,
        seen.classes,
        seen.instances,
        field.spacing,
        spine_table(scene, sights, seen),
        dendrite_table(scene, field),
        centerlines_of(scene, field),
        iter(()),
    )


def _light_without_spines(recipe: Recipe, scene: Scene) -> tuple[Image, Image]:
    """Sharp light, and all light."""
    field, optics = recipe.field, recipe.optics
    planes = Planes(field, 2.5 * max(optics.axial_um, optics.halo_axial_um if optics.halo else 0))
    z_um = field.axis_um(0)
    solids = together([scene.shafts, scene.soma, scene.distractors])
    wider, left = optics.wider(z_um), recipe.detector.left(z_um)
    blurs = [blurring(z_um, planes.positions_um, optics.axial_um * wider, optics.skew)]
    blurs.append(blurring(z_um, planes.positions_um, optics.halo_axial_um, optics.skew))
    sharp, rest = project(solids, planes, blurs, recipe.scenery.membrane, scene.grain)
    for z, at_um in enumerate(z_um):
        core = imaging.blur_laterally(sharp[z], optics.lateral_um * wider[z], field)
        core *= np.float32(1 - optics.halo)
        halo = imaging.blur_laterally(rest[z], optics.halo_lateral_um, field)
        around = np.float32(optics.halo) * halo
        around += imaging.patches_light(scene.patches_um, field, float(at_um))
        sharp[z], rest[z] = core * left[z], (core + around) * left[z]
    return sharp, rest


def _add_spines(
    annotator: Annotator, sharp: Image, rest: Image, recipe: Recipe, scene: Scene
) -> list[Sight]:
    """Draw one spine after the other, and say how well each can be seen."""
    shafts = together([scene.shafts, scene.soma])
    sights = []
    for spine in scene.spines:
        glow = spine_glow(spine, shafts, recipe)
        seen, visible = sight(glow, sharp, rest, recipe.detector, recipe.photons_per_light)
        annotator.add(glow, seen, visible)
        sights.append(seen)
    return sights


def _label_rest(labels: NDArray[np.uint8], sharp: Image, recipe: Recipe, scene: Scene) -> None:
    """Add shafts and soma to the classes, below spines."""
    paths = [path for dendrite in scene.dendrites for path in dendrite.paths]
    for slab, shaft in shaft_masks(sharp, paths, recipe.field, recipe.optics):
        labels[slab][shaft & (labels[slab] == 0)] = CLASSES["dendrite"]
    if not len(scene.soma):
        return
    planes = Planes(recipe.field, 0.0)
    (filled,) = project(scene.soma, planes, [averaging(planes)])
    half = 0.5 * float(scene.soma.brightness[0])
    for slab in recipe.field.slabs():
        is_neurite = np.isin(labels[slab], (CLASSES["spine"], CLASSES["neck"]))
        labels[slab][(filled[slab] >= half) & ~is_neurite] = CLASSES["soma"]


def _label_axons(labels: NDArray[np.uint8], sharp: Image, recipe: Recipe, scene: Scene) -> None:
    """Add what shows of axons to the classes, below everything else: not what noise hides."""
    for slab, shaft in shaft_masks(sharp, scene.axons, recipe.field, recipe.optics):
        photons = recipe.photons_per_light * sharp[slab]
        is_clear = photons >= PEAK_NOISES * recipe.detector.flicker(photons)
        labels[slab][shaft & is_clear & (labels[slab] == 0)] = CLASSES["axon"]


def _surfaces(scene: Scene) -> Iterator[Surface]:
    shafts = together([scene.shafts, scene.soma])
    return (spine_surface(spine, shafts) for spine in scene.spines)


def _marker_photons(
    recipe: Recipe, scene: Scene, boxes: list[Box], neuron: Image, rng: np.random.Generator
) -> Iterator[Image]:
    """Planes of the light of a label that sits in some of the heads, with crosstalk of the neuron.

    Parameters
    ----------
    boxes
        Where the spines are.
    """
    optics, field = recipe.optics, recipe.field
    crosstalk = np.float32(rng.uniform(0.01, 0.05))
    marker = field.zeros(np.float32)
    sigma_um = np.array([optics.axial_um, optics.lateral_um, optics.lateral_um])
    for spine, box in zip(scene.spines, boxes, strict=True):
        if rng.uniform() > 0.6:
            continue
        width_um = np.sqrt(sigma_um**2 + (0.3 * spine.head.across_um) ** 2)
        z, y, x = (
            np.exp(-0.5 * ((field.axis_um(i)[part] - spine.head.center_um[i]) / width_um[i]) ** 2)
            for i, part in enumerate(box)
        )
        strength = recipe.detector.photons * np.exp(rng.normal(0, 0.4))
        marker[box] += (strength * z[:, None, None] * y[:, None] * x).astype(np.float32)
    return (crosstalk * near + own for near, own in zip(neuron, marker, strict=True))
