"""Score a model on unseen phantoms, at other voxel sizes, and on a real stack.

    python -m bench.models [--kind two-photon] [--model NAME|DIR] [--images 3] [--seed 9100]
                           [--parts phantoms spacings real] [--json metrics.json]

Every figure is that of the whole analysis, from an experiment folder to its tables. True are the
spines that the optics can resolve (column `resolvable`).

- `f1_overlap`: a found spine is a true one when they share more than half of their union.
- `f1_center`: heads within 0.5 µm, one to one; `f1_center_flat`: along z a distance counts 0.4
  times, as for the real stack; `precision` and `recall` go with it.
- `cl_dice`: of our centerlines the share inside true dendrites, and the other way round.
- `density_error`: spines per µm, ours over the true one, less 1; `density_error_inside`: of bases
  and centerlines more than 1 µm inside the field. Where a dendrite's axis has just left the field,
  its side still shows, and counts as length; the truth has none there.
- `spacings`: phantoms whose voxels are up to 40 % smaller or larger than the model's.
- `real`: rr30a by its rule (bench.rr30a), where RESPAN_TEST_DATA has it. No model was trained or
  tuned on it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from bench import rr30a
from bench.phantoms import analyze
from bench.scoring import Analyzed, counts, figures
from respan_common.volumes import open_volume

SPACINGS_UM = {"two-photon": (1.0, 0.102, 0.102), "confocal": (0.15, 0.065, 0.065)}
"""Voxel sizes (z, y, x) of the two shipped models."""

FACTORS = (0.6, 0.8, 1.25, 1.4)

Figures = dict[str, dict[str, float]]


def on_phantoms(arguments: argparse.Namespace, work: Path) -> Figures:
    """Unseen phantoms of the kind's own voxel size."""
    return {
        f"phantoms, {snr}": _scored(arguments, work / snr, snr, None) for snr in ("typical", "hard")
    }


def at_other_spacings(arguments: argparse.Namespace, work: Path) -> Figures:
    """Typical phantoms of other voxel sizes, which the analysis resamples."""
    return {
        f"voxels x {factor}": _scored(
            arguments,
            work / str(factor),
            "typical",
            [round(edge * factor, 4) for edge in SPACINGS_UM[arguments.kind]],
        )
        for factor in FACTORS
    }


def _scored(
    arguments: argparse.Namespace, work: Path, snr: str, spacing_um: list[float] | None
) -> dict[str, float]:
    work.mkdir(parents=True)
    names = analyze(
        work, arguments.kind, snr, arguments.images, arguments.seed, arguments.model, spacing_um
    )
    phantoms, folder = work / f"phantoms_{snr}", work / f"experiment_{snr}"
    volumes = [Analyzed(name, phantoms, folder) for name in names]
    return figures([counts(volume) for volume in volumes])


def on_real_data(arguments: argparse.Namespace, work: Path) -> Figures:
    """Both sessions of rr30a; nothing where the data are not there."""
    data = Path(os.environ.get("RESPAN_TEST_DATA", "../shared/data")) / "rr30a"
    if arguments.kind != "two-photon" or not data.exists():
        return {}
    return {
        f"real, rr30a {session}": _real(data, session, arguments.model, work)
        for session in ("tp0", "tp1")
    }


def _real(data: Path, session: str, model: str, work: Path) -> dict[str, float]:
    run, folder = rr30a.analyze(data, session, model, work)
    annotation = rr30a.read_annotation(data, session)
    table = pd.read_csv(folder / "Tables" / f"{session}_detected_spines.csv")
    found = rr30a.score(table[["z_um", "y_um", "x_um"]].to_numpy(np.float64), annotation)
    skeleton_um, _ = rr30a.read_steps(folder / "SWC_files" / f"{session}.swc")
    (image,) = json.loads(run.output)["images"]
    dendrites = open_volume(folder / "Zarr" / f"{session}.ome.zarr", "labels/dendrites").read()
    return {
        "found": found.found,
        "true": found.true,
        "same": found.matched,
        "precision": round(found.precision, 3),
        "recall": round(found.recall, 3),
        "f1": round(found.f1, 3),
        "length_covered": round(rr30a.traced_length_covered(skeleton_um, annotation), 3),
        "length_in_dendrites": round(rr30a.length_in_dendrites(dendrites, annotation), 3),
        "segmentation_s": image["seconds"]["segmentation"],
        "whole_run_s": round(run.seconds),
    }


PARTS = {"phantoms": on_phantoms, "spacings": at_other_spacings, "real": on_real_data}


def main() -> None:
    """Print one row per condition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="two-photon", choices=sorted(SPACINGS_UM))
    parser.add_argument("--model", default="", help="default: the shipped one of the kind")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--seed", type=int, default=9100)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.model = arguments.model or arguments.kind
    metrics: Figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        for part in arguments.parts:
            for condition, values in PARTS[part](arguments, Path(scratch) / part).items():
                metrics[condition] = values
                print(f"{condition:<18}", *(f"{k} {v}" for k, v in values.items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
