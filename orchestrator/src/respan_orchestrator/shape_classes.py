"""Classes of spine shapes from the spine table alone, by a rule set.

The literature finds a continuum, not kinds: the classes are a reading of the measurements, so they
are made from tables, can be made anew with other rules, and say how near the next class is.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_orchestrator.rule_sets import AMBIGUOUS, UNKNOWN, RuleSet

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLASS, MARGIN = "shape_class", "shape_margin"
_NO_NECK_UM = 0.1
"""A shorter neck without a width is a head that touches the dendrite beside some neck voxels."""


def classify(spines: pd.DataFrame, rules: RuleSet) -> pd.DataFrame:
    """Class of every spine, and how far it is from being of another.

    A spine is unknown if a measurement is missing that its class depends on; what does not matter
    may be missing. It is ambiguous if its margin is smaller than the rules'.

    Returns
    -------
    DataFrame
        `shape_class`; `shape_margin`: the smallest relative change of its quantities, each
        against its threshold, with which the class would be another; NaN if unknown, or if no
        change leads to another.
    """
    questions = rules.questions
    values = np.empty((len(spines), len(questions)))
    thresholds = np.array([threshold for _, threshold, _ in questions])
    for column, (name, _, _) in enumerate(questions):
        values[:, column] = quantity(spines, name)
    inclusive = np.array([counts for _, _, counts in questions], bool)
    with np.errstate(invalid="ignore"):
        beyond = np.where(inclusive, values >= thresholds, values > thresholds)
        distance = np.abs(values / thresholds - 1)
    missing = np.isnan(values)
    known = _Classes(rules)
    classes = known.of(beyond, missing)
    margin = np.where(classes == UNKNOWN, np.nan, _margins(known, beyond, missing, distance))
    margin = np.where(np.isinf(margin), np.nan, margin)
    classes = np.where(margin < rules.margin, AMBIGUOUS, classes)
    return pd.DataFrame({CLASS: classes.astype(object), MARGIN: margin}, index=spines.index).astype(
        {CLASS: "str"}
    )


def class_counts(classes: pd.Series[Any], owner: Ints, owners: int, rules: RuleSet) -> pd.DataFrame:
    """Spines of every class, one row for each of so many owners: spines_mushroom, ...

    Parameters
    ----------
    classes
        From `classify`.
    owner
        Number of each spine's owner (a dendrite, say) from 0; -1: it has none.
    """
    number = pd.Categorical(classes, categories=rules.classes).codes.astype(np.int64)
    count = len(rules.classes)
    cells = np.bincount((owner * count + number)[owner >= 0], minlength=owners * count)
    names = [count_column(shape) for shape in rules.classes]
    return pd.DataFrame(cells.reshape(owners, count), columns=names)


def count_column(shape: str) -> str:
    """Column with the number of spines of a class."""
    return f"spines_{shape}"


def quantity(spines: pd.DataFrame, name: str) -> Floats:
    """A quantity of every spine, by the name that rules give it; NaN where it is missing."""
    if " / " in name:
        above, below = (quantity(spines, part) for part in name.split(" / "))
        return _ratio(above, below)
    if name == "length_to_head":
        return quantity(spines, "spine_length / head_diameter_um")
    if name == "head_to_neck":
        return _head_to_neck(spines)
    if name == "nearest_base_um":
        return _nearest_base_um(spines)
    if name not in spines:
        return np.full(len(spines), np.nan)
    return np.asarray(spines[name].to_numpy("float64", na_value=np.nan))


class _Classes:
    """Class for every combination of answers. The answers to Q questions are the bits of a code."""

    def __init__(self, rules: RuleSet) -> None:
        questions = rules.questions
        self.weights = 2 ** np.arange(len(questions), dtype=np.int64)
        tests = [
            (rule.shape, [(questions.index(one.question), one.holds) for one in rule.conditions])
            for rule in rules.rules
        ]
        answers = itertools.product((False, True), repeat=len(questions))
        self._of_code = {
            int(self.weights @ np.array(answer, np.int64)) if answer else 0: next(
                (shape for shape, needs in tests if all(answer[n] == so for n, so in needs)),
                UNKNOWN,
            )
            for answer in answers
        }
        self.possible = lru_cache(maxsize=None)(self._possible)

    def of(self, beyond: NDArray[np.bool_], either: NDArray[np.bool_]) -> NDArray[np.object_]:
        """Class of each row, unknown if it hangs on a question whose answer may be either."""
        found = np.full(len(beyond), UNKNOWN, dtype=object)
        for rows, code, free in self._kinds(beyond, either):
            classes = self.possible(code, free)
            found[rows] = next(iter(classes)) if len(classes) == 1 else UNKNOWN
        return found

    def is_open(self, beyond: NDArray[np.bool_], either: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether several classes are possible for each row."""
        found = np.zeros(len(beyond), bool)
        for rows, code, free in self._kinds(beyond, either):
            found[rows] = len(self.possible(code, free)) > 1
        return found

    def _kinds(
        self, beyond: NDArray[np.bool_], either: NDArray[np.bool_]
    ) -> list[tuple[Ints, int, int]]:
        """Rows with equal answers and equal doubts: their numbers, both as codes."""
        codes = np.column_stack([(beyond & ~either) @ self.weights, either @ self.weights])
        kinds, kind = np.unique(codes, axis=0, return_inverse=True)
        return [
            (np.flatnonzero(kind.ravel() == number), int(code), int(free))
            for number, (code, free) in enumerate(kinds)
        ]

    def _possible(self, code: int, free: int) -> frozenset[str]:
        bits = [int(weight) for weight in self.weights if weight & free]
        subsets = itertools.product((0, 1), repeat=len(bits))
        return frozenset(
            self._of_code[code + sum(bit for bit, on in zip(bits, taken, strict=True) if on)]
            for taken in subsets
        )


def _margins(
    known: _Classes,
    beyond: NDArray[np.bool_],
    missing: NDArray[np.bool_],
    distance: Floats,
) -> Floats:
    """Smallest change that opens the way to another class; infinite if none does."""
    margin = np.full(len(beyond), np.inf)
    order = np.argsort(np.where(missing, np.inf, distance), axis=1)
    either, rows = missing.copy(), np.arange(len(beyond))
    for rank in range(order.shape[1]):
        column = order[:, rank]
        either[rows, column] = True
        reached = np.isinf(margin) & ~missing[rows, column] & known.is_open(beyond, either)
        margin[reached] = distance[rows, column][reached]
    return margin


def _ratio(above: Floats, below: Floats) -> Floats:
    missing = np.full(len(above), np.nan)
    return np.asarray(np.divide(above, below, out=missing, where=below > 0))


def _head_to_neck(spines: pd.DataFrame) -> Floats:
    """How many times the head is as wide as the neck.

    What is certain without a neck's width is far from every threshold: 0 for a spine that sits on
    the dendrite, infinite for a neck too thin to be seen.
    """
    ratio = quantity(spines, "head_diameter_um / neck_diameter_um")
    if "attached" not in spines:
        return ratio
    wide, long_um = quantity(spines, "neck_diameter_um"), quantity(spines, "neck_length")
    no_width = np.isnan(wide)
    sits = no_width & (spines["attached"] == "seen").to_numpy(bool)
    sits &= np.isnan(long_um) | (long_um < _NO_NECK_UM)
    invisible = no_width & (spines["attached"] == "inferred").to_numpy(bool) & ~np.isnan(long_um)
    has_head = ~np.isnan(quantity(spines, "head_diameter_um"))
    return np.select([sits & has_head, invisible & has_head], [0.0, np.inf], ratio)


def _nearest_base_um(spines: pd.DataFrame) -> Floats:
    """Distance to the nearest other base on the same dendrite; infinite if it is the only one."""
    names = ["base_z_um", "base_y_um", "base_x_um"]
    nearest = np.full(len(spines), np.nan)
    if not set(names) <= set(spines):
        return nearest
    bases = spines[names].to_numpy("float64", na_value=np.nan)
    has_base = ~np.isnan(bases).any(axis=1)
    dendrites = spines["dendrite_id"].to_numpy()
    for dendrite in np.unique(dendrites[has_base]):
        rows = np.flatnonzero(has_base & (dendrites == dendrite))
        if len(rows) == 1:
            nearest[rows] = np.inf
            continue
        away_um, _ = cKDTree(bases[rows]).query(bases[rows], k=np.array([2]))
        nearest[rows] = np.asarray(away_um)[:, 0]
    return nearest
