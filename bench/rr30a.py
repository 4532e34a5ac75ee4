"""Analyze a real in-vivo two-photon stack from folder to tables, and score it against annotation.

    python -m bench.rr30a [--session tp0] [--model NAME|DIR] [--work FOLDER] [--picture FILE]

The data (MIT, mapmanager/PyMapManager-Data) are not part of the project: RESPAN_TEST_DATA names
their folder. Nothing in the project is trained or tuned on them.

The rule: annotated and found spines are matched one to one, head to head, at most 1.0 µm apart
in the plane, where a distance along z counts 0.4 times. Only spines within 3 µm of the traced
centerlines are scored, because bright dendrites elsewhere in the field are not annotated. Humans
agree with one another on 82 % of spines in such data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from bench.finds import COLUMNS, Stack, montage
from bench.processes import Run, run
from respan_common.volumes import open_volume
from respan_orchestrator.matching import Agreement, agreement, match_points

SPACING_UM = (1.0, 0.12, 0.12)
NEAR_CENTERLINE_UM = 3.0
MATCH_UM = 1.0
WEIGHTS = (0.4, 1.0, 1.0)
SETTINGS = "Parameters:\n  input_resXY: 0.12\n  input_resZ: 1.0\n"


@dataclass(frozen=True)
class Annotation:
    """Heads and traced centerlines, µm, (z, y, x)."""

    heads_um: NDArray[np.float64]
    centerlines_um: NDArray[np.float64]


def read_annotation(data: Path, session: str) -> Annotation:
    """Annotation of one whole session."""
    spines = pd.read_csv(data / f"rr30a_{session}_spines.csv")
    heads = spines[["z_slice", "head_y_px", "head_x_px"]].to_numpy(np.float64) * SPACING_UM
    swc = np.loadtxt(data / f"rr30a_{session}_dendrites.swc", comments="#")
    return Annotation(heads, swc[:, [4, 3, 2]])


def score(found_um: NDArray[np.float64], annotation: Annotation) -> Agreement:
    """Agreement by the rule above."""
    lines = cKDTree(annotation.centerlines_um)
    distance_um, _ = lines.query(found_um.reshape(-1, 3))
    near = found_um[distance_um <= NEAR_CENTERLINE_UM]
    return agreement(near, annotation.heads_um, MATCH_UM, WEIGHTS)


def steps_along(
    swc: NDArray[np.float64], step_um: float = 0.1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Middles (z, y, x) and lengths of steps along all pieces of an SWC table, at most so long."""
    at = {int(row[0]): n for n, row in enumerate(swc)}
    points = swc[:, [4, 3, 2]]
    above = points[np.array([at.get(int(row[6]), n) for n, row in enumerate(swc)], dtype=int)]
    length_um = np.linalg.norm(above - points, axis=1)
    count = np.maximum(np.ceil(length_um / step_um), 1).astype(int)
    piece = np.repeat(np.arange(len(swc)), count)
    first = np.cumsum(count) - count
    share = (np.arange(len(piece)) - first[piece] + 0.5) / count[piece]
    middles_um = points[piece] + share[:, None] * (above - points)[piece]
    return middles_um, (length_um / count)[piece]


def read_steps(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same of an SWC file; nothing where it is absent or empty."""
    swc = np.loadtxt(path, comments="#", ndmin=2) if path.exists() else np.zeros((0, 7))
    return steps_along(swc.reshape(-1, 7))


def traced_length_covered(skeleton_um: NDArray[np.float64], annotation: Annotation) -> float:
    """Share of the traced centerlines within 0.5 µm (in the plane; 0.4 times along z) of ours."""
    if not len(skeleton_um):
        return 0.0
    distance_um, _ = cKDTree(skeleton_um * WEIGHTS).query(annotation.centerlines_um * WEIGHTS)
    return float((distance_um <= 0.5).mean())


def length_in_dendrites(
    dendrites: NDArray[np.uint32], annotation: Annotation, reach_um: float = 0.5
) -> float:
    """Share of the traced centerlines with a dendrite's voxel near by, by the same distance."""
    reach = np.ceil(reach_um / (np.asarray(SPACING_UM) * WEIGHTS)).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach)), axis=-1).reshape(-1, 3)
    near = np.linalg.norm(steps * SPACING_UM * np.asarray(WEIGHTS), axis=1) <= reach_um
    at = np.rint(annotation.centerlines_um / SPACING_UM).astype(int)
    around = (at[:, None] + steps[near]).clip(0, np.array(dendrites.shape) - 1)
    z, y, x = np.moveaxis(around, -1, 0)
    return float((dendrites[z, y, x] > 0).any(axis=1).mean())


def analyze(data: Path, session: str, model: str, work: Path) -> tuple[Run, Path]:
    """Run the whole analysis as a user would; the run, and the sub-folder with its tables."""
    sub_folder = work / "rr30a" / session
    sub_folder.mkdir(parents=True, exist_ok=True)
    (sub_folder / "Analysis_Settings.yml").write_text(SETTINGS)
    shutil.copyfile(data / f"rr30a_{session}_ch2.ome.tif", sub_folder / f"{session}.tif")
    command = [sys.executable, "-m", "respan_orchestrator", "run", str(sub_folder), "--json"]
    return run([*command, *(["--model", model] if model else [])]), sub_folder


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--session", default="tp0", choices=("tp0", "tp1"))
    parser.add_argument("--model", default="", help="default: the best-fitting shipped one")
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    parser.add_argument("--picture", type=Path, help="false finds above, missed spines below")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RESPAN_TEST_DATA", "../shared/data")) / "rr30a"
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        result, folder = analyze(data, arguments.session, arguments.model, work)
        annotation = read_annotation(data, arguments.session)
        report(result, folder, annotation, arguments.session)
        if arguments.picture:
            draw(folder, arguments.session, annotation).save(arguments.picture)


def draw(folder: Path, session: str, annotation: Annotation, seed: int = 0) -> Image.Image:
    """Some of the false finds and some of the missed spines, drawn by lot."""
    table = pd.read_csv(folder / "Tables" / f"{session}_detected_spines.csv")
    found_um = table[["z_um", "y_um", "x_um"]].to_numpy(np.float64)
    distance_um, _ = cKDTree(annotation.centerlines_um).query(found_um)
    found_um = found_um[distance_um <= NEAR_CENTERLINE_UM]
    pairs = match_points(found_um, annotation.heads_um, MATCH_UM, WEIGHTS)
    rng = np.random.default_rng(seed)
    wrong, missed = (
        rng.permutation(np.delete(points, pairs[:, side], axis=0)) / SPACING_UM
        for side, points in enumerate((found_um, annotation.heads_um))
    )
    store = folder / "Zarr" / f"{session}.ome.zarr"
    grey = np.squeeze(tifffile.imread(folder / f"{session}.tif"))
    heads = annotation.heads_um / SPACING_UM
    spines = open_volume(store, "labels/spines").read()
    return montage(Stack(grey, spines, heads), [wrong[:COLUMNS], wrong[COLUMNS:], missed])


def report(result: Run, folder: Path, annotation: Annotation, session: str) -> None:
    """Print what the run took, and how its spines and dendrites agree with the annotation."""
    print(f"exit code {result.code}, {result.seconds:.0f} s, {result.peak_rss_mb:.0f} MB at most")
    outcome = json.loads(result.output)
    for image in outcome.get("images", []):
        print("seconds", image["seconds"], "| peak MB", image["peak_rss_mb"], image["error"])
    table = pd.read_csv(folder / "Tables" / f"{session}_detected_spines.csv")
    found = score(table[["z_um", "y_um", "x_um"]].to_numpy(np.float64), annotation)
    print(
        f"spines near the traced dendrites: {found.found} found, {found.true} annotated, "
        f"{found.matched} the same"
    )
    print(f"precision {found.precision:.3f}, recall {found.recall:.3f}, F1 {found.f1:.3f}")
    skeleton_um, _ = read_steps(folder / "SWC_files" / f"{session}.swc")
    covered = traced_length_covered(skeleton_um, annotation)
    dendrites = open_volume(folder / "Zarr" / f"{session}.ome.zarr", "labels/dendrites").read()
    inside = length_in_dendrites(dendrites, annotation)
    print(
        f"traced length within 0.5 µm of our centerlines {covered:.1%}, of dendrites {inside:.1%}"
    )


if __name__ == "__main__":
    main()
