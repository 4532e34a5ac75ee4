"""Moving average of a network's weights: it stands where the last steps circled around.

A short training ends while its steps are still large; the average over the last few hundred of
them is what a longer, slower end of the training would have found.
"""

from __future__ import annotations

import torch

Weights = dict[str, torch.Tensor]


class WeightAverage:
    """Exponential moving average of every weight of a network.

    Parameters
    ----------
    decay
        Share of the old average that each step keeps. The first steps keep less, so that the
        random weights of the beginning are soon forgotten.
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        held: dict[int, torch.Tensor] = {}
        # nnU-Net's decoder lists the encoder's weights again: one tensor stays one.
        self.weights: Weights = {
            key: held.setdefault(value.data_ptr(), value.detach().clone())
            for key, value in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        """Take in the weights after another step."""
        self.steps += 1
        keep = min(self.decay, self.steps / (self.steps + 9))
        current = network.state_dict()
        for key in self._names():
            self.weights[key].lerp_(current[key], 1 - keep)

    def state(self) -> dict[str, object]:
        """What a resumed training needs."""
        return {"steps": self.steps, "weights": self.weights}

    def resume(self, steps: int, weights: Weights) -> None:
        """Go on from the state of an interrupted training."""
        self.steps = steps
        for key in self._names():
            self.weights[key].copy_(weights[key])

    def _names(self) -> list[str]:
        """One name of each tensor."""
        return list({id(value): key for key, value in self.weights.items()}.values())
