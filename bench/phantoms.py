"""Analyze phantoms that no model was trained on, and score the spines against exact truth.

    python -m bench.phantoms [--kind two-photon] [--images 4] [--model NAME|DIR] [--seed 9000]

Truth are the spines that the optics can resolve (column `resolvable`); a found head within
0.75 µm of a true one is that spine, one to one.
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


def respan(*arguments: str) -> dict[str, object]:
    """Output of a command with --json."""
    command = [sys.executable, "-m", "respan_orchestrator", *arguments, "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(answer.stdout))


def analyze(work: Path, kind: str, snr: str, images: int, seed: int, model: str) -> pd.DataFrame:
    """Make, analyze and score `images` volumes; one row each."""
    phantoms, folder = work / f"phantoms_{snr}", work / f"experiment_{snr}"
    respan(
        "synth",
        str(phantoms),
        "--kind",
        kind,
        "--images",
        str(images),
        "--snr",
        snr,
        "--seed",
        str(seed),
    )
    folder.mkdir()
    (folder / "Analysis_Settings.yml").write_text("Parameters:\n  neuron_channel: 1\n")
    names = []
    for path in sorted((phantoms / "images").glob("*.tif")):
        path.rename(folder / path.name)
        names.append(path.stem)
    respan("run", str(folder), *(["--model", model] if model else []))
    rows = [
        compare_tables(
            folder / "Tables" / f"{name}_detected_spines.csv",
            phantoms / "truth" / f"{name}_spines.csv",
        )
        for name in names
    ]
    return pd.DataFrame(rows)


def main() -> None:
    """Print a table: one row per noise level."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="two-photon", choices=("two-photon", "confocal"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--seed", type=int, default=9000)
    parser.add_argument("--model", default="")
    arguments = parser.parse_args()
    print(f"{'snr':<10}{'found':>7}{'true':>7}{'same':>7}{'precision':>11}{'recall':>8}{'F1':>7}")
    with tempfile.TemporaryDirectory() as scratch:
        for snr in SNRS:
            counts = analyze(
                Path(scratch),
                arguments.kind,
                snr,
                arguments.images,
                arguments.seed,
                arguments.model,
            )
            found, true, same = (int(counts[name].sum()) for name in ("found", "true", "matched"))
            shares = (same / max(found, 1), same / max(true, 1), 2 * same / max(found + true, 1))
            print(
                f"{snr:<10}{found:>7}{true:>7}{same:>7}{shares[0]:>11.3f}{shares[1]:>8.3f}{shares[2]:>7.3f}"
            )


if __name__ == "__main__":
    main()
