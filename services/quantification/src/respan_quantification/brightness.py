"""How bright the dendrites of an image are beside each other.

The light of an axon that passes a dendrite, or of another neuron that took up less dye, is a small
share of the dendrite's. A network that sees a piece at a time cannot tell; the whole image can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_quantification.classes import ClassImage


@dataclass(frozen=True)
class Light:
    """Grey values of some voxels: their sum and their number."""

    total: float
    voxels: int


def finite(grey: NDArray[np.generic]) -> NDArray[np.float64]:
    """Grey values in double precision; what is no finite number counts as 0.

    Whole numbers then add up to the same sum in any order, so wherever an image is cut.
    """
    return np.nan_to_num(grey.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def background_light(classes: ClassImage, grey: NDArray[np.generic]) -> Light:
    """Light of the voxels that belong to nothing; both arrays cover the same voxels."""
    nothing = classes.values == 0
    return Light(float(finite(grey[nothing]).sum()), int(np.count_nonzero(nothing)))


def relative_brightness(
    light: NDArray[np.float64], voxels: NDArray[np.int64], background: Light
) -> NDArray[np.float64]:
    """Each object's mean grey value above the background, as a share of what is usual among them.

    Usual is the mean over all objects, weighted by their light, so that many faint scraps do not
    pull it down. Gain and offset of the camera do not matter.

    Parameters
    ----------
    light, voxels
        Sum of grey values and number of voxels of N objects, none of them empty.

    Returns
    -------
    float64, shape (N,)
        1 for each where no object is brighter than the background, or no background is known.
    """
    if background.voxels == 0:
        return np.ones(len(voxels))
    above = np.maximum(light - voxels * (background.total / background.voxels), 0.0)
    brightness = above / voxels
    total = above.sum()
    return brightness / ((above * brightness).sum() / total) if total > 0 else np.ones(len(voxels))
