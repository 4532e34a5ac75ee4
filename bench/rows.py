"""A row of the table of truth: what is so, what we say, how far off we may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

FAILS = "FAILS"


@dataclass(frozen=True)
class Row:
    """One thing that was measured."""

    scene: str
    truth: str
    ours: str
    bound: str
    passed: bool | None
    """None: another program measures this."""
    original: str
    """What RESPAN gives, where that has been published or tried."""

    @property
    def verdict(self) -> str:
        """One word."""
        return "-" if self.passed is None else "ok" if self.passed else FAILS

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self) | {"passed": None if self.passed is None else bool(self.passed)}


def number(
    scene: str, truth: float, ours: float, within: float, original: str = "-", digits: int = 3
) -> Row:
    """A row whose value may be off by a length, volume or area; a missing one fails."""
    return Row(
        scene,
        f"{truth:.{digits}f}",
        "missing" if math.isnan(ours) else f"{ours:.{digits}f}",
        f"± {within:.{digits}f}",
        abs(ours - truth) <= within,
        original,
    )


def relative(
    scene: str, truth: str, errors: Sequence[float], within: float, original: str = "-"
) -> list[Row]:
    """Two rows: the mean of relative errors, and the worst single one."""
    n = len(errors)
    if not n or any(map(math.isnan, errors)):
        lost = f"{sum(map(math.isnan, errors))} of {n} missing"
        return [Row(scene, truth, lost, f"{within:.0%}", False, original)]
    mean, worst = sum(errors) / n, max(errors, key=abs)
    return [
        Row(f"{scene}: mean of {n}", truth, f"{mean:+.2%}", f"{within:.0%}", ok, original)
        for ok in [abs(mean) <= within]
    ] + [Row(f"{scene}: worst", truth, f"{worst:+.2%}", f"{within:.0%}", abs(worst) <= within, "-")]


def share(scene: str, truth: str, right: int, of: int, least: float, original: str = "-") -> Row:
    """A row that counts right answers."""
    part = right / of if of else 0.0
    text = f"{right} of {of} ({part:.1%})"
    return Row(scene, truth, text, f">= {least:.0%}", part >= least, original)


def fact(scene: str, truth: str, ours: str, original: str = "-") -> Row:
    """A row that is right or wrong."""
    return Row(scene, truth, ours, "exact", truth == ours, original)


def elsewhere(scene: str, truth: str, where: str, original: str) -> Row:
    """A row that quantification does not decide."""
    return Row(scene, truth, where, "-", None, original)
