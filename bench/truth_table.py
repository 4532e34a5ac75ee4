"""The scenes on which RESPAN's behavior is known: what it gives, and what is true."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.measuring import Tables, measure_scene
from bench.rows import Row, elsewhere, fact, number
from bench.scenes import NECK, Ball, Point, Scene, Tube, around
from respan_common.blocks import grid
from respan_common.geometry import VoxelSpacing

FINE = VoxelSpacing(0.1, 0.1, 0.1)
CONFOCAL = VoxelSpacing(0.3, 0.1, 0.1)
TWO_PHOTON = VoxelSpacing(1.0, 0.102, 0.102)

_CYLINDERS = (
    ("cylinder r 0.5 along x, 0.1 µm", (0.0, 0.0, 16.0), FINE, "15.4"),
    ("cylinder at 45° in xy, 0.1 µm", (0.0, 10.0, 10.0), FINE, "10.10"),
    ("cylinder on the space diagonal, 0.1 µm", (9.382, 9.382, 9.382), FINE, "9.90"),
    ("cylinder in xz, 0.3 × 0.1 µm", (8.0, 0.0, 10.0), CONFOCAL, "10.00"),
    ("cylinder in xz, 1.0 × 0.102 µm", (8.0, 0.0, 10.0), TWO_PHOTON, "9.89"),
)


def rows(draws: int) -> Iterator[Row]:
    """All rows; sub-voxel places are drawn that many times."""
    for scene, way, spacing, original in _CYLINDERS:
        yield _cylinder(scene, np.array(way), spacing, original)
    yield from _head(draws)
    yield from _head_along_z(draws)
    yield _far_object()
    yield _two_dendrites()
    yield _no_spines()
    yield _tiles()
    yield elsewhere(
        "prediction with IoU 0.23 to a true spine", "no match at IoU 0.5", "respan validate",
        "TP and FP",
    )  # fmt: skip
    yield elsewhere(
        "spine absent at the middle one of three times", "same id", "respan track", "new id"
    )


def dendrite_length(tables: Tables) -> float:
    """Length of the only dendrite."""
    lengths = tables.dendrites["dendrite_length"]
    return float(lengths.iloc[0]) if len(lengths) == 1 else float("nan")


def one_spine(
    spacing: VoxelSpacing, direction: Point, shift: Point, *, neck: bool = True, radius: float = 0.3
) -> tuple[Scene, Ball]:
    """A shaft along x with one spine: neck 0.6 µm, head of some radius; `shift` is in voxels."""
    middle = np.array([2.6, 2.6, 3.5]) + np.asarray(shift) * spacing.zyx
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    half = np.array([0, 0, 3.0])
    head = Ball(middle + unit * (0.5 + 0.6 + radius), radius)
    scene = Scene((5.2, 5.2, 7), spacing, [Tube(middle - half, middle + half, 0.5), head])
    return scene.add(Tube(middle, head.center, 0.12, NECK)) if neck else scene, head


def shifts(draws: int, seed: int = 0) -> list[Point]:
    """Places within a voxel, spread evenly: a mean over them settles sooner than by chance."""
    # Kronecker sequence of the three-dimensional golden ratio (root of g^4 = g + 1).
    golden = 1.2207440846057596
    steps = np.arange(1, draws + 1)[:, None] * golden ** -np.arange(1.0, 4.0)
    return list((steps + 0.37 * seed) % 1.0 - 0.5)


def mean_over_shifts(
    columns: list[str], spacing: VoxelSpacing, direction: Point, draws: int
) -> dict[str, float]:
    """Mean of columns of the only spine, wherever it falls on the grid of voxels."""
    found = [
        measure_scene(one_spine(spacing, direction, shift)[0]).spines for shift in shifts(draws)
    ]
    return {
        name: float(np.mean([t[name].iloc[0] if len(t) == 1 else np.nan for t in found]))
        for name in columns
    }


def _cylinder(name: str, way: np.ndarray, spacing: VoxelSpacing, original: str) -> Row:
    start = np.array([1.5, 1.5, 1.5])
    truth = float(np.linalg.norm(way))
    scene = around(Tube(start, start + way, 0.5), spacing=spacing)
    ours = dendrite_length(measure_scene(scene))
    return number(f"{name}: length µm", truth, ours, 0.01 * truth, original, digits=2)


def _head(draws: int) -> Iterator[Row]:
    scene, diagonal = "head r 0.30, 0.90 µm above the shaft, 0.1 µm", 0.173
    columns = ["head_vol", "neck_length", "spine_length"]
    found = mean_over_shifts(columns, FINE, (0, 1, 0), draws)
    volume = 4 / 3 * np.pi * 0.3**3
    yield number(f"{scene}: volume µm³", volume, found["head_vol"], 0.01 * volume, "0.1036", 4)
    yield number(f"{scene}: neck µm", 0.6, found["neck_length"], diagonal, "0.50")
    yield number(f"{scene}: base to tip µm", 1.2, found["spine_length"], diagonal, "0.90")


def _head_along_z(draws: int) -> Iterator[Row]:
    scene, diagonal = "the same along z, 0.3 × 0.1 µm", 0.332
    columns = ["head_euclidean_dist_to_dend", "spine_length_euclidean", "neck_length"]
    found = mean_over_shifts([*columns, "spine_length"], CONFOCAL, (1, 0, 0), draws)
    yield number(f"{scene}: nearest distance µm", 0.6, found[columns[0]], diagonal, "0.40")
    yield number(f"{scene}: farthest distance µm", 1.2, found[columns[1]], diagonal, "0.50")
    yield number(f"{scene}: neck µm", 0.6, found["neck_length"], diagonal, "0.40")
    yield number(f"{scene}: base to tip µm", 1.2, found["spine_length"], diagonal, "0.50")


def _far_object() -> Row:
    scene = Scene((30, 4, 10), TWO_PHOTON, [Tube((3, 2, 1), (3, 2, 9), 0.9), Ball((26, 2, 5), 0.8)])
    found = measure_scene(scene)
    ours = "rejected" if not len(found.spines) else "accepted"
    return fact("object 22 µm above, 1.0 × 0.102 µm, limit 4 µm", "rejected", ours, "accepted")


def _two_dendrites() -> Row:
    scene, _ = one_spine(FINE, (0, 1, 0), (0, 0, 0))
    scene.add(Tube((0.7, 0.7, 0.5), (0.7, 0.7, 6.5), 0.5))
    rows = len(measure_scene(scene).dendrites)
    return fact("two dendrites, one with a spine", "2 rows", f"{rows} rows", "1 row")


def _no_spines() -> Row:
    scene = Scene((3, 3, 10), FINE, [Tube((1.5, 1.5, 1), (1.5, 1.5, 9), 0.5)])
    found = measure_scene(scene)
    ours = f"{len(found.spines)} spines, {len(found.dendrites)} dendrite"
    return fact("labels without spines", "0 spines, 1 dendrite", ours, "crash")


def _tiles() -> Row:
    """Every voxel is owned by one block, counted on the axes' marks."""
    shape = (100, 2048, 2048)
    covered = sum(
        int(np.prod([part.stop - part.start for part in block.inner]))
        for block in grid(shape, (64, 512, 512))
    )
    ours = f"{covered / np.prod(shape):.1%}"
    return fact("tiles of a 100 × 2048 × 2048 volume", "100.0%", ours, "54.6 %")
