"""Whether spines along a dendrite are clustered, random or regular.

The measure is chance on the same dendrite: as many feet are thrown at random on its centerline,
many times. What tips, forks and the image's faces do to neighbors and pairs they do to random feet,
too, so nothing has to be corrected for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_quantification.columns import K_RADII_UM
from respan_quantification.network import Feet, Network

MOST_PLACEMENTS, LEAST_PLACEMENTS = 199, 39
"""39 are the fewest from which a two-sided 5 % can be told (Besag and Diggle, 1977)."""
_FEET = 40_000
"""Random feet that a dendrite may have at once and in all, unless that were too few placements."""
_ENVELOPE = (0.025, 0.975)

Statistics = dict[str, Any]


def clustering(network: Network, feet: Feet, seed: int = 0) -> Statistics:
    """Columns of the dendrite table that say how its spines are spread.

    Nearest-neighbor ratio and p after Clark and Evans (1954), K after Ripley (1976), both with the
    way along the network as the distance (Okabe and Yamada, 2001). Empty for fewer than 2 spines.
    """
    count, length_um = len(feet), float(network.steps_um.sum())
    if count < 2 or length_um == 0.0:
        return {}
    placements = int(np.clip(_FEET // count, LEAST_PLACEMENTS, MOST_PLACEMENTS))
    nearest, pairs = _of_random_feet(network, count, placements, np.random.default_rng(seed))
    mean_um = float(network.nearest_um(feet).mean())
    by_chance = float(nearest.mean())
    found: Statistics = {
        "nearest_neighbor_mean_um": mean_um,
        "nearest_neighbor_ratio": mean_um / by_chance,
        "nearest_neighbor_p": _two_sided(mean_um, nearest),
        "random_placements": placements,
    }
    own = _pair_counts(network, feet, np.zeros(count, np.int64), 1)[0]
    for column, radius in enumerate(K_RADII_UM):
        expected = float(pairs[:, column].mean())
        if expected > 0:
            low, high = np.quantile(pairs[:, column], _ENVELOPE) / expected
            found[f"k_ratio_{radius:g}um"] = float(own[column]) / expected
            found[f"k_low_{radius:g}um"], found[f"k_high_{radius:g}um"] = float(low), float(high)
    return found


def _of_random_feet(
    network: Network, count: int, placements: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean nearest way, shape (placements,), and pairs within radii, (placements, radii)."""
    at_once = max(_FEET // count, 1)
    nearest, pairs = [], []
    for start in range(0, placements, at_once):
        size = min(at_once, placements - start)
        groups = np.repeat(np.arange(size), count)
        feet = network.random_feet(size * count, random)
        nearest.append(network.nearest_um(feet, groups).reshape(size, count).mean(axis=1))
        pairs.append(_pair_counts(network, feet, groups, size))
    return np.concatenate(nearest), np.concatenate(pairs)


def _pair_counts(
    network: Network, feet: Feet, groups: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Pairs of feet of each group within each radius, shape (groups, radii)."""
    pairs, away_um = network.pairs_within(feet, max(K_RADII_UM), groups)
    group = groups[pairs[:, 0]]
    return np.column_stack(
        [np.bincount(group[away_um <= radius], minlength=count) for radius in K_RADII_UM]
    ).astype(np.float64)


def _two_sided(value: float, by_chance: NDArray[np.float64]) -> float:
    """Share of placements, the real one among them, that are at least as extreme, twice."""
    below, above = np.sum(by_chance <= value), np.sum(by_chance >= value)
    return float(min(2.0 * (min(below, above) + 1) / (len(by_chance) + 1), 1.0))
