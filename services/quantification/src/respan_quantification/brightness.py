"""How bright the dendrites of an image are beside each other.

The light of an axon that passes a dendrite, or of another neuron that took up less dye, is a small
share of the dendrite's. A network that sees a piece at a time cannot tell; the whole image can.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from respan_quantification.classes import ClassImage


def finite(grey: NDArray[np.generic]) -> NDArray[np.float64]:
    """Grey values in double precision; what is no finite number counts as 0.

    Whole numbers then add up to the same sum in any order, so wherever an image is cut.
    """
    return np.nan_to_num(grey.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def background_sum(classes: ClassImage, grey: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sum and number of the grey values of what is no object; both arrays cover the same voxels."""
    nothing = finite(grey[classes.values == 0])
    return np.array([nothing.sum(), nothing.size])


def relative_brightness(
    light: NDArray[np.float64], voxels: NDArray[np.int64], background: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each object's mean grey value above the background, as a share of what is usual among them.

    Usual is the mean over all objects, weighted by their light, so that many faint scraps do not
    pull it down. Gain and offset of the camera do not matter.

    Parameters
    ----------
    light, voxels
        Sum of grey values and number of voxels of N objects, none of them empty.
    background
        Sum and number of the background's grey values.

    Returns
    -------
    float64, shape (N,)
        1 for each where no object is brighter than the background, or there is no background.
    """
    total, number = background
    above = np.maximum(light - voxels * (total / number), 0.0) if number else np.zeros(len(voxels))
    if not above.any():
        return np.ones(len(voxels))
    brightness = above / voxels
    return np.asarray(brightness / np.average(brightness, weights=above))
