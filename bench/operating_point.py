"""Choose a model's operating point on phantoms that it was not trained on.

    python -m bench.operating_point models/two-photon --kind two-photon [--images 20] [--snr mixed]

A voxel is spine or neck where both together are more probable than a threshold; finds do not count
of which no voxel is as surely a spine's as asked for (`confidence`), that are smaller than a least
volume, or that no visible neck joins to a dendrite and that are farther from it than allowed: most
of these are spots of other cells. Phantoms are of another seed than the training's, and as varied
(mixed) or as good images are (typical). Values near the highest F1 belong into the model's card
(models/operating_points.py); heads match within 1 µm, one to one, where a distance along z counts
0.4 times, as for the real stack.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from models.operating_points import OPERATING_POINTS
from numpy.typing import NDArray

from bench.measuring import measure
from respan_common.geometry import VoxelSpacing
from respan_common.params import SynthesisParams
from respan_orchestrator.matching import Agreement, agreement
from respan_training.inference import load_network, probabilities, standardized
from respan_training.phantoms import Phantom, make_phantom

SEED = 5555
SHAPES = {"two-photon": [24, 256, 256], "confocal": [40, 256, 256]}
THRESHOLDS = (0.3, 0.4, 0.5, 0.7, 0.9)
SUREST = (0.0, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
LEAST_UM3 = {
    "two-photon": (0.03, 0.06, 0.1, 0.15, 0.2, 0.3),
    "confocal": (0.01, 0.02, 0.03, 0.05, 0.08),
}
FARTHEST_UM = (0.5, 0.75, 1.0, 1.5, 2.5, 4.0)
POINT = ("threshold", "surest", "least_um3", "farthest_um")
MATCH_UM = 1.0
WEIGHTS = (0.4, 1.0, 1.0)
SPINE, NECK = 1, 4


def classes_at(probability: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Classes (z, y, x): spine or neck above the threshold, else the best of the others."""
    others = np.array([c for c in range(len(probability)) if c not in (SPINE, NECK)])
    rest = others[probability[others].argmax(axis=0)]
    inside = np.where(probability[SPINE] >= probability[NECK], SPINE, NECK)
    protrusion = probability[SPINE] + probability[NECK] > threshold
    return np.asarray(np.where(protrusion, inside, rest), dtype=np.uint8)


def rows(
    model: Path,
    kind: Literal["confocal", "two-photon"],
    snr: Literal["mixed", "typical"],
    images: int,
    weights: Path | None,
) -> Iterator[dict[str, float]]:
    """One row per phantom, threshold, least volume and greatest distance."""
    plan = json.loads((model / "plans.json").read_text())["configurations"]["3d_fullres"]
    params = SynthesisParams(
        kind=kind, shape=SHAPES[kind], spacing_um=plan["spacing"], snr=snr, seed=SEED
    )
    network = load_network(model, weights)
    for number in range(images):
        phantom = make_phantom(params, number)
        grey = standardized(phantom.image[0])
        probability = probabilities(network, grey, plan["patch_size"])
        for threshold in THRESHOLDS:
            found = _spines(phantom, probability, threshold, kind)
            for values in itertools.product(SUREST, LEAST_UM3[kind], FARTHEST_UM):
                kept = believed(found, *values)
                point = dict(zip(POINT, (threshold, *values), strict=True))
                yield point | vars(_agreement(phantom, kept))


def believed(
    found: pd.DataFrame, surest: float, least_um3: float, farthest_um: float
) -> pd.DataFrame:
    """Those of the found spines that a card with these values would have left.

    The stage counts the distance from the nearest voxel, be it of a piece of neck; here it is
    the head's, but 0 for a spine that touches its dendrite.
    """
    away_um = found["head_euclidean_dist_to_dend"].where(found["attached"] != "seen", 0.0)
    is_large = found["spine_vol"] >= least_um3
    return found[is_large & (away_um <= farthest_um) & (found["confidence"] >= surest)]


def shafts_of(kind: str) -> dict[str, float]:
    """What the kind's card asks of dendrites and somas."""
    about = ("min_dendrite_", "min_soma_")
    return {name: least for name, least in OPERATING_POINTS[kind].items() if name.startswith(about)}


def _spines(
    phantom: Phantom, probability: NDArray[np.float32], threshold: float, kind: str
) -> pd.DataFrame:
    classes = classes_at(probability, threshold)
    if not (classes == SPINE).any():
        columns = ["z_um", "y_um", "x_um", "spine_vol", "head_euclidean_dist_to_dend", "attached"]
        return pd.DataFrame(columns=[*columns, "confidence"], dtype=float)
    sizes = {"min_spine_volume_um3": min(LEAST_UM3[kind])}
    given: dict[str, Any] = shafts_of(kind) | sizes
    spacing: VoxelSpacing = phantom.spacing
    sure = (255 * (probability[SPINE] + probability[NECK])).round().astype(np.uint8)
    sure[~np.isin(classes, (SPINE, NECK))] = 0
    return measure(classes, phantom.image[0], spacing, confidence=sure, **given).spines


def _agreement(phantom: Phantom, found: pd.DataFrame) -> Agreement:
    true = phantom.spines[phantom.spines["resolvable"]]
    heads = [t[["z_um", "y_um", "x_um"]].to_numpy(np.float64) for t in (found, true)]
    return agreement(heads[0], heads[1], MATCH_UM, WEIGHTS)


def main() -> None:
    """Print a table, the best values last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--kind", required=True, choices=sorted(SHAPES))
    parser.add_argument("--snr", default="mixed", choices=("mixed", "typical"))
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--weights", type=Path, help="checkpoint of a training that goes on")
    arguments = parser.parse_args()
    counted = rows(
        arguments.model, arguments.kind, arguments.snr, arguments.images, arguments.weights
    )
    table = pd.DataFrame(counted).groupby(list(POINT)).sum()
    table["precision"] = table["matched"] / table["found"]
    table["recall"] = table["matched"] / table["true"]
    table["f1"] = 2 * table["matched"] / (table["found"] + table["true"])
    print(table.sort_values("f1").round(3).to_string())


if __name__ == "__main__":
    main()
