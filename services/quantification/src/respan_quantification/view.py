"""Everything about one part of the image that measuring needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from numpy.typing import NDArray

from respan_common.geometry import Box, relative
from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels

T = TypeVar("T")
Shown = TypeVar("Shown")


@dataclass(frozen=True)
class View:
    """Arrays over `frame.outer`. Dendrites and somas have their final ids."""

    frame: Frame
    classes: ClassImage
    dendrites: Labels
    somas: Labels
    grey: Callable[[int], NDArray[Any]]
    """Raw values of a channel, counted from 1."""
    channels: int
    uncertainty: NDArray[Any] | None = None
    confidence: NDArray[Any] | None = None

    def without_margin(self, margin_zyx: tuple[int, int, int]) -> View:
        """What is left when a margin is taken away on every side that was cut."""
        outer = self.frame.outer
        shape = self.frame.shape_zyx
        z, y, x = (
            slice(
                part.start + margin if part.start else 0,
                part.stop - margin if part.stop < size else size,
            )
            for part, margin, size in zip(outer, margin_zyx, shape, strict=True)
        )
        part = relative((z, y, x), outer)
        return View(
            Frame((z, y, x), self.frame.inner, shape, self.frame.spacing),
            ClassImage(self.classes.values[part], self.classes.roles),
            self.dendrites[part],
            self.somas[part],
            lambda channel: self.grey(channel)[part],
            self.channels,
            None if self.uncertainty is None else self.uncertainty[part],
            None if self.confidence is None else self.confidence[part],
        )


Look = Callable[[Box], View]
"""Shows a box of the whole image, in the frame of the block that asks."""


def kept_once(read: Callable[[T], Shown]) -> Callable[[T], Shown]:
    """The same, but asked twice in a row for the same thing, it reads once."""
    last: list[tuple[T, Shown]] = []

    def kept(what: T) -> Shown:
        if not last or last[0][0] != what:
            last.clear()  # before reading, so that only one is in memory
            last.append((what, read(what)))
        return last[0][1]

    return kept
