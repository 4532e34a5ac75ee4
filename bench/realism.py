"""Compare phantoms with a real stack, as numbers and side by side.

    python -m bench.realism [--images 24] [--picture docs/images/real_and_phantoms.png]

Phantoms of the training's variety (`snr="mixed"`) at the real stack's voxel size, of a seed that no
model was trained on, beside both sessions of rr30a. Of the phantoms the table gives the 5th, 50th
and 95th percentile over volumes of 8 bits: a real stack should lie between the outer two. Nothing
is fitted here; ranges of the phantoms are in docs/phantoms.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage as ndi

from bench.rr30a import SPACING_UM, read_annotation
from respan_common.params import SynthesisParams
from respan_training.phantoms import Phantom, make_phantom

SEED = 7777
SHAPE = [24, 256, 256]
EDGE = 160
"""Pixels of a tile in the picture."""

Grey = NDArray[np.float32]


def numbers(grey: Grey, heads: NDArray[np.intp]) -> dict[str, float]:
    """What is compared, for one stack (z, y, x) and the voxels of its visible heads (n, 3)."""
    return {
        "median": float(np.median(grey)),
        "99th percentile": float(np.quantile(grey, 0.99)),
        "share of black": float((grey == 0).mean()),
        "share of white": float((grey == 255).mean()),
        "skewness": float((((grey - grey.mean()) / grey.std()) ** 3).mean()),
        **noise(grey),
        **spectrum(grey),
        **brightness(grey, heads),
    }


def noise(grey: Grey) -> dict[str, float]:
    """Variance over mean where the image is even, and correlation between neighbors.

    Differences over four pixels along y: noise of neighbors is not independent.
    """
    smooth = ndi.gaussian_filter(grey, (0, 3, 3))
    step, change = grey[:, 4:] - grey[:, :-4], np.abs(smooth[:, 4:] - smooth[:, :-4])
    mean = (smooth[:, 4:] + smooth[:, :-4]) / 2
    found = {}
    for low, high in ((10, 20), (20, 40), (40, 80)):
        even = (change < 0.1 * mean) & (mean > low) & (mean < high)
        ratio = (
            float((step[even] ** 2).mean() / 2 / mean[even].mean()) if even.sum() > 500 else None
        )
        found[f"variance/mean at {low}-{high}"] = float("nan") if ratio is None else ratio
    return {**found, **_correlations(grey, smooth)}


def _correlations(grey: Grey, smooth: Grey) -> dict[str, float]:
    # Dim, so that shape does not count as noise.
    dim = (smooth > np.quantile(smooth, 0.3)) & (smooth < np.quantile(smooth, 0.9))
    rest = np.where(dim, grey - smooth, 0)
    power = float((rest**2).sum())
    return {
        "noise correlation x": float((rest[..., 1:] * rest[..., :-1]).sum() / power),
        "noise correlation y": float((rest[:, 1:] * rest[:, :-1]).sum() / power),
    }


def spectrum(grey: Grey) -> dict[str, float]:
    """Shares of the power in a plane at long, middle and short periods; mean over planes."""
    planes = grey[:, :256, :256] - grey[:, :256, :256].mean(axis=(1, 2), keepdims=True)
    power = (np.abs(np.fft.rfft2(planes)) ** 2).sum(axis=0)
    per_um = np.hypot(
        np.fft.fftfreq(planes.shape[1], SPACING_UM[1])[:, None],
        np.fft.rfftfreq(planes.shape[2], SPACING_UM[2]),
    )
    bands = {"> 2 µm": (0, 0.5), "0.5-2 µm": (0.5, 2.0), "< 0.5 µm": (2.0, np.inf)}
    return {
        f"power at {name}": float(power[(per_um >= low) & (per_um < high)].sum() / power.sum())
        for name, (low, high) in bands.items()
    }


def brightness(grey: Grey, heads: NDArray[np.intp]) -> dict[str, float]:
    """Of visible heads: peak over the local white, and over the noise around; medians and 10th."""
    if not len(heads):
        return {}
    smooth = ndi.uniform_filter(grey, (0, 5, 5))
    seen = np.array([_contrast(grey, smooth, head) for head in heads])
    tenth, median = np.quantile(seen, (0.1, 0.5), axis=0)
    return {
        "head over shaft, 10th": tenth[0],
        "head over shaft, median": median[0],
        "head over noise, 10th": tenth[1],
        "head over noise, median": median[1],
    }


def _contrast(grey: Grey, smooth: Grey, head: NDArray[np.intp]) -> tuple[float, float]:
    z, y, x = head
    near = (slice(max(z - 1, 0), z + 2), slice(max(y - 3, 0), y + 4), slice(max(x - 3, 0), x + 4))
    plane = near[0].start + int(np.unravel_index(smooth[near].argmax(), smooth[near].shape)[0])
    around = (plane, slice(max(y - 40, 0), y + 40), slice(max(x - 40, 0), x + 40))
    peak, dark = float(smooth[near].max()), grey[around]
    dark = dark[dark <= np.quantile(dark, 0.6)]
    shaft = max(float(np.quantile(smooth[around], 0.995)), 1.0)
    return peak / shaft, (peak - float(np.median(dark))) / max(float(dark.std()), 0.5)


def phantoms(count: int) -> Iterator[Phantom]:
    """Phantoms of 8 bits like the real stack."""
    params = SynthesisParams(
        kind="two-photon", shape=SHAPE, spacing_um=list(SPACING_UM), snr="mixed", seed=SEED
    )
    found = 0
    for number in range(20 * count):
        phantom = make_phantom(params, number)
        if phantom.image.dtype == np.uint8:
            yield phantom
            found += 1
        if found == count:
            return


def of_phantom(phantom: Phantom) -> dict[str, float]:
    """Numbers of one phantom; its visible heads are the resolvable ones."""
    true = phantom.spines[phantom.spines["resolvable"]]
    heads = np.rint(true[["z_um", "y_um", "x_um"]].to_numpy(float) / SPACING_UM).astype(np.intp)
    limits = np.array(phantom.image.shape[1:]) - 1
    return numbers(phantom.image[0].astype(np.float32), np.clip(heads, 0, limits))


def table(real: dict[str, tuple[Grey, NDArray[np.intp]]], made: list[Phantom]) -> pd.DataFrame:
    """One row per number."""
    columns = {name: numbers(*stack) for name, stack in real.items()}
    rows = pd.DataFrame([of_phantom(phantom) for phantom in made])
    found = pd.DataFrame(columns)
    for percent in (5, 50, 95):
        found[f"phantoms, {percent} %"] = rows.quantile(percent / 100)
    return found.round(3)


def read_real(data: Path, session: str) -> tuple[Grey, NDArray[np.intp]]:
    """A session's grey values, and voxels of annotated heads."""
    grey = tifffile.imread(data / f"rr30a_{session}_ch2.ome.tif").astype(np.float32)
    heads = np.rint(read_annotation(data, session).heads_um / SPACING_UM).astype(np.intp)
    return grey, heads


def tiles(stack: Grey, centers: list[tuple[int, int, int]]) -> list[NDArray[np.uint8]]:
    """Squares of single planes; a little above it, the projection of the planes around."""
    half = EDGE // 2
    found = []
    for z, y, x in centers:
        y, x = (
            int(np.clip(v, half, n - half)) for v, n in zip((y, x), stack.shape[1:], strict=True)
        )
        square = (slice(y - half, y + half), slice(x - half, x + half))
        slab = stack[max(z - 4, 0) : z + 5][(slice(None), *square)].max(axis=0)
        found.append(np.concatenate([stack[z][square], slab]).clip(0, 255).astype(np.uint8))
    return found


def picture(real: list[NDArray[np.uint8]], made: list[NDArray[np.uint8]]) -> Image.Image:
    """Real tiles in the first and third row of columns, phantoms in the second and fourth."""
    gap = np.full((2 * EDGE, 4), 128, dtype=np.uint8)
    rows = []
    for row in (real, made):
        cells = [part for tile in row for part in (tile, gap)][:-1]
        rows.append(np.concatenate(cells, axis=1))
        rows.append(np.full((8, rows[0].shape[1]), 128, dtype=np.uint8))
    return Image.fromarray(np.concatenate(rows[:-1]))


def main() -> None:
    """Print the table; draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    data = Path(os.environ.get("RESPAN_TEST_DATA", "../shared/data")) / "rr30a"
    real = {session: read_real(data, session) for session in ("tp0", "tp1")}
    made = list(phantoms(arguments.images))
    print(table(real, made).to_string())
    if arguments.picture:
        centers = [(31, 215, 600), (27, 300, 420), (20, 880, 340)]
        shown = tiles(real["tp0"][0], centers) + tiles(real["tp1"][0], centers)
        chosen = sorted(made, key=lambda phantom: -int(phantom.spines["resolvable"].sum()))[:6]
        drawn = [tiles(p.image[0].astype(np.float32), [_middle(p)])[0] for p in chosen]
        picture(shown, drawn).save(arguments.picture)


def _middle(phantom: Phantom) -> tuple[int, int, int]:
    z = int((phantom.labels > 0).sum(axis=(1, 2)).argmax())
    return z, SHAPE[1] // 2, SHAPE[2] // 2


if __name__ == "__main__":
    main()
