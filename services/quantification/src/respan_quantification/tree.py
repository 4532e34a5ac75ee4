"""A dendrite's branch graph: a rooted tree of nodes in µm, and where points lie along it.

N nodes, B branches. Branches are the stretches between root, forks and tips; they are numbered
1..B, a branch after the one it begins on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.float64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CANDIDATES = 8
"""Stretches of centerline among which a point's nearest one is sought exactly."""


@dataclass(frozen=True)
class Places:
    """Where n points lie along a tree: at the nearest point of its centerline.

    `order` counts branches from the root's, which is 1. `position_um` runs from the root,
    `on_branch_um` from the branch's start. `tangent` is a unit vector from root to tip, NaN
    where the dendrite is a dot. `center_um` and `tangent` have shape (n, 3).
    """

    branch: Ints
    order: Ints
    position_um: Floats
    on_branch_um: Floats
    center_um: Points
    tangent: Points
    radius_um: Floats


@dataclass(frozen=True)
class Branches:
    """Branches 1..B in rows 0..B-1; `parent` is 0 for those that begin at the root.

    `first` is the root or fork that a branch begins at, `last` the fork or tip that ends it
    (nodes). The root is no fork, whatever begins there.
    """

    parent: Ints
    order: Ints
    first: Ints
    last: Ints


@dataclass(frozen=True)
class Tree:
    """Nodes of one dendrite; a node's parent comes before it, the first node is the root.

    `points_um` has shape (N, 3), in µm of the whole image; `parents` is -1 at the root;
    `radius_um` is the distance to the background. `loops` counts the places where the dendrite
    closes on itself and the tree does not (see `loops.py`). `soma_id` is 0 if the dendrite
    touches no soma; `soma_gap_um` is the way from the root to the soma's surface.
    """

    points_um: Points
    parents: Ints
    radius_um: Floats
    loops: int = 0
    soma_id: int = 0
    soma_gap_um: float = 0.0

    @property
    def length_um(self) -> float:
        """Length of all branches together."""
        return float(self._steps_um.sum())

    @property
    def branches(self) -> int:
        """Number of branches; a dot has one, of length 0."""
        return len(self.branch_graph.parent)

    @property
    def forks(self) -> Ints:
        """Nodes other than the root where two or more branches begin."""
        return np.flatnonzero((self._children > 1) & (self.parents >= 0))

    @property
    def tips(self) -> Ints:
        """Nodes where a branch ends and none begins."""
        return np.flatnonzero((self._children == 0) & (self.parents >= 0))

    @cached_property
    def walked_um(self) -> Floats:
        """Distance of every node from the root, along the tree."""
        steps, walked = self._steps_um, np.zeros(len(self.parents))
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                walked[node] = walked[parent] + steps[node]
        return walked

    @cached_property
    def branch(self) -> Ints:
        """Branch that each node belongs to, as its end or inside; 1 at the root."""
        begins = self._begins
        numbers = np.cumsum(begins)
        branch = np.ones(len(self.parents), dtype=np.int64)
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                branch[node] = numbers[node] if begins[node] else branch[parent]
        return branch

    @cached_property
    def branch_graph(self) -> Branches:
        """How branches begin on one another."""
        second = np.flatnonzero(self._begins)
        if not len(second):  # a dot
            zero = np.zeros(1, np.int64)
            return Branches(zero, zero + 1, zero, zero)
        first = self.parents[second]
        parent = np.where(first > 0, self.branch[first], 0)
        order = np.ones(len(second), dtype=np.int64)
        for row, above in enumerate(parent.tolist()):
            order[row] = order[above - 1] + 1 if above else 1
        ends = np.flatnonzero((self._children != 1) & (self.parents >= 0))
        last = np.zeros(len(second), dtype=np.int64)
        last[self.branch[ends] - 1] = ends
        return Branches(parent, order, first, last)

    def branches_table(self) -> list[dict[str, Any]]:
        """One row per branch: identity, length, kind and place (z, y, x) of both ends, radius."""
        graph = self.branch_graph
        lengths = self._summed(self._steps_um)
        radii = self._mean_radii_um(lengths)
        ends_at_fork = np.isin(graph.last, self.forks)
        return [
            {
                "branch_id": row + 1,
                "parent_branch_id": int(graph.parent[row]),
                "branch_order": int(graph.order[row]),
                "length_um": float(lengths[row]),
                "start": "root" if graph.first[row] == 0 else "fork",
                "end": "fork" if ends_at_fork[row] else "tip",
                **_named("start", self.points_um[graph.first[row]]),
                **_named("end", self.points_um[graph.last[row]]),
                "mean_radius_um": float(radii[row]),
            }
            for row in range(self.branches)
        ]

    def place(self, points_um: Points) -> Places:
        """Nearest point of the centerline for each point, shape (n, 3); all must be finite."""
        points_um = np.asarray(points_um, dtype=np.float64).reshape(-1, 3)
        if len(self.parents) < 2:
            return self._all_at_the_root(len(points_um))
        node, share = self._nearest(points_um)
        parent, graph = self.parents[node], self.branch_graph
        walked, branch = self.walked_um, self.branch[node]
        position_um = _between(walked[parent], walked[node], share)
        return Places(
            branch=branch,
            order=graph.order[branch - 1],
            position_um=position_um,
            on_branch_um=position_um - walked[graph.first[branch - 1]],
            center_um=_between(self.points_um[parent], self.points_um[node], share[:, None]),
            tangent=_unit(_between(*self._tangents(node), share[:, None])),
            radius_um=_between(self.radius_um[parent], self.radius_um[node], share),
        )

    def position_um(self, points_um: Points) -> Floats:
        """Distance from the root, along the tree, of the places nearest to these points."""
        return self.place(points_um).position_um

    def save(self, path: Path) -> None:
        """Write an `.npz` archive of plain arrays."""
        np.savez(
            path,
            points_um=self.points_um,
            parents=self.parents,
            radius_um=self.radius_um,
            loops=self.loops,
            soma_id=self.soma_id,
            soma_gap_um=self.soma_gap_um,
        )

    @classmethod
    def load(cls, path: Path) -> Tree:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            return cls(
                archive["points_um"],
                archive["parents"],
                archive["radius_um"],
                int(archive["loops"]),
                int(archive["soma_id"]),
                float(archive["soma_gap_um"]),
            )

    @cached_property
    def _children(self) -> Ints:
        above = self.parents[self.parents >= 0]
        return np.bincount(above, minlength=len(self.parents)).astype(np.int64)

    @cached_property
    def _begins(self) -> NDArray[np.bool_]:
        """Nodes that follow the root or a fork, and so are the first of a branch."""
        above = np.maximum(self.parents, 0)
        return np.asarray((self.parents >= 0) & ((above == 0) | (self._children[above] > 1)))

    @cached_property
    def _steps(self) -> Points:
        """Way from each node's parent to it; 0 at the root."""
        return np.asarray(self.points_um - self.points_um[np.maximum(self.parents, 0)])

    @cached_property
    def _steps_um(self) -> Floats:
        return np.asarray(np.linalg.norm(self._steps, axis=1))

    def _summed(self, values: Floats) -> Floats:
        """Sum over the nodes of each branch."""
        return np.bincount(self.branch, values, self.branches + 1)[1:].astype(np.float64)

    def _mean_radii_um(self, lengths_um: Floats) -> Floats:
        """Mean radius along each branch; at its end if it has no length."""
        middle = (self.radius_um + self.radius_um[np.maximum(self.parents, 0)]) / 2
        total = self._summed(middle * self._steps_um)
        at_end = self.radius_um[self.branch_graph.last]
        return np.divide(total, lengths_um, out=at_end.copy(), where=lengths_um > 0)

    @cached_property
    def _pieces(self) -> tuple[cKDTree, Ints]:
        """Centers of short pieces of all steps, ready to be asked, and the node each leads to.

        None is longer than the mean step, so that a long step cannot hide behind others' nodes.
        """
        steps_um = self._steps_um[1:]
        counts = np.maximum(np.ceil(steps_um / max(steps_um.mean(), 1e-9)), 1).astype(np.int64)
        node = np.repeat(np.arange(1, len(self.parents)), counts)
        within = np.arange(len(node)) - np.repeat(np.cumsum(counts) - counts, counts)
        share = (within + 0.5) / counts[node - 1] - 1.0
        return cKDTree(self.points_um[node] + share[:, None] * self._steps[node]), node

    def _nearest(self, points_um: Points) -> tuple[Ints, Floats]:
        """Node whose step up holds the nearest point, and the share of that step walked to it."""
        pieces, nodes = self._pieces
        count = min(CANDIDATES, len(nodes))
        node = nodes[np.asarray(pieces.query(points_um, k=np.arange(1, count + 1))[1])]
        start, step = self.points_um[self.parents[node]], self._steps[node]
        square = np.maximum(np.square(self._steps_um[node]), 1e-18)
        share = np.einsum("nki,nki->nk", points_um[:, None] - start, step) / square
        share = np.clip(share, 0.0, 1.0)
        away = np.linalg.norm(points_um[:, None] - start - share[:, :, None] * step, axis=2)
        # Two steps share a node: the earlier one has it, whichever the search met first.
        tied = away <= away.min(axis=1, keepdims=True) + 1e-9
        chosen = np.argmin(np.where(tied, node, len(self.parents)), axis=1)
        rows = np.arange(len(points_um))
        return node[rows, chosen], share[rows, chosen]

    def _tangents(self, node: Ints) -> tuple[Points, Points]:
        """Directions at both ends of the steps up from these nodes.

        At a node within a branch that is the mean of the steps that meet there.
        """
        ahead = _unit(self._steps)
        smooth = ahead.copy()
        inner = np.flatnonzero(~self._begins & (self.parents >= 0))
        smooth[self.parents[inner]] = _unit(ahead[self.parents[inner]] + ahead[inner])
        start = np.where(self._begins[node][:, None], ahead[node], smooth[self.parents[node]])
        return start, smooth[node]

    def _all_at_the_root(self, count: int) -> Places:
        one, zero = np.ones(count, np.int64), np.zeros(count)
        return Places(
            branch=one,
            order=one,
            position_um=zero,
            on_branch_um=zero,
            center_um=np.repeat(self.points_um[:1], count, axis=0),
            tangent=np.full((count, 3), np.nan),
            radius_um=np.repeat(self.radius_um[:1], count),
        )


def _between(start: Floats, stop: Floats, share: Floats) -> Floats:
    return np.asarray(start + share * (stop - start))


def _unit(vectors: Points) -> Points:
    """Vectors of length 1; a zero vector stays one."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)[:, None])


def _named(which: str, point_um: Points) -> dict[str, float]:
    return {f"{which}_{axis}_um": float(at) for axis, at in zip("zyx", point_um, strict=True)}
