"""Copy a trained model beside this script, with a card that says what it is.

    python models/publish.py two-photon --work work/models/two-photon [--metrics metrics.json]

`metrics.json` is what `python -m bench.phantoms --json metrics.json` measured with the model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FILES = ("dataset.json", "plans.json", "dataset_fingerprint.json", "training.json")
WEIGHTS = Path("fold_all/checkpoint_final.pth")
LARGEST_BYTES = 20 * 2**20

MODALITIES = {
    "two-photon": "two-photon microscopy in vivo, 8 to 16 bit, about 0.1 x 0.1 x 1 µm voxels",
    "confocal": "confocal microscopy of fixed tissue, 8 to 16 bit, about 0.065 x 0.065 x 0.15 µm",
}

OPERATING_POINTS: dict[str, dict[str, float]] = {
    "two-photon": {"min_dendrite_volume_um3": 3.0},
    "confocal": {"min_dendrite_volume_um3": 3.0},
}
"""Quantification parameters where the settings leave them open; chosen by bench.phantoms."""


def card(name: str, model: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """What a user must know before trusting the model."""
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
        "weights_sha256": hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest(),
        "operating_point": OPERATING_POINTS[name],
        "metrics": metrics,
        "limits": "Small, and trained for less than an hour on two processor cores. Look at the "
        "report's pictures before believing a number.",
    }


def main() -> None:
    """Publish one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(MODALITIES))
    parser.add_argument("--work", type=Path, required=True, help="as given to train.py")
    parser.add_argument("--metrics", type=Path)
    arguments = parser.parse_args()
    source, target = arguments.work / "model" / arguments.name, HERE / arguments.name
    size = (source / WEIGHTS).stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"{source / WEIGHTS} has {size} bytes, too many to ship")
    (target / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    for file in (*FILES, WEIGHTS):
        shutil.copyfile(source / file, target / file)
    metrics = json.loads(arguments.metrics.read_text()) if arguments.metrics else {}
    text = json.dumps(card(arguments.name, target, metrics), indent=1, ensure_ascii=False)
    (target / "card.json").write_text(text + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
