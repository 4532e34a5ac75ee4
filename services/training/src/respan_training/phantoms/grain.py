"""Dye that fills a neurite unevenly: organelles keep it out, and some compartments hold more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_training.phantoms.solids import Points

WAVES = 32


@dataclass(frozen=True)
class Grain:
    """Smooth random factor on the concentration of dye, 1 on average, at every point of space.

    A sum of plane waves whose wave vectors are normally distributed is a random field of that
    spectrum; the factor is its exponential.

    Attributes
    ----------
    waves_per_um : float64, shape (n, 3)
        Wave vectors (z, y, x) in radians per µm.
    phases : float64, shape (n,)
    strength : float
        Standard deviation of the factor's logarithm.
    """

    waves_per_um: Points
    phases: NDArray[np.float64]
    strength: float

    @classmethod
    def draw(cls, strength: float, size_um: float, rng: np.random.Generator) -> Grain:
        """A field that is alike by exp(-1/2) over `size_um`."""
        waves = rng.normal(0, 1 / size_um, (WAVES, 3))
        return cls(waves, rng.uniform(0, 2 * np.pi, WAVES), strength)

    def factor(self, points_um: Points) -> NDArray[np.float32]:
        """The factor at each point, shape (n,)."""
        field = np.zeros(len(points_um), dtype=np.float32)
        for wave, phase in zip(self.waves_per_um, self.phases, strict=True):
            field += np.cos((points_um @ wave + phase).astype(np.float32))
        field *= np.float32(self.strength * np.sqrt(2 / len(self.phases)))
        return np.asarray(np.exp(field - np.float32(0.5 * self.strength**2)))
