"""From a network's scores at each voxel to classes, probabilities and doubt.

Letters: K scores per voxel: one per class (they compete), or one per region (they may overlap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

CERTAIN = 10.0
"""Score that stands for "this and nothing else": a probability of 0.9999."""


@dataclass(frozen=True)
class Meaning:
    """What a model's scores mean.

    Attributes
    ----------
    outputs
        Number K of scores.
    region_values
        For models of overlapping regions: the value that each region paints, in painting order;
        empty for models whose classes compete.
    spines : tuple of int
        Class values that belong to spines: heads, necks, cores, shells.
    threshold
        Least summed probability of those for a voxel to be one of them, or of each that is a
        region; None: the most probable class wins, and regions are where they are probable.
    """

    outputs: int
    region_values: tuple[int, ...] = ()
    spines: tuple[int, ...] = ()
    threshold: float | None = None

    def nothing(self) -> torch.Tensor:
        """Scores of a voxel that certainly holds nothing, shape (K,)."""
        scores = torch.full((self.outputs,), -CERTAIN)
        if not self.region_values:
            scores[0] = CERTAIN
        return scores

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Probability of each output, same shape."""
        return torch.sigmoid(scores) if self.region_values else torch.softmax(scores, dim=0)

    def classes(self, scores: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Class values, uint8, shape (z, y, x).

        Parameters
        ----------
        scores : float32, shape (K, z, y, x)
        weight : float32, shape (1, z, y, x)
            By what the scores are yet to be divided: sums need not be where classes are all that
            is wanted. Where it is 0, so are the scores, and there is background. None: by nothing.
        """
        own = scores.new_ones((1, 1, 1, 1)) if weight is None else weight
        if self.region_values:
            return self._regions(scores, own[0])
        if self.threshold is None or not self.spines:
            return largest(scores)
        return self._with_threshold(scores, own, self.threshold)

    def confidence(
        self, scores: torch.Tensor, classes: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """How probably a voxel is a spine's where `classes` says so, else 0; float32, (z, y, x).

        Parameters
        ----------
        scores, weight
            As for `classes`.
        """
        sure = scores.new_zeros(classes.shape)
        inside = torch.isin(classes, classes.new_tensor(self.spines))
        own = scores[:, inside]
        if weight is not None:
            own = own / weight[0, inside]
        if self.region_values:
            numbers = [n for n, value in enumerate(self.region_values) if value in self.spines]
            sure[inside] = torch.sigmoid(own[numbers].amax(dim=0))
        else:
            sure[inside] = torch.softmax(own, dim=0)[list(self.spines)].sum(dim=0)
        return sure

    def _regions(self, scores: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Every probable enough region, painted one over the other, as nnU-Net does."""
        classes = torch.zeros(scores.shape[1:], dtype=torch.uint8, device=scores.device)
        for region, value in zip(scores, self.region_values, strict=True):
            least = self.threshold if value in self.spines else None
            odds = _log_odds(0.5 if least is None else least)
            classes.masked_fill_(region > odds * weight, value)
        return classes

    def _with_threshold(
        self, scores: torch.Tensor, weight: torch.Tensor, threshold: float
    ) -> torch.Tensor:
        """The most probable kind of spine where spines are probable enough, else the best other.

        Exact odds are asked for only where the largest scores leave them open: at few voxels.
        """
        spines = list(self.spines)
        others = [output for output in range(self.outputs) if output not in self.spines]
        classes, best_other = _best(scores, others)
        _, best_spine = _best(scores, spines)
        odds = _log_odds(threshold)
        # The sum of n numbers is at most n times the largest, and at least the largest.
        is_open = best_spine - best_other > (odds - math.log(len(spines))) * weight[0]
        own = scores[:, is_open] / weight.expand(1, *is_open.shape)[:, is_open]
        kinds, _ = _best(own, spines)
        log_odds = own[spines].logsumexp(dim=0) - own[others].logsumexp(dim=0)
        classes[is_open] = torch.where(log_odds > odds, kinds, classes[is_open])
        return classes


def _log_odds(probability: float) -> float:
    if not 0 < probability < 1:
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))


def largest(scores: torch.Tensor) -> torch.Tensor:
    """Index of the largest score along the first axis, the first of equal ones; uint8."""
    classes, _ = _best(scores, range(len(scores)))
    return classes


def _best(scores: torch.Tensor, outputs: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of some outputs, in rising order, has the largest score, and that score.

    Output by output and without masks: measured, `argmax` over the first axis takes forty times as
    long, and filling by masks seven times.
    """
    first, *rest = outputs
    best = scores[first].clone()
    classes = torch.full(best.shape, first, dtype=torch.uint8, device=scores.device)
    for output in rest:
        is_better = (scores[output] > best).view(torch.uint8)
        torch.maximum(classes, is_better.mul_(output), out=classes)
        torch.maximum(best, scores[output], out=best)
    return classes, best


def entropy(probabilities: torch.Tensor, *, competing: bool) -> torch.Tensor:
    """Doubt at each voxel, from 0 (certain) to 1 (every answer equally probable).

    Shannon entropy over its maximum; for overlapping regions the greatest of the regions'.

    Parameters
    ----------
    probabilities : float32, shape (K, z, y, x)

    Returns
    -------
    float32, shape (z, y, x)
    """
    if competing:
        surprise = -torch.xlogy(probabilities, probabilities).sum(dim=0)
        return surprise.div_(math.log(len(probabilities)))
    rest = 1 - probabilities
    both = -torch.xlogy(probabilities, probabilities) - torch.xlogy(rest, rest)
    return both.amax(dim=0).div_(math.log(2))
