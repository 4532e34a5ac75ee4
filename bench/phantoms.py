"""Analyze phantoms that no model was trained on, and score the spines against exact truth.

    python -m bench.phantoms [--kind two-photon] [--images 4] [--model NAME|DIR] [--seed 9000]
                             [--json metrics.json] [--sweep]

Truth are the spines that the optics can resolve (column `resolvable`); a found head within
0.75 µm of a true one is that spine, one to one. `--sweep` shows what a larger least head volume
would change: how a model's own least volume (its card's operating point) is chosen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from respan_orchestrator.demo import compare_tables

SNRS = ("easy", "typical", "hard")
LEAST_VOLUMES_UM3 = (0.0, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


def respan(*arguments: str) -> dict[str, object]:
    """Output of a command with --json."""
    command = [sys.executable, "-m", "respan_orchestrator", *arguments, "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(answer.stdout))


def analyze(
    work: Path,
    kind: str,
    snr: str,
    images: int,
    seed: int,
    model: str,
    spacing_um: list[float] | None = None,
) -> list[str]:
    """Make `images` volumes in `phantoms_SNR` and analyze them in `experiment_SNR`; their names."""
    phantoms, folder = work / f"phantoms_{snr}", work / f"experiment_{snr}"
    options = ["--kind", kind, "--images", str(images), "--snr", snr, "--seed", str(seed)]
    if spacing_um is not None:
        options += ["--spacing", ",".join(map(str, spacing_um))]
    respan("synth", str(phantoms), *options)
    folder.mkdir()
    (folder / "Analysis_Settings.yml").write_text("Parameters:\n  neuron_channel: 1\n")
    names = []
    for path in sorted((phantoms / "images").glob("*.tif")):
        path.rename(folder / path.name)
        names.append(path.stem)
    respan("run", str(folder), *(["--model", model] if model else []))
    return names


def tables(work: Path, snr: str, names: list[str]) -> list[tuple[Path, Path]]:
    """Tables of found and true spines of each volume."""
    phantoms, folder = work / f"phantoms_{snr}", work / f"experiment_{snr}"
    return [
        (
            folder / "Tables" / f"{name}_detected_spines.csv",
            phantoms / "truth" / f"{name}_spines.csv",
        )
        for name in names
    ]


def score(pairs: list[tuple[Path, Path]], least_um3: float) -> dict[str, float]:
    """Agreement over all volumes, counting found heads of at least a volume."""
    counts = pd.DataFrame([compare_tables(found, true, least_um3) for found, true in pairs])
    found, true, same = (int(counts[name].sum()) for name in ("found", "true", "matched"))
    return {
        "found": found,
        "true": true,
        "same": same,
        "precision": round(same / max(found, 1), 3),
        "recall": round(same / max(true, 1), 3),
        "f1": round(2 * same / max(found + true, 1), 3),
    }


def main() -> None:
    """Print a table: one row per noise level, and per least volume with --sweep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="two-photon", choices=("two-photon", "confocal"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--seed", type=int, default=9000)
    parser.add_argument("--model", default="")
    parser.add_argument("--json", type=Path, help="file for the figures without a sweep")
    parser.add_argument("--sweep", action="store_true")
    arguments = parser.parse_args()
    metrics = {}
    with tempfile.TemporaryDirectory() as scratch:
        for snr in SNRS:
            options = (arguments.kind, snr, arguments.images, arguments.seed, arguments.model)
            pairs = tables(Path(scratch), snr, analyze(Path(scratch), *options))
            metrics[f"phantoms, {snr}"] = score(pairs, 0.0)
            for least_um3 in LEAST_VOLUMES_UM3 if arguments.sweep else (0.0,):
                print(
                    f"{snr:<8} head >= {least_um3:4.2f} µm³  {score(pairs, least_um3)}", flush=True
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
