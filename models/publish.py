"""Copy a trained model beside this script, with all that a user needs to judge it.

    python models/publish.py two-photon --work work/models/two-photon [--metrics metrics.json]
    python models/publish.py two-photon --card-only --metrics metrics.json

`metrics.json` is what `python -m bench.models --kind NAME --json metrics.json` measured with the
model. Beside nnU-Net's files go:

- card.json: what it is, what it was trained on, its operating point, what its training images were
  like (`trained_range`), what was measured, and what it is bad at;
- test_input.npy, test_output.npy: a piece of a phantom, normalized, and the logits for it;
- README.md, cover.png: the same for people.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from average import WEIGHTS
from operating_points import OPERATING_POINTS
from presentation import cover, readme
from trained_range import trained_range

from respan_common.geometry import VoxelSpacing
from respan_training.inference import load_network, standardized

HERE = Path(__file__).resolve().parent
FILES = ("dataset.json", "plans.json", "dataset_fingerprint.json", "training.json")
LARGEST_BYTES = 20 * 2**20
TEST_SHAPE = {"two-photon": (8, 64, 64), "confocal": (16, 64, 64)}

MODALITIES = {
    "two-photon": "two-photon microscopy in vivo, 8 to 16 bit, about 0.1 x 0.1 x 1 µm voxels",
    "confocal": "confocal microscopy of fixed tissue, 8 to 16 bit, about 0.065 x 0.065 x 0.15 µm",
}

LEFT_OUT = (
    "Dendrites less than a fourth as bright as the others are left out (min_dendrite_brightness), "
    "and cell bodies of which the field holds less than 60 µm³ count as dendrite "
    "(min_soma_volume_um3)."
)

LIMITS = {
    "two-photon": [
        "Spines right above or below their dendrite: slices of 1 µm do not show them.",
        "Stubby spines and bumps lower than the resolution across (about 0.4 µm).",
        "Thick, saturated trunks: what clips has no shape, and noise at their rim can look like a "
        "spine.",
        "Axons at least a fourth as bright as the dendrites: one may be taken for a thin dendrite, "
        "and a bouton that touches a dendrite for a spine.",
        LEFT_OUT,
        "Necks: far below the resolution, few voxels are called neck.",
    ],
    "confocal": [
        "No real confocal image was ever tried: figures are from phantoms alone.",
        "Dense neuropil, where many neurons are stained.",
        "Necks below the resolution: a gap between head and shaft stays a gap, and heads farther "
        "than 1.5 µm from a dendrite, without a visible neck, do not count.",
        LEFT_OUT,
    ],
}
"""What the models are bad at."""


def card(name: str, model: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """What a user must know before trusting the model.

    Parameters
    ----------
    measured
        `trained_range` and `metrics`.
    """
    dataset, plans, training = (
        json.loads((model / file).read_text())
        for file in ("dataset.json", "plans.json", "training.json")
    )
    return {
        "name": name,
        "description": f"Spines, dendrites, somata and necks for {MODALITIES[name]}.",
        "modality": MODALITIES[name],
        "kind": "nnunet",
        "configuration": "3d_fullres",
        "labels": dataset["labels"],
        "spacing_um": plans["configurations"]["3d_fullres"]["spacing"],
        "license": "Apache-2.0",
        "training_data": "Phantoms alone (respan synth); no real image was ever seen.",
        "training_cases": len(training["cases"]),
        "training_params": training["key"]["params"],
        "training_minutes": round(sum(epoch["seconds"] for epoch in training["epochs"]) / 60),
        "weights_sha256": hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest(),
        "operating_point": OPERATING_POINTS[name],
        **measured,
        "limits": LIMITS[name],
    }


def write_test_tensors(name: str, model: Path, data: Path) -> None:
    """A piece of a phantom around a spine, and what the network makes of it."""
    path = min((data / "labelsTr").glob("*.tif"))
    image, labels = standardized(_first_image(data)), np.asarray(tifffile.imread(path))
    heads = np.argwhere(labels == 1)
    middle = heads[np.abs(heads - np.array(labels.shape) / 2).sum(axis=1).argmin()]
    starts = np.clip(middle - np.array(TEST_SHAPE[name]) // 2, 0, None)
    starts = np.minimum(starts, np.array(labels.shape) - TEST_SHAPE[name])
    piece = tuple(slice(a, a + n) for a, n in zip(starts, TEST_SHAPE[name], strict=True))
    given = image[piece][None, None].astype(np.float32)
    with torch.inference_mode():
        logits = load_network(model)(torch.from_numpy(given)).numpy()
    np.save(model / "test_input.npy", given)
    np.save(model / "test_output.npy", logits)


def copy_model(source: Path, target: Path) -> None:
    """Copy nnU-Net's files, if they are small enough to ship."""
    size = (source / WEIGHTS).stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"{source / WEIGHTS} has {size} bytes, too many to ship")
    (target / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    for file in (*FILES, WEIGHTS):
        shutil.copyfile(source / file, target / file)


def _first_image(data: Path) -> Any:
    return np.asarray(tifffile.imread(min((data / "imagesTr").glob("*.tif"))))


def _rich_image(data: Path) -> Any:
    """Of the first phantoms, the one with the most spine voxels."""
    labels = sorted((data / "labelsTr").glob("*.tif"))[:10]
    best = max(labels, key=lambda path: int((tifffile.imread(path) == 1).sum()))
    return np.asarray(tifffile.imread(data / "imagesTr" / f"{best.stem}_0000.tif"))


def main() -> None:
    """Publish one model, or renew its card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(MODALITIES))
    parser.add_argument("--work", type=Path, help="as given to train.py")
    parser.add_argument("--model", type=Path, help="default: WORK/model/NAME")
    parser.add_argument("--metrics", type=Path)
    parser.add_argument("--card-only", action="store_true", help="keep the model as it is")
    arguments = parser.parse_args()
    target = HERE / arguments.name
    known = json.loads((target / "card.json").read_text()) if arguments.card_only else {}
    measured = {key: known.get(key, {}) for key in ("trained_range", "metrics")}
    if not arguments.card_only:
        copy_model(arguments.model or arguments.work / "model" / arguments.name, target)
        plan = json.loads((target / "plans.json").read_text())["configurations"]["3d_fullres"]
        data, spacing = arguments.work / "data", VoxelSpacing(*plan["spacing"])
        measured["trained_range"] = trained_range(data, target, plan["patch_size"], spacing)
        write_test_tensors(arguments.name, target, data)
        cover(target, _rich_image(data), plan["patch_size"]).save(target / "cover.png")
    if arguments.metrics:
        measured["metrics"] = json.loads(arguments.metrics.read_text())
    written = card(arguments.name, target, measured)
    text = json.dumps(written, indent=1, ensure_ascii=False)
    (target / "card.json").write_text(text + "\n", encoding="utf-8")
    (target / "README.md").write_text(readme(written), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
