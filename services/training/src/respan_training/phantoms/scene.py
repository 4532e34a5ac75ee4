"""Contents of one field: dendrites with spines, and what must not be mistaken for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_training.phantoms.field import Field
from respan_training.phantoms.grain import Grain
from respan_training.phantoms.paths import (
    Path,
    across,
    random_direction,
    through,
    undulating,
    varicose,
    walk,
)
from respan_training.phantoms.recipe import Recipe, log_uniform
from respan_training.phantoms.solids import Cones, Points, balls, together, tube
from respan_training.phantoms.spines import Spine, draw_spine, positions_um, second_head

FAINTEST_UM2 = 0.05
"""Least brightness × radius² of a trunk or branch before it tapers: 2.5 times what any axon or
dendrite of another neuron has. Thinner than the blur, they differ in nothing else that shows but
spines; and within a cell, where dye is as concentrated everywhere, light goes with the section."""


@dataclass(frozen=True)
class Dendrite:
    """One arbor: a path and the branches that leave it.

    Attributes
    ----------
    forks : tuple of int
        For each branch, the node of `paths[0]` where it begins.
    """

    dendrite_id: int
    paths: tuple[Path, ...]
    forks: tuple[int, ...]
    brightness: float

    @property
    def shaft(self) -> Cones:
        """All tubes of the arbor, without swellings on its side."""
        return together([tube(p.nodes_um, p.radius_um, self.brightness) for p in self.paths])


@dataclass(frozen=True)
class Scene:
    """Contents of a field.

    Attributes
    ----------
    distractors : Cones
        Axons, puncta and swellings on shafts: drawn, and not labelled but for axons in the scheme
        that knows them.
    soma : Cones
        One ball or none.
    patches_um : float64, shape (n, 5)
        Center (z, y, x), standard deviation in µm and brightness of dim bodies.
    axons : tuple of Path
        Those of the distractors that are axons, without their boutons.
    grain : Grain, optional
        Of all but spines, which differ in brightness as they are.
    """

    dendrites: tuple[Dendrite, ...]
    spines: tuple[Spine, ...]
    distractors: Cones
    soma: Cones
    patches_um: NDArray[np.float64]
    axons: tuple[Path, ...] = ()
    grain: Grain | None = None

    @property
    def shafts(self) -> Cones:
        """Every dendrite's tubes."""
        return together([dendrite.shaft for dendrite in self.dendrites])


def draw_scene(recipe: Recipe, rng: np.random.Generator) -> Scene:
    """Random contents for a recipe."""
    field, scenery = recipe.field, recipe.scenery
    dendrites: list[Dendrite] = []
    for number in range(1, scenery.dendrites + 1):
        dendrites.append(_draw_dendrite(number, dendrites, recipe, rng))
    soma = together([])
    if rng.uniform() < scenery.soma:
        dendrites[0], soma = _add_soma(dendrites[0], field, rng)
    spines = [spine for dendrite in dendrites for spine in _spines_of(dendrite, recipe, rng)]
    distractors = [_puncta(recipe, rng)]
    distractors += [_bumps(dendrite, scenery.bumps_per_um, rng) for dendrite in dendrites]
    axons = [_draw_axon(field, rng) for _ in range(scenery.axons)]
    distractors += [solids for _, solids in axons]
    distractors += [_draw_ghost(field, rng) for _ in range(scenery.ghosts)]
    patches = np.concatenate(
        [np.zeros((0, 5)), *(_patch(field, rng) for _ in range(scenery.patches))]
    )
    seen = [spine for spine in spines if not _inside(spine.head.center_um, soma, 0.8)]
    paths = tuple(path for path, _ in axons)
    labelled = together([soma, *(one.shaft for one in dendrites), *map(_around, seen)])
    distractors += [_draw_body(field, labelled, rng) for _ in range(scenery.bodies)]
    strength = scenery.grain
    grain = Grain.draw(strength, scenery.grain_um, rng) if strength > 0 else None
    return Scene(tuple(dendrites), tuple(seen), together(distractors), soma, patches, paths, grain)


def _inside(point_um: NDArray[np.float64], soma: Cones, margin_um: float) -> bool:
    away_um = np.linalg.norm(soma.start_um - point_um, axis=1)
    return bool((away_um < soma.start_radius_um + margin_um).any())


def _draw_dendrite(
    number: int, earlier: list[Dendrite], recipe: Recipe, rng: np.random.Generator
) -> Dendrite:
    field, scenery = recipe.field, recipe.scenery
    point_um = field.low_um + rng.uniform(0.15, 0.85, 3) * field.size_um
    heading = random_direction(rng, scenery.elevation_deg)
    if earlier and rng.uniform() < scenery.neighbor:
        point_um, heading = _beside(earlier[-1], field, rng)
    nodes_um = through(point_um, heading, field, rng, bend_per_um=0.035)
    nodes_um = undulating(nodes_um, rng, rng.uniform(0.02, 0.12))
    radius_um = log_uniform(rng, scenery.thinnest_um, scenery.thickest_um)
    brightness = log_uniform(rng, scenery.dimmest if earlier else 0.6, 1.4)
    brightness = max(brightness, FAINTEST_UM2 / radius_um**2)
    trunk = varicose(
        nodes_um, radius_um, rng, rng.uniform(0.06, scenery.beading), rng.uniform(0, 0.3)
    )
    if rng.uniform() > scenery.branch or len(nodes_um) < 20:
        return Dendrite(number, (trunk,), (), brightness)
    branch, fork = _branch(trunk, brightness, recipe, rng)
    return Dendrite(number, (trunk, branch), (fork,), brightness)


def _beside(
    other: Dendrite, field: Field, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    path = other.paths[0]
    inside = np.flatnonzero(field.contains(path.nodes_um))
    node = int(rng.choice(inside)) if len(inside) else len(path.nodes_um) // 2
    tangent = path.tangents[node]
    point_um = path.nodes_um[node] + rng.uniform(0.8, 4.0) * across(tangent, rng.uniform(0, 6.28))
    heading = tangent + rng.normal(0, rng.choice([0.1, 0.8]), 3) * (0.3, 1, 1)
    return point_um, heading / np.linalg.norm(heading)


def _branch(
    trunk: Path, brightness: float, recipe: Recipe, rng: np.random.Generator
) -> tuple[Path, int]:
    fork = int(rng.integers(5, len(trunk.nodes_um) - 5))
    tangent = trunk.tangents[fork]
    sideways = across(tangent, rng.uniform(0, 2 * np.pi)) * (0.3, 1, 1)
    heading = tangent + np.tan(np.deg2rad(rng.uniform(25, 65))) * sideways
    nodes_um = walk(
        trunk.nodes_um[fork], heading / np.linalg.norm(heading), recipe.field, rng, bend_per_um=0.06
    )
    radius_um = max(
        float(trunk.radius_um[fork] * rng.uniform(0.5, 0.9)), math.sqrt(FAINTEST_UM2 / brightness)
    )
    amplitude = rng.uniform(0.06, recipe.scenery.beading)
    return varicose(nodes_um, radius_um, rng, amplitude, 0.2), fork


def _add_soma(dendrite: Dendrite, field: Field, rng: np.random.Generator) -> tuple[Dendrite, Cones]:
    """Put a soma where the trunk enters the field, and let the trunk begin at its surface."""
    trunk = dendrite.paths[0]
    inside = np.flatnonzero(field.contains(trunk.nodes_um))
    if len(inside) < 8 or dendrite.forks:
        return dendrite, together([])
    center_um, radius_um = trunk.nodes_um[inside[0]], rng.uniform(2.5, 5.0)
    soma = balls(center_um[None], np.array([radius_um]), np.array([dendrite.brightness]))
    away_um = np.linalg.norm(trunk.nodes_um - center_um, axis=1)
    outside = (away_um > radius_um - 0.5) & (np.arange(len(away_um)) > inside[0])
    if outside.sum() < 8:
        return dendrite, together([])
    first = int(np.flatnonzero(outside)[0])
    left = trunk.part(np.arange(len(away_um)) >= first)
    return Dendrite(dendrite.dendrite_id, (left,), (), dendrite.brightness), soma


def _spines_of(dendrite: Dendrite, recipe: Recipe, rng: np.random.Generator) -> list[Spine]:
    spines = []
    offsets_um = [0.0, *(float(dendrite.paths[0].arc_um[fork]) for fork in dendrite.forks)]
    density = recipe.scenery.spines_per_um * float(np.exp(rng.normal(0, 0.25)))
    for path, offset_um in zip(dendrite.paths, offsets_um, strict=True):
        # Spines begin a shaft's width after a fork, or they would sit inside the trunk.
        start_um = 2 * path.radius_um[0] if offset_um else 0.0
        for position_um in positions_um(start_um, path.length_um, density, rng):
            node = int(np.argmin(np.abs(path.arc_um - position_um)))
            spine = draw_spine(
                path,
                node,
                dendrite.dendrite_id,
                offset_um + position_um,
                dendrite.brightness
                * recipe.scenery.dimness
                * float(np.exp(rng.normal(0, recipe.scenery.unevenness))),
                rng,
            )
            family = [spine]
            if spine.has_neck and rng.uniform() < recipe.scenery.forked:
                family.append(second_head(spine, rng))
            spines += [one for one in family if recipe.field.contains(one.head.center_um)]
    return spines


def _bumps(dendrite: Dendrite, per_um: float, rng: np.random.Generator) -> Cones:
    """Low swellings: balls that stand out of the shaft by at most 0.15 µm."""
    path = dendrite.paths[0]
    count = int(rng.poisson(per_um * path.length_um)) if per_um > 0 else 0
    nodes = rng.integers(0, len(path.nodes_um), count)
    radius_um = path.radius_um[nodes] * rng.uniform(0.4, 0.8, count)
    above_um = rng.uniform(0.0, 0.15, count)
    outward = np.array(
        [across(path.tangents[node], rng.uniform(0, 2 * np.pi)) for node in nodes]
    ).reshape(-1, 3)
    center_um = (
        path.nodes_um[nodes] + (path.radius_um[nodes] + above_um - radius_um)[:, None] * outward
    )
    return balls(center_um, radius_um, np.full(count, dendrite.brightness))


def _draw_axon(field: Field, rng: np.random.Generator) -> tuple[Path, Cones]:
    """Thin fiber with boutons, anywhere in the field or just above or below it."""
    point_um = field.low_um + rng.uniform(-0.1, 1.1, 3) * field.size_um
    nodes_um = through(point_um, random_direction(rng, 20), field, rng, bend_per_um=0.12)
    brightness = log_uniform(rng, 0.1, 1.0)
    path = Path(nodes_um, np.full(len(nodes_um), rng.uniform(0.05, 0.14)))
    fiber = tube(nodes_um, path.radius_um, brightness)
    return path, together([fiber, _boutons(nodes_um, brightness, rng)])


def _draw_ghost(field: Field, rng: np.random.Generator) -> Cones:
    """Dim dendrite of another neuron: a shaft and heads beside it."""
    point_um = field.low_um + rng.uniform(-0.1, 1.1, 3) * field.size_um
    nodes_um = through(point_um, random_direction(rng, 12), field, rng, bend_per_um=0.05)
    path = varicose(nodes_um, rng.uniform(0.15, 0.4), rng, 0.12, 0.2)
    brightness = log_uniform(rng, 0.015, 0.08)
    count = int(rng.poisson(path.length_um * rng.uniform(0.2, 1.0)))
    chosen = rng.integers(0, len(nodes_um), count)
    outward = [across(path.tangents[node], rng.uniform(0, 2 * np.pi)) for node in chosen]
    away_um = path.radius_um[chosen] + rng.uniform(0.3, 1.2, count)
    heads_um = nodes_um[chosen] + away_um[:, None] * np.array(outward).reshape(-1, 3)
    heads = balls(heads_um, rng.uniform(0.18, 0.4, count), np.full(count, brightness))
    return together([tube(nodes_um, path.radius_um, brightness), heads])


def _around(spine: Spine) -> Cones:
    """Neck, and the ball around the head."""
    reach_um = max(spine.head.along_um, spine.head.across_um)
    head = balls(spine.head.center_um[None], np.array([reach_um]), np.array([spine.brightness]))
    return together([spine.neck, head])


def _draw_body(field: Field, others: Cones, rng: np.random.Generator) -> Cones:
    """Hazy, lumpy body of another cell, with specks in and around it, beside the other solids."""
    center_um = field.low_um + rng.uniform(-0.1, 1.1, 3) * field.size_um
    size_um = rng.uniform(1.5, 4.0)
    lumps, specks = int(rng.integers(4, 16)), int(rng.poisson(3))
    radius_um = np.append(size_um * rng.uniform(0.2, 0.6, lumps), rng.uniform(0.15, 0.45, specks))
    centers_um = center_um + rng.normal(0, 0.5 * size_um, (lumps + specks, 3))
    haze = log_uniform(rng, 0.02, 0.15)
    bright = np.array([haze] * lumps + [log_uniform(rng, 0.1, 1.0) for _ in range(specks)])
    away_um = np.linalg.norm(centers_um[:, None] - others.start_um, axis=2) - others.start_radius_um
    apart = (away_um > radius_um[:, None] + 0.3).all(axis=1)
    return balls(centers_um, radius_um, bright).subset(apart)


def _boutons(nodes_um: Points, brightness: float, rng: np.random.Generator) -> Cones:
    count = int(rng.poisson(len(nodes_um) * 0.25 * rng.uniform(0.05, 0.25)))
    chosen = rng.integers(0, len(nodes_um), count)
    return balls(nodes_um[chosen], rng.uniform(0.18, 0.5, count), np.full(count, brightness))


def _puncta(recipe: Recipe, rng: np.random.Generator) -> Cones:
    """Isolated spots, some in clusters: boutons and spines of cells that are not traced."""
    field = recipe.field
    volume_um3 = float(np.prod(field.size_um))
    clusters = int(rng.poisson(recipe.scenery.puncta_per_um3 * volume_um3))
    centers_um = field.low_um + rng.uniform(-0.05, 1.05, (clusters, 3)) * field.size_um
    sizes = rng.choice([1, 1, 1, 2, 3, 6], clusters)
    points_um = np.repeat(centers_um, sizes, axis=0)
    points_um = points_um + rng.normal(0, 1.0, points_um.shape) * (sizes.repeat(sizes) > 1)[:, None]
    count = len(points_um)
    radius_um = np.clip(0.26 * np.exp(rng.normal(0, 0.35, count)), 0.1, 0.8)
    return balls(points_um, radius_um, np.clip(0.2 * np.exp(rng.normal(0, 0.9, count)), 0.02, 1.5))


def _patch(field: Field, rng: np.random.Generator) -> NDArray[np.float64]:
    """Lumps of one dim body: rows of center, standard deviation, brightness."""
    center_um = field.low_um + rng.uniform(-0.1, 1.1, 3) * field.size_um
    lumps, size_um = int(rng.integers(3, 9)), rng.uniform(1.5, 5.0)
    centers_um = center_um + rng.normal(0, 0.7 * size_um, (lumps, 3))
    sigmas_um = size_um * rng.uniform(0.2, 0.7, lumps)
    return np.column_stack([centers_um, sigmas_um, rng.uniform(0.002, 0.02, lumps)])
