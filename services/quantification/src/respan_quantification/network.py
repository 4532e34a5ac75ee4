"""Distances along a dendrite: a tree of branches is a network, and spines have their feet on it.

N nodes, B branches (1..B; 0 stands for the root itself), n feet. A step is the straight way from a
node's parent to the node; it has the node's number. Lengths are µm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing, Zyx
from respan_quantification.tree import Floats, Ints, Points, Tree

BORDER_REACH_UM = 2.0
"""How far beyond a dendrite's own radius the image must go on for its spines to be seen whole.

Most spines of pyramidal cells are shorter; a rarer longer one is lost at a face, as it would be
with any finite margin.
"""
_CANDIDATES = 10_000_000
"""Pairs of feet and steps that are looked at together; bounds memory for any reach."""


@dataclass(frozen=True)
class Feet:
    """Places on a network: branch, way from the root, the step they are on, and the point."""

    branch: Ints
    walked_um: Floats
    step: Ints
    points_um: Points

    def __len__(self) -> int:
        """Number of feet."""
        return len(self.branch)

    def __getitem__(self, chosen: slice | NDArray[np.integer]) -> Feet:
        """Some of the feet."""
        return Feet(
            self.branch[chosen], self.walked_um[chosen], self.step[chosen], self.points_um[chosen]
        )


@dataclass(frozen=True)
class Network:
    """What a tree says about ways along it."""

    tree: Tree

    @cached_property
    def parent(self) -> Ints:
        """Branch that each branch 0..B begins on; 0 for those at the root, and for 0 itself."""
        return np.concatenate([[0], self.tree.branch_graph.parent])

    @cached_property
    def start_um(self) -> Floats:
        """Way from the root to the start of branches 0..B."""
        return np.concatenate([[0.0], self.tree.walked_um[self.tree.branch_graph.first]])

    @cached_property
    def end_um(self) -> Floats:
        """Way from the root to the end of branches 0..B."""
        return np.concatenate([[0.0], self.tree.walked_um[self.tree.branch_graph.last]])

    @cached_property
    def steps_um(self) -> Floats:
        """Length of every node's step; 0 at the root."""
        above = np.maximum(self.tree.parents, 0)
        steps: Floats = self.tree.walked_um - self.tree.walked_um[above]
        return steps

    def feet(self, branch: Ints, walked_um: Floats) -> Feet:
        """Places given by their branch and their way from the root."""
        order, keys, stride = self._search
        lasts = np.searchsorted(self.tree.branch[order], branch, side="right") - 1
        found = np.minimum(np.searchsorted(keys, branch * stride + walked_um), lasts)
        node = order[found]
        left = np.where(self.steps_um[node] > 0, self.tree.walked_um[node] - walked_um, 0.0)
        return self._feet_on(node, left, branch)

    def random_feet(self, count: int, random: np.random.Generator) -> Feet:
        """Places of which every µm of the network is as likely as every other."""
        ends_um = np.cumsum(self.steps_um)
        at_um = random.uniform(0.0, ends_um[-1], count)
        node = np.minimum(np.searchsorted(ends_um, at_um, side="right"), len(ends_um) - 1)
        return self._feet_on(node, ends_um[node] - at_um, self.tree.branch[node])

    def distance_um(self, first: Feet, second: Feet) -> Floats:
        """Way along the network between pairs of feet."""
        parting_um = self._parting_um(first, second)
        return np.asarray(np.abs(first.walked_um + second.walked_um - 2 * parting_um))

    def pairs_within(self, feet: Feet, radius_um: float, groups: Ints) -> tuple[Ints, Floats]:
        """Pairs of feet of one group that are at most so far apart: indices (k, 2), and the way.

        Feet are never nearer along the network than in a straight line, so those are candidates.
        """
        apart = np.column_stack([feet.points_um, groups * (2.0 * radius_um + 1.0)])
        pairs = cKDTree(apart).query_pairs(radius_um * (1 + 1e-9) + 1e-9, output_type="ndarray")
        away_um = self.distance_um(feet[pairs[:, 0]], feet[pairs[:, 1]])
        near = away_um <= radius_um
        return pairs[near], away_um[near]

    def nearest_um(self, feet: Feet, groups: Ints | None = None) -> Floats:
        """Way to the nearest other foot of the same group; infinite for a lone one.

        A foot's nearest is its neighbor on the branch, or beyond the branch's ends. How far the
        nearest foot is from every branch's end, outside the branch, is found in two sweeps over
        all branches: from the tips to the root, and back.
        """
        groups = np.zeros(len(feet), np.int64) if groups is None else groups
        count, branches = int(groups.max(initial=-1)) + 1, len(self.parent)
        row = groups * branches + feet.branch
        order = np.lexsort((feet.walked_um, row))
        row, walked_um, branch = row[order], feet.walked_um[order], feet.branch[order]
        begins = np.concatenate([[True], row[1:] != row[:-1]]) if len(row) else np.zeros(0, bool)
        ends = np.concatenate([begins[1:], [True]]) if len(row) else begins
        first = np.full(count * branches, np.inf)
        last = np.full(count * branches, -np.inf)
        first[row[begins]], last[row[ends]] = walked_um[begins], walked_um[ends]
        before, behind = self._from_ends(
            first.reshape(count, branches).T, last.reshape(count, branches).T
        )
        group = row // branches
        gap = np.diff(walked_um, prepend=np.nan)
        back = np.where(begins, walked_um - self.start_um[branch] + before[branch, group], gap)
        on = np.where(
            ends, self.end_um[branch] - walked_um + behind[branch, group], np.append(gap[1:], 0.0)
        )
        nearest = np.empty(len(order))
        nearest[order] = np.minimum(back, on)
        return nearest

    def around(self, feet: Feet, reach_um: float) -> tuple[Ints, Floats]:
        """Other feet within reach of each foot, and the length of network there."""
        steps = np.flatnonzero(self.steps_um > 0)
        every, middles = cKDTree(feet.points_um), cKDTree(self._middles_um[steps])
        size = max(_CANDIDATES // max(len(feet), len(steps), 1), 1)
        others, lengths = [np.zeros(0, np.int64)], [np.zeros(0)]
        for start in range(0, len(feet), size):
            some = feet[start : start + size]
            others.append(self._count_within(some, feet, every, reach_um))
            lengths.append(self._length_within(some, steps, middles, reach_um))
        return np.concatenate(others), np.concatenate(lengths)

    def usable(self, shape_zyx: Zyx, spacing: VoxelSpacing) -> NDArray[np.bool_]:
        """Steps with room for spines on all sides: far enough from the image's faces.

        In a single plane, only the faces in y and x count: spines above it are lost everywhere.
        """
        above, middle = np.maximum(self.tree.parents, 0), self._middles_um
        radius = (self.tree.radius_um + self.tree.radius_um[above]) / 2
        room = np.full(len(above), np.inf)
        for axis in range(0 if shape_zyx[0] > 1 else 1, 3):
            edge = spacing.zyx[axis]
            low, high = middle[:, axis] + edge / 2, (shape_zyx[axis] - 0.5) * edge - middle[:, axis]
            room = np.minimum(room, np.minimum(low, high))
        return np.asarray(room >= radius + BORDER_REACH_UM)

    @cached_property
    def _middles_um(self) -> Points:
        """Middle of every step."""
        above = np.maximum(self.tree.parents, 0)
        return np.asarray((self.tree.points_um + self.tree.points_um[above]) / 2)

    @cached_property
    def _search(self) -> tuple[Ints, Floats, float]:
        """Nodes by branch and way, a key that grows in this order, and the key's step per branch.

        The root is in the branches that begin there, not before them.
        """
        tree = self.tree
        order = np.lexsort((tree.walked_um, tree.branch))
        order = order[tree.parents[order] >= 0] if len(order) > 1 else order
        stride = float(tree.walked_um.max()) + 1.0
        return order, tree.branch[order] * stride + tree.walked_um[order], stride

    def _feet_on(self, step: Ints, left_um: Floats, branch: Ints) -> Feet:
        """Feet on steps, so far before their ends."""
        tree, length = self.tree, self.steps_um[step]
        share = np.divide(left_um, length, out=np.zeros(len(step)), where=length > 0)
        share = np.clip(share, 0.0, 1.0)
        above = np.maximum(tree.parents[step], 0)
        way = tree.points_um[above] - tree.points_um[step]
        points_um = tree.points_um[step] + share[:, None] * way
        return Feet(branch, tree.walked_um[step] - share * length, step, points_um)

    @cached_property
    def _depth(self) -> Ints:
        depth = np.zeros(len(self.parent), np.int64)
        depth[1:] = self.tree.branch_graph.order
        return depth

    @cached_property
    def _ancestors(self) -> list[Ints]:
        """Branches 1, 2, 4, ... steps towards the root."""
        found = [self.parent]
        while found[-1].any():
            found.append(found[-1][found[-1]])
        return found

    def _parting_um(self, first: Feet, second: Feet) -> Floats:
        """How far the ways from the root to both feet are the same."""
        meet = self._meeting(first.branch, second.branch)
        parting_um = self.end_um[meet]
        for feet in (first, second):
            on_it = np.minimum(parting_um, feet.walked_um)
            parting_um = np.where(meet == feet.branch, on_it, parting_um)
        return np.asarray(parting_um)

    def _meeting(self, first: Ints, second: Ints) -> Ints:
        """The last branch that is on the ways from the root to both."""
        first, second = first.copy(), second.copy()
        for level, above in reversed(list(enumerate(self._ancestors))):
            for one, other in ((first, second), (second, first)):
                deeper = self._depth[one] - self._depth[other] >= 2**level
                one[deeper] = above[one[deeper]]
        for above in reversed(self._ancestors):
            apart = above[first] != above[second]
            first, second = (
                np.where(apart, above[first], first),
                np.where(apart, above[second], second),
            )
        return np.where(first == second, first, self.parent[first])

    def _from_ends(self, first: Floats, last: Floats) -> tuple[Floats, Floats]:
        """Way from every branch's start and end to the nearest foot that is not on the branch.

        Parameters
        ----------
        first, last : float array, shape (B + 1, groups)
            Way from the root to the first and last foot of each branch; infinite without one.
        """
        length = self.end_um - self.start_um
        into = first - self.start_um[:, None]
        best, second = np.full_like(first, np.inf), np.full_like(first, np.inf)
        for branch in range(len(length) - 1, 0, -1):
            above = self.parent[branch]
            empty = np.isinf(into[branch])
            into[branch][empty] = length[branch] + best[branch][empty]
            worse = np.maximum(best[above], into[branch])
            second[above] = np.minimum(second[above], worse)
            best[above] = np.minimum(best[above], into[branch])
        before = np.full_like(first, np.inf)
        for branch in range(1, len(length)):
            above = self.parent[branch]
            # What is reached through this branch itself does not count.
            aside = np.where(into[branch] == best[above], second[above], best[above])
            back = np.where(
                np.isinf(last[above]),
                length[above] + before[above],
                self.end_um[above] - last[above],
            )
            before[branch] = np.minimum(aside, back)
        return before, best

    def _count_within(self, some: Feet, feet: Feet, tree: cKDTree, reach_um: float) -> Ints:
        """Feet within reach of each of some of them, without itself."""
        one, other = _near(some.points_um, tree, reach_um)
        within = self.distance_um(some[one], feet[other]) <= reach_um
        return np.asarray(np.bincount(one[within], minlength=len(some)) - 1)

    def _length_within(self, feet: Feet, steps: Ints, middles: cKDTree, reach_um: float) -> Floats:
        """Length of network within reach of each foot."""
        if not len(steps):
            return np.zeros(len(feet))
        foot, near = _near(feet.points_um, middles, reach_um + float(self.steps_um.max()) / 2)
        step = steps[near]
        start, end = feet[foot], self._nodes(step)
        parting_um, length = self._parting_um(start, end), self.steps_um[step]
        to_end = start.walked_um + end.walked_um - 2 * parting_um
        # A foot behind the step comes upon its end first, all others upon its start.
        to_step = np.where(parting_um >= end.walked_um, to_end, to_end - length)
        covered = np.clip(reach_um - to_step, 0.0, length)
        # Around a foot on the very step, the way runs in both directions.
        both = np.minimum(to_end, reach_um) + np.minimum(length - to_end, reach_um)
        covered = np.where(start.step == step, both, covered)
        return np.asarray(np.bincount(foot, covered, len(feet)), np.float64)

    def _nodes(self, node: Ints) -> Feet:
        tree = self.tree
        return Feet(tree.branch[node], tree.walked_um[node], node, tree.points_um[node])


def _near(points_um: Points, tree: cKDTree, reach_um: float) -> tuple[Ints, Ints]:
    """Pairs of a point and one of the tree's, at most so far apart in a straight line."""
    found = cKDTree(points_um).sparse_distance_matrix(
        tree, reach_um * (1 + 1e-9) + 1e-9, output_type="ndarray"
    )
    return found["i"], found["j"]


def nearest_in_space_um(points_um: Points) -> Floats:
    """Distance of each point, shape (n, 3), to the nearest other one; NaN for a lone point."""
    if len(points_um) < 2:
        return np.full(len(points_um), np.nan)
    away_um, _ = cKDTree(points_um).query(points_um, k=np.array([2]))
    return np.asarray(away_um)[:, 0]
