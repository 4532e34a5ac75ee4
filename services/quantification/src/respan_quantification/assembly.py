"""From what blocks and dendrites told to the tables of an image. Tables only."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.params import QuantificationParams
from respan_quantification import tables
from respan_quantification.census import Census
from respan_quantification.classes import HEAD_ROLES
from respan_quantification.network import nearest_in_space_um
from respan_quantification.objects import touches_faces
from respan_quantification.sholl import Sholl


@dataclass(frozen=True)
class Told:
    """What single pieces of work told: tables to be put one below the other."""

    spines: Sequence[pd.DataFrame]
    """Per block, with anchor (raster number of the head's first voxel) and spine_id from 1."""
    placed: Sequence[pd.DataFrame]
    """Per dendrite, with anchor."""
    dendrites: Sequence[pd.DataFrame]
    branches: Sequence[pd.DataFrame]
    somas: pd.DataFrame
    sholl: Mapping[int, Sholl]
    """Per dendrite."""


@dataclass(frozen=True)
class ImageTables:
    """All tables of an image, by name."""

    spines: pd.DataFrame
    dendrites: pd.DataFrame
    branches: pd.DataFrame
    branch_orders: pd.DataFrame
    neurons: pd.DataFrame
    image: pd.DataFrame
    sholl: pd.DataFrame

    def named(self) -> dict[str, pd.DataFrame]:
        """Name and table."""
        return dict(vars(self))


def final_ids(spines: Sequence[pd.DataFrame]) -> list[NDArray[np.uint32]]:
    """Per block, the final id of its spine 0 (none), 1, 2, ...: they rise with the anchors."""
    anchors = [table["anchor"].to_numpy(np.int64) for table in spines]
    ranks = np.argsort(np.argsort(np.concatenate([np.zeros(0, np.int64), *anchors])))
    starts = np.cumsum([0, *(len(table) for table in spines)])
    return [
        np.concatenate([[0], ranks[start:stop] + 1]).astype(np.uint32)
        for start, stop in itertools.pairwise(starts)
    ]


def image_tables(
    told: Told, census: Census, shape_zyx: Zyx, spacing: VoxelSpacing, channels: int
) -> ImageTables:
    """All tables of an image, with final ids."""
    spines = tables.spine_table(_spines(told), channels)
    dendrites = tables.dendrite_table(
        _dendrites(told, census, shape_zyx, spacing), spines, channels
    )
    branches = tables.branch_table(_stacked(told.branches), spines, channels)
    return ImageTables(
        spines=spines,
        dendrites=dendrites,
        branches=branches,
        branch_orders=tables.branch_order_table(branches),
        neurons=tables.neuron_table(told.somas, dendrites, spines, channels),
        image=tables.image_table(dendrites, spines, len(told.somas), channels),
        sholl=tables.sholl_table(told.sholl, _somas_of(told)),
    )


def warnings_of(
    found: ImageTables, roles: Mapping[str, int], params: QuantificationParams
) -> list[str]:
    """What a reader of the tables must know."""
    warnings = []
    if not len(found.dendrites):
        warnings.append(
            f"no dendrite of at least {params.min_dendrite_volume_um3:g} µm³ was found; spines "
            "are measured only near dendrites, so none is reported"
        )
    elif not any(role in roles for role in HEAD_ROLES):
        warnings.append("the model does not segment spines: only dendrites were measured")
    elif not len(found.spines):
        warnings.append("no spine passed the filters")
    lost = int((found.spines["attached"] == "none").sum())
    if lost:
        warnings.append(
            f"{lost} of {len(found.spines)} spines have no visible or inferred way to a dendrite: "
            "their lengths are missing"
        )
    return warnings


def _spines(told: Told) -> pd.DataFrame:
    table = _stacked(told.spines).sort_values("anchor", ignore_index=True)
    table["spine_id"] = np.arange(1, len(table) + 1)
    placed = _stacked(told.placed)
    if len(placed):
        table = table.merge(placed, on="anchor", how="left", validate="one_to_one")
    if len(table):
        table["nearest_spine_um"] = nearest_in_space_um(table[["z_um", "y_um", "x_um"]].to_numpy())
    return table


def _dendrites(
    told: Told, census: Census, shape_zyx: Zyx, spacing: VoxelSpacing
) -> list[dict[str, Any]]:
    axes = (0, 1, 2) if shape_zyx[0] > 1 else (1, 2)
    return [
        {
            **{str(name): value for name, value in row.items()},
            "dendrite_volume": float(census.voxels[row["dendrite_id"]]) * spacing.voxel_volume_um3,
            "touches_border": touches_faces(census.box(row["dendrite_id"]), shape_zyx, axes),
        }
        for row in _stacked(told.dendrites).to_dict("records")
    ]


def _somas_of(told: Told) -> dict[int, int]:
    rows = _stacked(told.dendrites)
    return dict(zip(rows["dendrite_id"], rows["soma_id"], strict=True)) if len(rows) else {}


def _stacked(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else (parts or [pd.DataFrame()])[0]
