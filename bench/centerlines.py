"""Error of dendrite lengths on random phantoms: `python -m bench.centerlines`.

Each row: so many phantoms of one kind at one anisotropy, with random orientation, place within the
voxel, radius (0.3 to 1 µm) and, for curves, radius of curvature (4 to 10 times the dendrite's own).
Ends are flat. Where slices are coarse, an end lies somewhere between the last voxel center inside
and the first one outside: up to half a slice more or less at each end, and no method knows more.
`mean` is the error that stays when placements average out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import cc3d
import numpy as np
from numpy.typing import NDArray
from tests.unit.respan_quantification import dendrite_phantoms as phantoms

from respan_common.geometry import VoxelSpacing

Points = NDArray[np.float64]
Drawn = tuple[NDArray[np.int64], float]
Maker = Callable[[np.random.Generator, float, VoxelSpacing, float], Drawn]


def placed(curve: Points, rng: np.random.Generator, spacing: VoxelSpacing) -> Points:
    """The curve, turned and shifted at random, far from the whole image's first voxel."""
    turned = curve @ phantoms.rotation(rng).T
    shift = rng.uniform(-0.5, 0.5, 3) * spacing.zyx
    return np.asarray(turned + shift)


def one_curve(
    curve: Points, rng: np.random.Generator, radius: float, spacing: VoxelSpacing
) -> Drawn:
    """A dendrite around a curve, and its length."""
    at = placed(curve, rng, spacing)
    return phantoms.tube(at, radius, spacing), phantoms.curve_length(at)


def straight(
    rng: np.random.Generator, radius: float, spacing: VoxelSpacing, length: float
) -> Drawn:
    """A straight dendrite."""
    return one_curve(phantoms.line((0, 0, 0), (0, 0, length)), rng, radius, spacing)


def bent(rng: np.random.Generator, radius: float, spacing: VoxelSpacing, length: float) -> Drawn:
    """Part of a circle."""
    bend = rng.uniform(4, 10) * radius
    curve = phantoms.arc(bend, min(length / bend, 1.5 * np.pi))
    return one_curve(curve, rng, radius, spacing)


def coiled(rng: np.random.Generator, radius: float, spacing: VoxelSpacing, length: float) -> Drawn:
    """Part of a helix that rises at 45 degrees."""
    around = rng.uniform(4, 10) * radius
    pitch = 2 * np.pi * around
    turns = length / (np.sqrt(2) * 2 * np.pi * around)
    return one_curve(phantoms.helix(around, pitch, turns), rng, radius, spacing)


def forked(rng: np.random.Generator, radius: float, spacing: VoxelSpacing, length: float) -> Drawn:
    """A stem and two arms that leave it at 25 to 60 degrees on either side."""
    turn, shift = phantoms.rotation(rng), rng.uniform(-0.5, 0.5, 3) * spacing.zyx
    one, other = np.radians(rng.uniform(25, 60, 2)) * (1, -1)
    ends = [(0.0, 0.0, -length / 2)]
    ends += [(0.0, length / 3 * np.sin(a), length / 3 * np.cos(a)) for a in (one, other)]
    arms = [phantoms.line(shift, turn @ end + shift) for end in ends]
    joint = phantoms.ball(shift, radius, spacing)
    voxels = phantoms.union(joint, *(phantoms.tube(arm, radius, spacing) for arm in arms))
    return voxels, sum(phantoms.curve_length(arm) for arm in arms)


def steep(rng: np.random.Generator, radius: float, spacing: VoxelSpacing, length: float) -> Drawn:
    """A straight dendrite within 25 degrees of the z axis."""
    tilt, turn = np.radians(rng.uniform(0, 25)), rng.uniform(0, 2 * np.pi)
    across = np.sin(tilt) * np.array([0.0, np.cos(turn), np.sin(turn)])
    half = (np.array([np.cos(tilt), 0, 0]) + across) * (length + rng.uniform(-0.5, 0.5)) / 2
    shift = rng.uniform(-0.5, 0.5, 3) * spacing.zyx
    line = phantoms.line(shift - half, shift + half)
    return phantoms.tube(line, radius, spacing), phantoms.curve_length(line)


KINDS: dict[str, Maker] = {
    "tube": straight,
    "steep tube": steep,
    "arc": bent,
    "helix": coiled,
    "fork": forked,
}


def is_connected(voxels: NDArray[np.int64]) -> bool:
    """Whether these voxels are one object (26 neighbors)."""
    corner = voxels.min(axis=0)
    mask = np.zeros(voxels.max(axis=0) - corner + 1, bool)
    mask[tuple((voxels - corner).T)] = True
    return int(cc3d.connected_components(mask, connectivity=26).max()) == 1


def errors_percent(
    kind: Maker, anisotropy: float, count: int, length: float, seed: int
) -> tuple[Points, int]:
    """Error of each phantom that is one object, and how many have a wrong number of branches.

    Thin dendrites fall apart between coarse slices; then there is no dendrite to measure.
    """
    rng, errors, wrong = np.random.default_rng(seed), [], 0
    spacing = VoxelSpacing(0.1 * anisotropy, 0.1, 0.1)
    while len(errors) < count:
        voxels, truth = kind(rng, rng.uniform(0.3, 1.0), spacing, length)
        if not is_connected(voxels):
            continue
        tree = phantoms.grown(voxels, spacing)
        wrong += tree.branches != (3 if kind is forked else 1)
        errors.append(100 * (tree.length_um / truth - 1))
    return np.array(errors), wrong


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="phantoms per row")
    parser.add_argument("--length", type=float, default=30.0, help="µm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--anisotropy", type=float, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--phantom", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()
    print("| phantom | anisotropy | mean | median | 90 % within | worst | wrong branches |")
    print("|---|---|---|---|---|---|---|")
    for name in args.phantom:
        kind = KINDS[name]
        for anisotropy in args.anisotropy:
            errors, wrong = errors_percent(kind, anisotropy, args.count, args.length, args.seed)
            size = np.sort(np.abs(errors))
            print(
                f"| {name} | {anisotropy:g} | {errors.mean():+.2f} % | {np.median(errors):+.2f} % "
                f"| {np.quantile(size, 0.9):.2f} % | {size[-1]:.2f} % | {wrong} of {len(errors)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
