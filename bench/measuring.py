"""Measure a drawn image as a service would: from a store with classes to its tables.

Nothing but files passes in and out, so that how the service works inside is its own affair.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.scenes import Point, Scene
from bench.stores import publish
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_quantification import stage

SHORT = {"min_dendrite_volume_um3": 1.0, "min_spine_volume_um3": 0.005}
"""Drawn dendrites are short, and drawn spines may be small."""


@dataclass(frozen=True)
class Tables:
    """What is known about an image."""

    spines: pd.DataFrame
    dendrites: pd.DataFrame
    numbers: dict[str, float]
    warnings: Sequence[str]
    dendrite_labels: NDArray[np.uint32]
    spacing: VoxelSpacing

    def spine_near(self, point_um: Point, reach_um: float) -> pd.Series[Any] | None:
        """Row of the spine whose head is nearest to a point of the scene, if one is near."""
        if not len(self.spines):
            return None
        away = np.linalg.norm(self.heads_um - np.asarray(point_um, float), axis=1)
        nearest = int(np.argmin(away))
        return self.spines.iloc[nearest] if away[nearest] <= reach_um else None

    @property
    def heads_um(self) -> NDArray[np.float64]:
        """Centers of the heads in the scene, whose corner is at 0 (the tables' is half a voxel)."""
        places = self.spines[["z_um", "y_um", "x_um"]].to_numpy(float)
        return np.asarray(places + np.asarray(self.spacing.zyx) / 2)

    def dendrite_at(self, point_um: Point) -> int:
        """Id of the dendrite at a point of the scene; 0 where there is none."""
        index = (np.asarray(point_um, float) / self.spacing.zyx).astype(int)
        return int(self.dendrite_labels[tuple(index)])


def measure(
    classes: NDArray[np.uint8],
    raw: NDArray[Any] | None,
    spacing: VoxelSpacing,
    scheme: int = 3,
    confidence: NDArray[np.uint8] | None = None,
    **params: Any,
) -> Tables:
    """Quantify a class image (z, y, x); without grey values, it is bright where a class is."""
    grey = np.where(classes > 0, 100, 10).astype(np.uint16) if raw is None else raw
    with tempfile.TemporaryDirectory() as scratch:
        store = publish(
            Path(scratch) / "scene.ome.zarr",
            classes.shape,
            spacing,
            lambda box: classes[box],
            lambda box: grey[box],
            scheme,
            grey.dtype,
            None if confidence is None else lambda box: confidence[box],
        )
        values = QuantificationParams(**(SHORT | params))
        # One thread: a scene is small, and a pool of processes takes longer to start than it helps.
        job = stage.QuantificationJob(store, values, Runtime("cpu", 1))
        record = stage.run(job, SilentReporter())
        return Tables(
            pd.read_parquet(store / "tables/spines/table.parquet"),
            pd.read_parquet(store / "tables/dendrites/table.parquet"),
            record.numbers,
            record.warnings,
            open_volume(store, "labels/dendrites").read(),
            spacing,
        )


def measure_scene(scene: Scene, **params: Any) -> Tables:
    """Quantify a scene that is bright where it has something."""
    return measure(scene.paint(), None, scene.spacing, **params)
