"""What every measurement may be off by, at many orientations, voxel shapes and sub-voxel places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.measuring import Tables, measure, measure_scene
from bench.rows import Row, number, relative, share
from bench.scenes import NECK, SOMA, Arc, Ball, Point, Scene, Tube, around
from bench.truth_table import CONFOCAL, FINE, dendrite_length, mean_over_shifts, one_spine, shifts
from respan_common.geometry import VoxelSpacing

TWOFOLD = VoxelSpacing(0.2, 0.1, 0.1)
TENFOLD = VoxelSpacing(1.0, 0.1, 0.1)

_AXIAL_BLUR = (0.75, 0.0, 0.0)
"""Slices 1 µm apart come from optics in which nothing is much shorter than that along z."""


def directions(count: int, seed: int = 1) -> NDArray[np.float64]:
    """Unit vectors (z, y, x) over the half sphere x >= 0; the axes first."""
    drawn = np.random.default_rng(seed).normal(size=(count, 3))
    drawn[: min(3, count)] = np.eye(3)[: min(3, count)]
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.asarray(np.where(drawn[:, 2:] < 0, -drawn, drawn))


def _lengths(anisotropy: int, draws: int) -> Iterator[Row]:
    spacing = VoxelSpacing(0.1 * anisotropy, 0.1, 0.1)
    errors = []
    for way, shift in zip(directions(draws) * 16.0, shifts(draws, 2), strict=True):
        start = 1.5 + np.maximum(-way, 0) + np.asarray(shift) * spacing.zyx
        scene = around(Tube(start, start + way, 0.5), spacing=spacing)
        errors.append(dendrite_length(measure_scene(scene)) / 16.0 - 1)
    name = f"tubes r 0.5, any orientation, voxels 1:{anisotropy}: length"
    original = {1: "-4 … -39 %", 3: "-22 %", 10: "-23 %"}.get(anisotropy, "-")
    yield from relative(name, "16 µm", errors, 0.01, original)


def balls_beside_a_shaft(
    spacing: VoxelSpacing, radius: float, count: int, gap: float = 0.4
) -> tuple[Scene, list[Ball]]:
    """Balls near a shaft along x, each somewhere else within its voxels."""
    step, middle = 2 * radius + 1.0, radius + 1.5
    shaft_y = 1.5
    size = (2 * middle, shaft_y + 0.5 + gap + 2 * radius + 1.5, count * step + 2.0)
    scene = Scene(size, spacing)
    scene.add(Tube((middle, shaft_y, 0.5), (middle, shaft_y, size[2] - 0.5), 0.5))
    balls = []
    for n, shift in enumerate(shifts(count, 3)):
        place = np.array([middle, shaft_y + 0.5 + gap + radius, 1.0 + (n + 0.5) * step])
        balls.append(Ball(place + np.asarray(shift) * spacing.zyx, radius))
    return scene.add(*balls), balls


def _column(tables: Tables, balls: Sequence[Ball], name: str) -> list[float]:
    """A column's value for each ball; missing where no spine, or no value, is near."""
    values = []
    for ball in balls:
        row = tables.spine_near(ball.center, ball.radius)
        values.append(math.nan if row is None or row.get(name) is None else float(row[name]))
    return values


def balls(draws: int) -> Iterator[Row]:
    """Volumes and surfaces of single heads, and what is systematic in those of small ones."""
    cases = ((FINE, 0.4), (FINE, 0.6), (TWOFOLD, 0.8), (CONFOCAL, 1.2))
    for spacing, radius in cases:
        scene, balls = balls_beside_a_shaft(spacing, radius, draws)
        found = measure_scene(scene)
        volume, surface = 4 / 3 * math.pi * radius**3, 4 * math.pi * radius**2
        name = f"ball r {radius:g}, voxels {_text(spacing)}"
        errors = [value / volume - 1 for value in _column(found, balls, "head_vol")]
        mean, *worst = relative(f"{name}: volume", f"{volume:.3f} µm³", errors, 0.03, "mesh: -8 %")
        yield mean
        # A single ball's voxels can be off by more than 3 % themselves, in places of symmetry.
        drawn = max((_drawn(ball, spacing) / volume - 1 for ball in balls), key=abs)
        yield from (replace(row, ours=f"{row.ours} (voxels drawn {drawn:+.2%})") for row in worst)
        errors = [value / surface - 1 for value in _column(found, balls, "head_surf_area")]
        yield from relative(f"{name}: surface", f"{surface:.3f} µm²", errors, 0.05)
    for spacing, radius in ((FINE, 0.2), (FINE, 0.3), (CONFOCAL, 0.25), (CONFOCAL, 0.4)):
        yield _unbiased(spacing, radius, 6 * draws)


def _drawn(ball: Ball, spacing: VoxelSpacing) -> float:
    """Volume of a ball's voxels."""
    return np.count_nonzero(around(ball, spacing=spacing).paint()) * spacing.voxel_volume_um3


def _unbiased(spacing: VoxelSpacing, radius: float, count: int) -> Row:
    scene, balls = balls_beside_a_shaft(spacing, radius, count)
    volume = 4 / 3 * math.pi * radius**3
    values = _column(measure_scene(scene), balls, "head_vol")
    name = f"ball r {radius:g}, voxels {_text(spacing)}: volume, bias over {count} places"
    # What the drawing itself is off by, so that chance is not blamed on the measurement.
    drawn = np.count_nonzero(scene.paint() == 1) * spacing.voxel_volume_um3 / count
    row = relative(name, f"{volume:.4f} µm³", [v / volume - 1 for v in values], 0.01)[0]
    note = f"{row.ours} (voxels drawn {drawn / volume - 1:+.2%})"
    return Row(name, row.truth, note, row.bound, row.passed, "-8 %")


def spine_lengths(draws: int) -> Iterator[Row]:
    """Necks, and spines from base to tip."""
    columns = ["neck_length", "spine_length"]
    for spacing in (FINE, CONFOCAL):
        diagonal = float(np.linalg.norm(spacing.zyx))
        for direction in ((0, 1, 0), (1, 0, 0), (1, 2, 0), (1, 1, 0)):
            name = f"spine towards {direction}, voxels {_text(spacing)}"
            found = mean_over_shifts(columns, spacing, direction, max(draws // 4, 2))
            yield number(f"{name}: neck µm", 0.6, found["neck_length"], diagonal)
            yield number(f"{name}: base to tip µm", 1.2, found["spine_length"], diagonal)


def _along_an_arc(draws: int) -> Iterator[Row]:
    arc = Arc((1.5, 1.5, 1.5), 12.0, math.pi / 2, 0.5)
    soma = Ball(arc.at(0.0), 1.5, SOMA)
    from_angle = 2 * math.asin(soma.radius / (2 * arc.bend_radius))
    for spacing in (FINE, CONFOCAL):
        errors = []
        for angle in np.linspace(0.6, 1.4, max(draws // 4, 3)):
            head = Ball(arc.at(angle, 0.5 + 0.6 + 0.3), 0.3)
            neck = Tube(arc.at(angle), head.center, 0.12, NECK, least_radii=_seen(spacing))
            scene = around(soma, head, arc, neck, spacing=spacing)
            row = measure_scene(scene).spine_near(head.center, 0.4)
            truth = arc.bend_radius * (angle - from_angle)
            errors.append(_value(row, "geodesic_dist_to_soma") / truth - 1)
        name = f"arc r 12, voxels {_text(spacing)}: way to the soma"
        yield from relative(name, "5.7 … 15.3 µm", errors, 0.02, "+52 … +72 %")


def _along_a_line(draws: int) -> Iterator[Row]:
    """Oblique shafts from a soma, with one large spine on each."""
    for spacing in (FINE, CONFOCAL, TENFOLD):
        errors = []
        for way in directions(max(draws // 2, 3), 4):
            start = 3.0 + np.maximum(-way, 0) * 13.0
            side = np.cross(way, (1, 0, 0) if abs(way[0]) < 0.8 else (0, 1, 0))
            foot = start + 10.0 * way
            head = Ball(foot + (0.6 + 0.5 + 0.6) * side / np.linalg.norm(side), 0.6)
            neck = Tube(foot, head.center, 0.15, NECK, least_radii=_seen(spacing))
            shaft = Tube(start, start + 13.0 * way, 0.6)
            scene = around(Ball(start, 2.0, SOMA), shaft, head, neck, spacing=spacing)
            row = measure_scene(scene).spine_near(head.center, 1.0)
            errors.append(_value(row, "geodesic_dist_to_soma") / 8.0 - 1)
        name = f"straight shafts, any orientation, voxels {_text(spacing)}: way to the soma"
        yield from relative(name, "8 µm", errors, 0.02, "+52 … +72 %")


def diameters(draws: int) -> Iterator[Row]:
    """Heads and necks where voxels are fine enough for them."""
    for spacing in (FINE, TWOFOLD):
        for radius in (0.3, 0.5):
            errors = _spines(spacing, draws, radius, 0.15, "head_diameter_um")
            name = f"head r {radius:g}, voxels {_text(spacing)}: diameter µm, mean"
            yield number(name, 2 * radius, float(np.mean(errors)), max(spacing.zyx))
    for radius in (0.15, 0.2, 0.25):
        for column in ("neck_diameter_um", "neck_diameter_min_um"):
            found = _spines(FINE, draws, 0.5, radius, column)
            name = f"neck r {radius:g}, voxels {_text(FINE)}: {column}, mean"
            yield number(name, 2 * radius, float(np.mean(found)), 0.1)


def _spines(
    spacing: VoxelSpacing, draws: int, head_radius: float, neck_radius: float, column: str
) -> list[float]:
    values = []
    for way, shift in zip(directions(draws, 5), shifts(draws, 6), strict=True):
        across = np.array([way[0], way[1], 0.0])  # the shaft runs along x
        direction = across if np.linalg.norm(across) > 0.1 else np.array([0.0, 1.0, 0.0])
        scene, head = one_spine(spacing, direction, shift, neck=False, radius=head_radius)
        shaft = scene.solids[0]
        assert isinstance(shaft, Tube)
        foot = (np.asarray(shaft.start) + np.asarray(shaft.stop)) / 2
        scene.add(Tube(foot, head.center, neck_radius, NECK))
        values.append(_value(measure_scene(scene).spine_near(head.center, 0.5), column))
    return values


def _touching(spacing: VoxelSpacing, radii: tuple[float, float], draws: int) -> Row:
    """Pairs of balls whose overlap is up to a fifth of the smaller one's diameter."""
    rng = np.random.default_rng(7)
    right, pairs_per_scene, scenes = 0, 8, max(draws // 2, 4)
    step = 8 * radii[1]
    for _ in range(scenes):
        length = step * pairs_per_scene
        scene = Scene((7.0, 6.0, length + 1), spacing)
        scene.add(Tube((3.5, 1.2, 0.5), (3.5, 1.2, length + 0.5), 0.5))
        pairs = [_pair(rng, radii, 0.5 + step * (n + 0.5)) for n in range(pairs_per_scene)]
        heads = measure_scene(scene.add(*[ball for pair in pairs for ball in pair])).heads_um
        right += sum(_is_split(heads, *pair) for pair in pairs)
    low, high = radii
    name = f"touching balls r {low:g} … {high:g}, overlap <= 20 %, voxels {_text(spacing)}"
    return share(name, "2 spines a pair", right, pairs_per_scene * scenes, 0.95, "1 spine a pair")


def _pair(rng: np.random.Generator, radii: tuple[float, float], x: float) -> tuple[Ball, Ball]:
    """Two balls that touch each other, and not the shaft."""
    one, other = rng.uniform(*radii, 2)
    apart = one + other - rng.uniform(0, 0.4) * min(one, other)
    first = np.array([3.5, 1.7 + radii[1] + 0.3, x]) + rng.uniform(-0.1, 0.1, 3)
    while True:
        way = rng.normal(size=3)
        second = first + apart * way / np.linalg.norm(way)
        if np.hypot(second[0] - 3.5, second[1] - 1.2) > 0.5 + other + 0.3:
            return Ball(first, one), Ball(second, other)


def _is_split(heads: NDArray[np.float64], one: Ball, other: Ball) -> bool:
    """Whether exactly one head is at each ball, and none besides."""
    if not len(heads):
        return False
    to_one, to_other = (
        np.linalg.norm(heads - np.asarray(ball.center), axis=1) for ball in (one, other)
    )
    near = (to_one < one.radius) | (to_other < other.radius)
    return bool(near.sum() == 2 and to_one.min() < 0.5 * one.radius
                and to_other.min() < 0.5 * other.radius)  # fmt: skip


def _close_parallel(draws: int, *, neck: bool) -> Row:
    """Two shafts side by side; every head is as near to the other shaft as to its own, or nearer.

    Without drawn necks only the grey values show where a spine belongs.
    """
    rng = np.random.default_rng(8)
    right = total = 0
    for _ in range(max(draws // 2, 4)):
        gap, tilt = rng.uniform(1.6, 2.2), rng.uniform(-1.0, 1.0)
        near, far = np.array([5.5, 2.0, 0.5]), np.array([5.5 + tilt, 3.0 + gap, 0.5])
        along = np.array([0, 0, 30.0])
        shafts = [Tube(p, p + along, 0.5, least_radii=_AXIAL_BLUR) for p in (near, far)]
        scene = Scene((10, 5.0 + gap, 31), TENFOLD, list(shafts))
        spines = [_between(shafts, n % 2, 2.0 + 2.5 * n, rng) for n in range(11)]
        scene.add(*[head for head, _ in spines])
        bright = Scene(scene.size_um, TENFOLD, scene.solids + [neck for _, neck in spines])
        found = _measured(scene, bright, neck=neck)
        for n, (head, _) in enumerate(spines):
            row = found.spine_near(head.center, 0.6)
            own = found.dendrite_at(np.asarray(shafts[n % 2].start) + along / 2)
            right += row is not None and own > 0 and int(row["dendrite_id"]) == own
        total += len(spines)
    shown = "necks drawn" if neck else "necks in grey values only"
    name = f"close parallel shafts, voxels {_text(TENFOLD)}, {shown}: own dendrite"
    return share(name, "the one it stands on", right, total, 0.99, "the nearest by voxels")


def _between(
    shafts: Sequence[Tube], owner: int, x: float, rng: np.random.Generator
) -> tuple[Ball, Tube]:
    """A spine of one shaft that reaches towards the other, past the middle."""
    own, other = (np.asarray(shafts[k].start, float) * (1, 1, 0) + (0, 0, x) for k in
                  (owner, 1 - owner))  # fmt: skip
    middle = own + (other - own) * rng.uniform(0.5, 0.55)
    head = Ball(middle, 0.3, least_radii=_AXIAL_BLUR)
    return head, Tube(own, middle, 0.12, NECK, least_radii=_seen(TENFOLD))


def _measured(scene: Scene, bright: Scene, *, neck: bool) -> Tables:
    if neck:
        return measure_scene(bright)
    grey = np.where(bright.paint() > 0, 100, 10).astype(np.uint16)
    return measure(scene.paint(), grey, scene.spacing)


def _seen(spacing: VoxelSpacing) -> Point:
    """Least radii at which a tube leaves no gap where it passes between two slices."""
    return tuple(0.75 * edge for edge in spacing.zyx)


def _value(row: object, column: str) -> float:
    value = row.get(column) if row is not None and hasattr(row, "get") else None
    return math.nan if value is None else float(value)


def _text(spacing: VoxelSpacing) -> str:
    return " × ".join(f"{edge:g}" for edge in spacing.zyx)


def lengths(draws: int) -> Iterator[Row]:
    """Dendrites of any orientation in voxels of any shape."""
    for anisotropy in (1, 2, 3, 5, 10):
        yield from _lengths(anisotropy, draws)


def ways(draws: int) -> Iterator[Row]:
    """Ways along bent and straight dendrites."""
    yield from _along_an_arc(draws)
    yield from _along_a_line(draws)


def touching(draws: int) -> Iterator[Row]:
    """Balls of at least three voxels across along every axis, or no waist could be seen."""
    for spacing, radii in ((FINE, (0.3, 0.5)), (CONFOCAL, (0.45, 0.75))):
        yield _touching(spacing, radii, draws)


def owners(draws: int) -> Iterator[Row]:
    """Whose a spine is where dendrites run close together."""
    for neck in (True, False):
        yield _close_parallel(draws, neck=neck)
