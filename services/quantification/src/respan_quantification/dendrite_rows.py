"""What the tables say of one dendrite and its branches, besides means over spines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from respan_common.geometry import VoxelSpacing, Zyx
from respan_quantification.clustering import clustering
from respan_quantification.network import Feet, Network
from respan_quantification.tree import Tree

Row = dict[str, Any]


@dataclass(frozen=True)
class DendriteRows:
    """One dendrite's row, its branches' rows, and columns of its spines' rows."""

    dendrite: Row
    branches: list[Row]
    spines: pd.DataFrame
    """nearest_spine_along_um and local_density_per_um; index as the given table's."""


def describe(
    dendrite_id: int,
    tree: Tree,
    spines: pd.DataFrame,
    shape_zyx: Zyx,
    spacing: VoxelSpacing,
    density_window_um: float,
) -> DendriteRows:
    """Lengths, usable stretches, branches, spacing and clustering of one dendrite.

    Parameters
    ----------
    spines
        The dendrite's spines with branch_id and position_on_dendrite_um; none is fine.
    shape_zyx
        Voxels of the whole image: stretches near its faces are not usable for densities.

    Returns
    -------
    DendriteRows
        The dendrite's row lacks dendrite_volume and touches_border, which the tree does not know.
    """
    network = Network(tree)
    feet = network.feet(
        spines["branch_id"].to_numpy(np.int64),
        spines["position_on_dendrite_um"].to_numpy(np.float64),
    )
    usable = network.usable(shape_zyx, spacing)
    branches = _branch_rows(dendrite_id, network, feet, usable)
    usable_um = np.where(usable, network.steps_um, 0.0)
    dendrite = {
        "dendrite_id": dendrite_id,
        "dendrite_length": tree.length_um,
        "branches": tree.branches,
        "tips": len(tree.tips),
        "forks": len(tree.forks),
        "loops": tree.loops,
        "soma_id": tree.soma_id,
        "max_branch_order": int(tree.branch_graph.order.max()),
        "mean_radius_um": _mean_radius_um(branches),
        "usable_length_um": float(usable_um.sum()),
        "usable_spines": int(usable[feet.step].sum()),
        **clustering(network, feet),
    }
    return DendriteRows(dendrite, branches, _spacing(network, feet, density_window_um, spines))


def _branch_rows(
    dendrite_id: int, network: Network, feet: Feet, usable: np.ndarray[Any, Any]
) -> list[Row]:
    tree = network.tree
    usable_um = np.where(usable, network.steps_um, 0.0)
    lengths = np.bincount(tree.branch, usable_um, tree.branches + 1)
    counts = np.bincount(feet.branch, usable[feet.step], tree.branches + 1)
    return [
        {
            "dendrite_id": dendrite_id,
            **row,
            "usable_length_um": float(lengths[row["branch_id"]]),
            "usable_spines": int(counts[row["branch_id"]]),
        }
        for row in tree.branches_table()
    ]


def _mean_radius_um(branches: list[Row]) -> float:
    lengths = np.array([row["length_um"] for row in branches])
    radii = np.array([row["mean_radius_um"] for row in branches])
    return float(np.average(radii, weights=lengths)) if lengths.sum() > 0 else float("nan")


def _spacing(network: Network, feet: Feet, window_um: float, spines: pd.DataFrame) -> pd.DataFrame:
    nearest_um = network.nearest_um(feet)
    others, length_um = network.around(feet, window_um / 2)
    missing = np.full(len(feet), np.nan)
    return pd.DataFrame(
        {
            "nearest_spine_along_um": np.where(np.isinf(nearest_um), np.nan, nearest_um),
            "local_density_per_um": np.divide(others, length_um, out=missing, where=length_um > 0),
        },
        index=spines.index,
    )
