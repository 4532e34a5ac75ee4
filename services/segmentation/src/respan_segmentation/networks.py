"""Streams of windows through networks: in batches on GPUs, averaged over folds and mirror images.

Letters: a window has the shape (inputs, z, y, x), its scores (K, z, y, x). Networks of two
dimensions lack z.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import nn

from respan_common.devices import half_precision
from respan_common.errors import CapacityError

Predict = Callable[[Iterable[torch.Tensor]], Iterator[torch.Tensor]]
"""Windows to their scores, float32, in the same order. Scores are overwritten when the next ones
are asked for, and some windows are asked for ahead."""


class Network(Protocol):
    """A network on some device."""

    def stream(self, windows: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Scores of one window after the other; see `Predict`."""


class BatchedNetwork:
    """Runs PyTorch's network on one or several devices, which share each batch.

    Launches do not wait for a GPU, so one thread keeps all of them busy, and the sums of one batch
    are made while the next one is predicted.

    Parameters
    ----------
    half
        Half precision where it will do.
    batch
        Windows at once; halved for good when the memory does not hold them.
    """

    def __init__(
        self, network: nn.Module, devices: Sequence[torch.device], batch: int, *, half: bool
    ) -> None:
        first = network.to(devices[0]).to(memory_format=_layout(network))  # type: ignore[call-overload]
        self._copies = [first, *(copy.deepcopy(first).to(device) for device in devices[1:])]
        self._devices, self.batch = devices, batch
        self._dtype = half_precision(devices[0].type) if half else None

    def stream(self, windows: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Scores of one window after the other.

        Raises
        ------
        CapacityError
            If a single window does not fit the device's memory.
        """
        rest = iter(windows)
        while some := list(itertools.islice(rest, self.batch)):
            while some:
                part = some[: self.batch]
                try:
                    scores = self._scores(part)
                except (torch.OutOfMemoryError, MemoryError) as error:
                    self._halve(part[0], error)
                    continue
                yield from scores
                some = some[len(part) :]

    def _scores(self, windows: Sequence[torch.Tensor]) -> Iterable[torch.Tensor]:
        # Always a whole batch: a window's result must not depend on its company.
        full = [*windows, *([windows[-1]] * (self.batch - len(windows)))]
        patches = torch.stack(full)
        halved = torch.autocast(
            self._devices[0].type, dtype=self._dtype, enabled=self._dtype is not None
        )
        with torch.inference_mode(), halved:
            parts = [
                own(part.to(device, non_blocking=True))
                for own, part, device in zip(
                    self._copies, patches.chunk(len(self._copies)), self._devices, strict=False
                )
            ]
        return torch.cat([part.to(patches.device).float() for part in parts])[: len(windows)]

    def _halve(self, window: torch.Tensor, error: BaseException) -> None:
        if self.batch == 1:
            raise CapacityError(
                f"a window of {tuple(window.shape[1:])} voxels does not fit the memory of this "
                f"machine's {self._devices[0]}: use --device cpu, a machine with more memory, or a "
                "model with smaller patches"
            ) from error
        self.batch //= 2
        if self._devices[0].type == "cuda":
            torch.cuda.empty_cache()


def _layout(network: nn.Module) -> torch.memory_format:
    """Channels last: what a GPU's matrix units read without turning it around first."""
    is_2d = any(isinstance(module, nn.Conv2d) for module in network.modules())
    return torch.channels_last if is_2d else torch.channels_last_3d


def averaged(
    networks: Sequence[Network], mirror_axes: Sequence[int], *, is_2d: bool, disagreement: bool
) -> Predict:
    """Mean scores over networks and over mirror images along every choice of axes.

    With `disagreement`, one more score says how much these differ: the mutual information between
    the answer and the choice of network and mirror image, in nats.

    Parameters
    ----------
    mirror_axes
        Axes (0, 1, 2 of a window).
    """
    flips = [
        [axis + 1 for axis in some]
        for count in range(len(mirror_axes) + 1)
        for some in itertools.combinations(mirror_axes, count)
    ]

    def predict(windows: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        copies = itertools.tee(windows, len(networks))
        streams = [
            network.stream(_mirrored(own, flips, is_2d=is_2d))
            for network, own in zip(networks, copies, strict=True)
        ]
        while (first := next(streams[0], None)) is not None:
            rest = (stream for stream in streams for _ in flips)
            next(rest)
            scores = itertools.chain([first], (next(stream) for stream in rest))
            back = itertools.cycle(flips)
            members = (_turned(own, next(back), is_2d=is_2d) for own in scores)
            yield _mean(members, len(networks) * len(flips), disagreement=disagreement)

    return predict


def _mirrored(
    windows: Iterable[torch.Tensor], flips: Sequence[Sequence[int]], *, is_2d: bool
) -> Iterator[torch.Tensor]:
    for window in windows:
        for dims in flips:
            seen = torch.flip(window, list(dims)) if dims else window
            yield seen[:, 0] if is_2d else seen


def _turned(scores: torch.Tensor, dims: Sequence[int], *, is_2d: bool) -> torch.Tensor:
    scores = scores[:, None] if is_2d else scores
    return torch.flip(scores, list(dims)) if dims else scores


def _mean(members: Iterable[torch.Tensor], count: int, *, disagreement: bool) -> torch.Tensor:
    """Mean scores of all members, and if asked for how much they differ."""
    if count == 1 and not disagreement:
        (only,) = members
        return only
    total: torch.Tensor | float = 0.0
    shares: torch.Tensor | float = 0.0
    surprise: torch.Tensor | float = 0.0
    for scores in members:
        total = total + scores
        if disagreement:
            share = torch.softmax(scores, dim=0)
            shares = shares + share
            surprise = surprise + _surprise(share)
    mean = torch.as_tensor(total) / count
    if not disagreement:
        return mean
    information = _surprise(torch.as_tensor(shares) / count) - torch.as_tensor(surprise) / count
    return torch.cat([mean, information.clamp_(min=0)])


def _surprise(share: torch.Tensor) -> torch.Tensor:
    return -torch.xlogy(share, share).sum(dim=0, keepdim=True)
