"""What a model's training images were like, so that a run can warn of images that are not.

Every quantity can be computed over a whole image in one pass, plane by plane:

- foreground_share: voxels of any class but the background, over all voxels;
- skewness: third standardized moment of the grey values; negative for an inverted image;
- noise_to_spread: root mean square of the difference between neighbors along y, over the square
  root of 2 and over the standard deviation of the grey values. 1 for noise alone, near 0 for a
  blurred image without noise, 0 for a blank one;
- quantiles: grey values, less their mean and over their standard deviation, at given shares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing

SHARES = (0.01, 0.5, 0.99, 0.999)
"""Shares of the voxels at which grey values are compared."""

PERCENT = (0.1, 99.9)
"""Of the training images, so many percent lie below the lower and the upper bound."""

SPACING_FACTORS = (0.6, 1.4)
"""Voxel sizes, over the model's own, at which models are tested (bench.models)."""


def traits(image: NDArray[Any], labels: NDArray[np.uint8]) -> dict[str, float]:
    """The quantities above for one image.

    Parameters
    ----------
    image
        Grey values (z, y, x).
    labels
        Classes, same shape; 0 is background.
    """
    grey = image.astype(np.float64)
    spread = float(grey.std())
    if spread == 0:
        shape = {"skewness": 0.0, "noise_to_spread": 0.0}
        return {"foreground_share": float((labels > 0).mean()), **shape}
    standard = (grey - grey.mean()) / spread
    steps = np.diff(standard, axis=1)
    quantiles = np.quantile(standard, SHARES)
    return {
        "foreground_share": float((labels > 0).mean()),
        "skewness": float((standard**3).mean()),
        "noise_to_spread": float(np.sqrt((steps**2).mean() / 2)),
        **{f"quantile_{share}": float(q) for share, q in zip(SHARES, quantiles, strict=True)},
    }


def trained_range(found: Iterable[dict[str, float]], spacing: VoxelSpacing) -> dict[str, Any]:
    """Bounds over many images, as a model's card says them.

    Returns
    -------
    dict
        Of each quantity its [low, high]; of `spacing_um` two voxel sizes (z, y, x).
    """
    rows = list(found)
    bounds = {
        name: [_short(v) for v in np.percentile([row[name] for row in rows], PERCENT)]
        for name in rows[0]
    }
    low, high = ([_short(edge * factor) for edge in spacing.zyx] for factor in SPACING_FACTORS)
    return {"spacing_um": {"low": low, "high": high}, **bounds}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
