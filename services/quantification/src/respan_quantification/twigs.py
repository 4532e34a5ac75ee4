"""Necks that a model took for dendrite: they would count as branches, and lower the density.

A spine whose neck has the dendrite's class sits at the end of a short, thin side branch whose inner
third bears no spine. Such a branch is no dendrite's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_quantification.tree import Tree

LONGEST_UM = 3.0
"""Length of such a branch beyond the surface of its stem, at most; few necks are longer than 2."""

THICKEST = 1.2
"""Its radius, at most, in radii of its stem; in few voxels radii are rough."""

AT_TIP_UM = 0.75
"""Distance of a spine's base from the branch's tip, at most."""


def without_necks(tree: Tree, spines: pd.DataFrame) -> Tree:
    """The tree without side branches that are necks of the spines at their tips.

    Parameters
    ----------
    spines
        The dendrite's spines with `base_z_um`, `base_y_um`, `base_x_um`; missing without a base.
    """
    base_um = spines[["base_z_um", "base_y_um", "base_x_um"]].to_numpy(np.float64)
    base_um = base_um[np.isfinite(base_um).all(axis=1)]
    while True:
        dropped = _necks(tree, base_um)
        if not len(dropped):
            return tree
        tree = _without(tree, np.isin(tree.branch, dropped))


def _necks(tree: Tree, base_um: NDArray[np.float64]) -> NDArray[np.int64]:
    """Branches that are necks."""
    if not len(base_um) or tree.branches < 2:
        return np.zeros(0, np.int64)
    graph, rows = tree.branch_graph, tree.branches_table()
    places = tree.place(base_um)
    stem_um = tree.radius_um[graph.first]
    found = []
    for number, row in enumerate(rows, start=1):
        length_um, radius_um = row["length_um"], stem_um[number - 1]
        is_side = row["end"] == "tip" and row["start"] == "fork"
        if not is_side or length_um - radius_um > LONGEST_UM:
            continue
        own = tree.branch == number
        if np.median(tree.radius_um[own]) > THICKEST * radius_um:
            continue
        away_um = np.linalg.norm(base_um - tree.points_um[graph.last[number - 1]], axis=1)
        # Spines beside it stand on the stem, up to a radius from where the branch leaves it.
        inner = (places.on_branch_um > 2 * radius_um) & (places.on_branch_um < length_um / 3)
        if (away_um <= AT_TIP_UM).any() and not (inner & (places.branch == number)).any():
            found.append(number)
    return np.array(found, np.int64)


def _without(tree: Tree, gone: NDArray[np.bool_]) -> Tree:
    """The tree without some nodes and all that follow them; the root stays."""
    kept = ~gone
    kept[0] = True
    # Parents of kept nodes are kept: the branches that go end in tips.
    number = np.cumsum(kept) - 1
    above = tree.parents[kept]
    return replace(
        tree,
        points_um=tree.points_um[kept],
        parents=np.where(above >= 0, number[above], -1),
        radius_um=tree.radius_um[kept],
    )
