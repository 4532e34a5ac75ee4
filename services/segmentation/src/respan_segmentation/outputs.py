"""What segmentation writes for every voxel: class, confidence; on request probabilities, doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from respan_common.geometry import Box, Zyx, intersection, relative, shape_of
from respan_segmentation.emission import Emitted
from respan_segmentation.scores import Meaning, entropy

CLASSES = "labels/classes"
PROBABILITIES = "probabilities"
UNCERTAINTY = "uncertainty"
CONFIDENCE = "confidence"
WHOLE = 255
"""Value of a probability of 1: a byte tells more than a network knows."""


class Writer(Protocol):
    """Takes whole shards of an image."""

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels of the image."""

    @property
    def block_zyx(self) -> Zyx:
        """Voxels of a shard."""

    def write(self, box: Box, values: NDArray[Any], channel: int = 1) -> None:
        """Write whole shards of one channel, shape of `box`."""


Values = Mapping[str, NDArray[Any]]
"""Group to values, shape (c, z, y, x)."""


@dataclass(frozen=True)
class Decision:
    """From scores to what is written.

    Attributes
    ----------
    extra_scores : int
        Channels of the scores that are no outputs of the model: its members' disagreement.
    """

    meaning: Meaning
    probabilities: bool = False
    uncertainty: bool = False
    extra_scores: int = 0

    @property
    def channels(self) -> dict[str, tuple[int, type[np.generic]]]:
        """Channels and type of every group."""
        return {
            CLASSES: (1, np.uint8),
            **({CONFIDENCE: (1, np.uint8)} if self.meaning.spines else {}),
            **({PROBABILITIES: (self.meaning.outputs, np.uint8)} if self.probabilities else {}),
            **({UNCERTAINTY: (1 + self.extra_scores, np.float32)} if self.uncertainty else {}),
        }

    @property
    def bytes_per_voxel(self) -> int:
        """Memory of all groups."""
        return sum(count * np.dtype(kind).itemsize for count, kind in self.channels.values())

    @property
    def nothing(self) -> torch.Tensor:
        """Scores of a voxel that certainly holds nothing, shape (K,)."""
        own = self.meaning.nothing()
        return torch.cat([own, own.new_zeros(self.extra_scores)])

    def of(self, part: Emitted) -> Coming:
        """Values for scores, in their axis order."""
        return Coming(self._values(part))

    def _values(self, part: Emitted) -> dict[str, torch.Tensor]:
        outputs = self.meaning.outputs
        assert part.sums is not None
        classes = self.meaning.classes(part.sums[:outputs], part.weight)
        found: dict[str, torch.Tensor] = {CLASSES: classes[None]}
        if self.meaning.spines:
            sure = self.meaning.confidence(part.sums[:outputs], classes, part.weight)
            found[CONFIDENCE] = sure.mul_(WHOLE).round_().to(torch.uint8)[None]
        if self.probabilities or self.uncertainty:
            scores = part.scores(self.nothing)
            own, extra = scores[:outputs], scores[outputs:]
            shares = self.meaning.probabilities(own)
            if self.probabilities:
                found[PROBABILITIES] = shares.mul(WHOLE).round_().to(torch.uint8)
            if self.uncertainty:
                doubt = entropy(shares, competing=not self.meaning.region_values)
                found[UNCERTAINTY] = torch.cat([doubt[None], extra])
        return found


class Coming:
    """Values on their way from the device, which goes on meanwhile."""

    def __init__(self, found: Mapping[str, torch.Tensor]) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._found = {name: self._sent(values) for name, values in found.items()}
        if any(values.is_cuda for values in found.values()):
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def _sent(self, values: torch.Tensor) -> torch.Tensor:
        if not values.is_cuda:
            return values
        # Only into pinned memory does a GPU copy without anybody waiting.
        target = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        return target.copy_(values, non_blocking=True)

    def values(self) -> Values:
        """The values, when they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return {name: values.numpy() for name, values in self._found.items()}


class RowBuffer:
    """Values of one row of shards, until all of them are there.

    Parameters
    ----------
    box
        Voxels of the row.
    expected
        Voxels that will be put; all others are background.
    """

    def __init__(self, box: Box, expected: int, decision: Decision) -> None:
        self.box, self.missing = box, expected
        self._values = {
            name: np.zeros((count, *shape_of(box)), dtype=kind)
            for name, (count, kind) in decision.channels.items()
        }
        if PROBABILITIES in self._values and not decision.meaning.region_values:
            self._values[PROBABILITIES][0] = WHOLE

    def put(self, box: Box, values: Values | None) -> None:
        """Take the part of a box that lies in the row; None: it is background."""
        shared = intersection(box, self.box)
        assert shared is not None
        self.missing -= int(np.prod(shape_of(shared)))
        if values is None:
            return
        into, part = relative(shared, self.box), relative(shared, box)
        for name, own in values.items():
            self._values[name][(slice(None), *into)] = own[(slice(None), *part)]

    def write(self, writers: Mapping[str, Writer]) -> None:
        """Write the row, which is whole shards."""
        for name, values in self._values.items():
            for channel, own in enumerate(values, start=1):
                writers[name].write(self.box, own, channel)
