"""An experiment that anyone can make: phantoms in RESPAN's folder layout, with their truth."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from respan_common.params import SynthesisParams
from respan_orchestrator.console import console, live_progress
from respan_orchestrator.matching import agreement
from respan_orchestrator.synthesis import SynthesisRequest, make_phantoms

TRUTH_FOLDER = "Truth"
MATCH_LIMIT_UM = 0.75
"""A found head this near to a true one is that spine; the closest true heads are farther apart."""


@dataclass(frozen=True)
class _DemoImage:
    sub_folder: str
    name: str
    params: SynthesisParams


_IMAGES = (
    _DemoImage(
        "Animal_A",
        "dendrite0",
        SynthesisParams(kind="two-photon", shape=[28, 288, 288], snr="easy", seed=101),
    ),
    _DemoImage(
        "Animal_A", "dendrite1", SynthesisParams(kind="two-photon", shape=[28, 288, 288], seed=102)
    ),
    _DemoImage(
        "Animal_B",
        "two_channels",
        SynthesisParams(kind="confocal", shape=[48, 224, 224], channels=2, seed=103),
    ),
)

_SETTINGS = """\
# Made by `respan demo`. Voxel sizes come from the image files themselves.
Parameters:
  neuron_channel: 1
"""


def make_experiment(folder: Path, *, quiet: bool) -> None:
    """Write the demo's experiment; what is there already stays as it is."""
    for image in _IMAGES:
        sub_folder = folder / image.sub_folder
        sub_folder.mkdir(parents=True, exist_ok=True)
        settings = sub_folder / "Analysis_Settings.yml"
        if not settings.exists():
            settings.write_text(_SETTINGS, encoding="utf-8")
        if not (sub_folder / f"{image.name}.tif").exists():
            _make_image(image, sub_folder, folder / TRUTH_FOLDER, quiet=quiet)


def compare_with_truth(folder: Path, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each analyzed image: spines found, spines that can be seen in it, and how many agree."""
    rows = []
    for image in images:
        truth = folder / TRUTH_FOLDER / f"{image['name']}_spines.csv"
        table = folder / image["sub_folder"] / "Tables" / f"{image['name']}_detected_spines.csv"
        if truth.exists() and table.exists() and image["status"] != "failed":
            rows.append({"image": image["name"], **compare_tables(table, truth)})
    return rows


def print_comparison(rows: list[dict[str, Any]]) -> None:
    """Table of the comparison with the truth."""
    table = Table(title="Compared with the truth", title_justify="left")
    for column in ("image", "spines found", "spines visible", "the same", "F1"):
        table.add_column(column, justify="left" if column == "image" else "right")
    for row in rows:
        counts = (str(row[key]) for key in ("found", "true", "matched"))
        table.add_row(row["image"], *counts, f"{row['f1']:.2f}")
    console.print(table)


def _make_image(image: _DemoImage, sub_folder: Path, truth: Path, *, quiet: bool) -> None:
    truth.mkdir(exist_ok=True)
    # Beside the results: a service in a container sees that folder, not this machine's /tmp.
    with tempfile.TemporaryDirectory(prefix=".phantoms-", dir=truth.parent) as scratch:
        with live_progress(quiet=quiet):
            make_phantoms(SynthesisRequest(out=scratch, params=image.params))
        made = next((Path(scratch) / "images").glob("*.tif"))
        for path in sorted((Path(scratch) / "truth").iterdir()):
            shutil.move(path, truth / path.name.replace(made.stem, image.name))
        shutil.move(made, sub_folder / f"{image.name}.tif")


def compare_tables(table: Path, truth: Path, least_head_um3: float = 0.0) -> dict[str, Any]:
    """Spines of a table that are spines of a phantom's truth table, one to one.

    Found heads smaller than `least_head_um3` do not count.
    """
    found, true = pd.read_csv(table), pd.read_csv(truth)
    found = found[found["head_vol"] >= least_head_um3]
    # Spines that the optics hide in the shaft's own light are no one's to find.
    true = true[true["resolvable"]]
    result = agreement(_heads(found), _heads(true), MATCH_LIMIT_UM)
    return {
        "found": result.found,
        "true": result.true,
        "matched": result.matched,
        "f1": round(result.f1, 3),
    }


def _heads(table: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    return table[["z_um", "y_um", "x_um"]].to_numpy(np.float64)
