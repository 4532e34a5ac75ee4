"""What turning an image, or measuring it with another yardstick, must not change."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.measuring import Tables, measure
from bench.rows import Row
from bench.scenes import NECK, Ball, Scene, Tube
from bench.truth_table import FINE
from respan_common.geometry import VoxelSpacing

EXACT, NEARLY = 1e-9, 0.02
"""Counts of voxels stay what they are; smoothed paths follow the grid's order in rare ties."""


def rows(draws: int) -> Iterator[Row]:
    """The same scene turned over, turned round, or measured with a longer yardstick."""
    scene = _several_spines(max(draws // 4, 4))
    classes = scene.paint()
    usual = _sizes(measure(classes, None, FINE))
    for axes in ((0,), (1,), (2,), (0, 1, 2)):
        turned = np.flip(classes, axes).copy()
        name = f"flipped along {' '.join('zyx'[axis] for axis in axes)}"
        yield from _changes(name, usual, _sizes(measure(turned, None, FINE)))
    turned = classes.transpose(2, 0, 1).copy()
    yield from _changes("z, y, x exchanged", usual, _sizes(measure(turned, None, FINE)))
    twice = _sizes(
        measure(
            classes,
            None,
            VoxelSpacing(0.2, 0.2, 0.2),
            max_spine_distance_um=8.0,
            max_neck_length_um=8.0,
            max_spine_volume_um3=120.0,
        )
    )
    scaled = {name: values / (8 if "vol" in name else 2) for name, values in twice.items()}
    yield from _changes("voxels twice as large, divided by 2 or 8", usual, scaled)


def _several_spines(count: int) -> Scene:
    rng = np.random.default_rng(9)
    scene = Scene((5.0, 5.2, 2.0 * count + 1.3), FINE)
    middle = np.array([2.52, 2.57, 0.0])
    along = np.array([0.0, 0.0, 1.0])
    shaft = Tube(middle + 0.54 * along, middle + (2.0 * count + 0.73) * along, 0.5)
    heads: list[Ball] = []
    necks: list[Tube] = []
    for n in range(count):
        turn, neck, radius = rng.uniform((0, 0.3, 0.25), (2 * math.pi, 0.8, 0.4))
        foot = middle + (1.6 + 2.0 * n) * along
        way = np.array([math.sin(turn), math.cos(turn), rng.uniform(-0.3, 0.3)])
        heads.append(Ball(foot + (0.5 + neck + radius) * way, radius))
        necks.append(Tube(foot, heads[-1].center, 0.15, NECK))
    return scene.add(*heads, shaft, *necks)


def _sizes(tables: Tables) -> dict[str, NDArray[np.float64]]:
    """Columns that turning an image must not change, each in rising order."""
    columns = ("head_vol", "spine_length", "neck_length", "head_diameter_um")
    sizes = {name: np.sort(tables.spines[name].to_numpy(float)) for name in columns}
    return sizes | {"dendrite_length": np.sort(tables.dendrites["dendrite_length"].to_numpy(float))}


def _changes(
    name: str, usual: dict[str, NDArray[np.float64]], found: dict[str, NDArray[np.float64]]
) -> Iterator[Row]:
    for column, values in usual.items():
        same = len(values) == len(found[column])
        errors = list(found[column] / values - 1) if same else [math.nan]
        within = EXACT if column == "head_vol" else NEARLY
        worst = max(map(abs, errors))
        text = f"{len(found[column])} of {len(values)}" if math.isnan(worst) else f"{worst:.2%}"
        yield Row(f"{name}: {column}", "no change", text, f"{within:.0%}", worst <= within, "-")
