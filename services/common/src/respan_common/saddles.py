"""Between neighbors that touch: the brightest place to step across."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Saddles = dict[tuple[int, int], float]
"""Of two numbered things that touch, the lower number first: the brightest place between them."""


def keep_brightest(saddles: Saddles, crossings: Iterable[tuple[int, int, float]]) -> None:
    """Take in places where two things touch, in any order: both numbers, and how bright it is."""
    for one, other, value in crossings:
        pair = (int(min(one, other)), int(max(one, other)))
        saddles[pair] = max(saddles.get(pair, float("-inf")), float(value))


def renamed(saddles: Mapping[tuple[int, int], float], old: int, new: int) -> Saddles:
    """The same with one thing taken for another."""
    kept: Saddles = {}
    for pair, value in saddles.items():
        one, other = (new if number == old else number for number in pair)
        if one != other:
            keep_brightest(kept, [(one, other, value)])
    return kept
