"""How well an analyzed phantom agrees with its truth: spines, dendrites, density."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from bench.rr30a import drawn
from respan_common.geometry import VoxelSpacing
from respan_common.volumes import open_volume
from respan_orchestrator.matching import agreement

OVERLAP = 0.5
"""Intersection over union above which a found spine is a true one; no spine is then in two."""

CENTER_UM = 0.5

FLAT = (0.4, 1.0, 1.0)
"""Weights of a distance where slices are thick, as for the real stack."""

Counts = dict[str, float]
"""Sums over volumes; `figures` turns them into shares."""


@dataclass(frozen=True)
class Analyzed:
    """One phantom, and the folder in which it was analyzed."""

    name: str
    phantoms: Path
    folder: Path

    @property
    def found(self) -> pd.DataFrame:
        """Table of found spines."""
        return pd.read_csv(self.folder / "Tables" / f"{self.name}_detected_spines.csv")

    @property
    def true(self) -> pd.DataFrame:
        """Spines that the optics resolve."""
        table = pd.read_csv(self.phantoms / "truth" / f"{self.name}_spines.csv")
        return table[table["resolvable"]]

    def labels(self, which: str) -> NDArray[np.uint32]:
        """Label image of the analysis: `spines` or `dendrites`."""
        return open_volume(self.store, f"labels/{which}").read()

    @property
    def store(self) -> Path:
        """The image's store."""
        return self.folder / "Zarr" / f"{self.name}.ome.zarr"

    def truth(self, which: str) -> NDArray[np.uint32]:
        """Label image of the phantom: `instances` or `labels`."""
        image = tifffile.imread(self.phantoms / which / f"{self.name}.tif")
        return np.asarray(image, dtype=np.uint32)


def counts(volume: Analyzed) -> Counts:
    """Everything that is counted in one volume."""
    found, true = _heads_um(volume.found), _heads_um(volume.true)
    spacing = open_volume(volume.store).spacing
    return {
        "found": len(found),
        "true": len(true),
        "same": agreement(found, true, CENTER_UM).matched,
        "same_flat": agreement(found, true, CENTER_UM, FLAT).matched,
        "overlapping": overlapping(volume.labels("spines"), volume.truth("instances")),
        **_lengths(volume),
        **_centerlines(volume, spacing),
    }


def figures(counted: list[Counts]) -> dict[str, float]:
    """Scores over all volumes together.

    Returns
    -------
    dict
        `f1_overlap`; `f1_center`, in space; `f1_center_flat`, where a distance along z counts 0.4
        times, with its precision and recall; `cl_dice`; `density_error`.
    """
    total = pd.DataFrame(counted).sum()
    both = max(total["found"] + total["true"], 1)
    density = total["found"] / max(total["found_um"], 1e-9)
    true_density = total["true"] / max(total["true_um"], 1e-9)
    inside = total["found_inside"] / max(total["found_points"], 1)
    covered = total["true_inside"] / max(total["true_points"], 1)
    values = {
        "f1_overlap": 2 * total["overlapping"] / both,
        "f1_center": 2 * total["same"] / both,
        "f1_center_flat": 2 * total["same_flat"] / both,
        "precision": total["same_flat"] / max(total["found"], 1),
        "recall": total["same_flat"] / max(total["true"], 1),
        "cl_dice": 2 * inside * covered / max(inside + covered, 1e-9),
        "density_error": density / max(true_density, 1e-9) - 1,
    }
    return {name: round(float(value), 3) for name, value in values.items()}


def overlapping(found: NDArray[np.uint32], true: NDArray[np.uint32]) -> int:
    """Pairs of objects whose intersection is more than half of their union."""
    pairs, shared = np.unique(
        np.stack([found[(found > 0) & (true > 0)], true[(found > 0) & (true > 0)]]),
        axis=1,
        return_counts=True,
    )
    sizes, true_sizes = np.bincount(found.ravel()), np.bincount(true.ravel())
    union = sizes[pairs[0]] + true_sizes[pairs[1]] - shared
    return int((shared > OVERLAP * union).sum())


def _heads_um(table: pd.DataFrame) -> NDArray[np.float64]:
    return table[["z_um", "y_um", "x_um"]].to_numpy(np.float64).reshape(-1, 3)


def _lengths(volume: Analyzed) -> Counts:
    ours = pd.read_csv(volume.folder / "Tables" / f"{volume.name}_dendrite_summary.csv")
    truth = pd.read_csv(volume.phantoms / "truth" / f"{volume.name}_dendrites.csv")
    return {"found_um": ours["dendrite_length"].sum(), "true_um": truth["length_um"].sum()}


def _centerlines(volume: Analyzed, spacing: VoxelSpacing) -> Counts:
    """Points of both centerlines, and how many lie in the other's dendrite: clDice's two shares."""
    ours = _points_um(volume.folder / "SWC_files" / f"{volume.name}.swc")
    truth = _points_um(volume.phantoms / "truth" / f"{volume.name}.swc")
    return {
        "found_points": len(ours),
        "found_inside": _inside(ours, volume.truth("labels") > 1, spacing),
        "true_points": len(truth),
        "true_inside": _inside(truth, volume.labels("dendrites") > 0, spacing),
    }


def _points_um(path: Path) -> NDArray[np.float64]:
    if not path.exists():
        return np.zeros((0, 3))
    swc = np.loadtxt(path, comments="#", ndmin=2)
    return drawn(swc) if len(swc) else np.zeros((0, 3))


def _inside(points_um: NDArray[np.float64], mask: NDArray[np.bool_], spacing: VoxelSpacing) -> int:
    index = np.rint(points_um / spacing.zyx).astype(np.intp)
    index = np.clip(index, 0, np.asarray(mask.shape) - 1)
    return int(mask[tuple(index.T)].sum())
