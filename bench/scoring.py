"""How well an analyzed phantom agrees with its truth: spines, dendrites, density."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from bench.rr30a import read_steps
from respan_common.geometry import VoxelSpacing
from respan_common.volumes import Volume, open_volume
from respan_orchestrator.matching import agreement

OVERLAP = 0.5
"""Intersection over union above which a found spine is a true one; no spine is then in two."""

CENTER_UM = 0.5

INSIDE_UM = 1.0
"""How far inside the field bases and centerlines are for densities that its faces leave alone."""

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

    @cached_property
    def image(self) -> Volume:
        """The image itself."""
        return open_volume(self.store)

    def truth(self, which: str) -> NDArray[np.uint32]:
        """Label image of the phantom: `instances` or `labels`."""
        image = tifffile.imread(self.phantoms / which / f"{self.name}.tif")
        return np.asarray(image, dtype=np.uint32)


def counts(volume: Analyzed) -> Counts:
    """Everything that is counted in one volume."""
    found, true = _heads_um(volume.found), _heads_um(volume.true)
    return {
        "found": len(found),
        "true": len(true),
        "same": agreement(found, true, CENTER_UM).matched,
        "same_flat": agreement(found, true, CENTER_UM, FLAT).matched,
        "overlapping": overlapping(volume.labels("spines"), volume.truth("instances")),
        **_lengths(volume),
        **_centerlines(volume),
        **_bases(volume),
    }


def figures(counted: list[Counts]) -> dict[str, float]:
    """Scores over all volumes together.

    Returns
    -------
    dict
        `f1_overlap`; `f1_center`, in space; `f1_center_flat`, where a distance along z counts 0.4
        times, with its precision and recall; `cl_dice`; `density_error`, of the whole field, and
        `density_error_inside`.
    """
    total = pd.DataFrame(counted).sum()
    both = max(total["found"] + total["true"], 1)
    inside = total["found_line_inside_um"] / max(total["found_line_um"], 1e-9)
    covered = total["true_line_inside_um"] / max(total["true_line_um"], 1e-9)
    values = {
        "f1_overlap": 2 * total["overlapping"] / both,
        "f1_center": 2 * total["same"] / both,
        "f1_center_flat": 2 * total["same_flat"] / both,
        "precision": total["same_flat"] / max(total["found"], 1),
        "recall": total["same_flat"] / max(total["true"], 1),
        "cl_dice": 2 * inside * covered / max(inside + covered, 1e-9),
        "density_error": _density_error(total, ""),
        "density_error_inside": _density_error(total, "deep_"),
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


def _density_error(total: pd.Series[float], where: str) -> float:
    found, true = (
        total[f"{where}{kind}"] / max(total[f"{where}{kind}_um"], 1e-9)
        for kind in ("found", "true")
    )
    return found / max(true, 1e-9) - 1


def _lengths(volume: Analyzed) -> Counts:
    ours = pd.read_csv(volume.folder / "Tables" / f"{volume.name}_dendrite_summary.csv")
    truth = pd.read_csv(volume.phantoms / "truth" / f"{volume.name}_dendrites.csv")
    return {"found_um": ours["dendrite_length"].sum(), "true_um": truth["length_um"].sum()}


def _centerlines(volume: Analyzed) -> Counts:
    """Lengths of both centerlines: all, in the other's dendrite (for clDice), deep inside."""
    counted = {}
    for kind, folder, mask in (
        ("found", volume.folder / "SWC_files", volume.truth("labels") > 1),
        ("true", volume.phantoms / "truth", volume.labels("dendrites") > 0),
    ):
        middles_um, lengths_um = read_steps(folder / f"{volume.name}.swc")
        counted |= {
            f"{kind}_line_um": lengths_um.sum(),
            f"{kind}_line_inside_um": lengths_um[
                _inside(middles_um, mask, volume.image.spacing)
            ].sum(),
            f"deep_{kind}_um": lengths_um[_deep(middles_um, volume)].sum(),
        }
    return counted


def _bases(volume: Analyzed) -> Counts:
    """Spines whose base lies deep inside; of one without a base, its head."""
    counted = {}
    for kind, table in (("found", volume.found), ("true", volume.true)):
        bases_um = table[["base_z_um", "base_y_um", "base_x_um"]].to_numpy(np.float64)
        places_um = np.where(np.isfinite(bases_um), bases_um, _heads_um(table))
        counted[f"deep_{kind}"] = int(_deep(places_um, volume).sum())
    return counted


def _deep(points_um: NDArray[np.float64], volume: Analyzed) -> NDArray[np.bool_]:
    """Whether points lie farther inside the field than `INSIDE_UM`."""
    last_um = volume.image.spacing.zyx * (np.array(volume.image.shape_zyx) - 1)
    away_um = np.minimum(points_um, last_um - points_um)
    return np.asarray((away_um > INSIDE_UM).all(axis=1))


def _inside(
    points_um: NDArray[np.float64], mask: NDArray[np.bool_], spacing: VoxelSpacing
) -> NDArray[np.bool_]:
    index = np.rint(points_um / spacing.zyx).astype(np.intp)
    index = np.clip(index, 0, np.asarray(mask.shape) - 1)
    return np.asarray(mask[tuple(index.T)])
