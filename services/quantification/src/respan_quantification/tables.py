"""Tables of spines and dendrites, and an image's few numbers. A missing value is NaN, never 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from respan_quantification import columns


def spine_table(rows: Sequence[Mapping[str, Any]], channels: int) -> pd.DataFrame:
    """One row per spine; columns that no row has are empty, and all are there without any row."""
    return _typed(pd.DataFrame(rows), columns.spine_columns(channels))


def dendrite_table(
    rows: Sequence[Mapping[str, Any]], spines: pd.DataFrame, channels: int
) -> pd.DataFrame:
    """One row per dendrite, with or without spines, and the means over its spines.

    Parameters
    ----------
    rows
        dendrite_id, dendrite_length (µm), dendrite_volume (µm³), and our own columns.
    spines
        From `spine_table`.
    """
    measured = columns.averaged_columns(channels)
    names = [*columns.DENDRITE, *measured, *columns.DENDRITE_OWN]
    table = pd.DataFrame(rows)
    if len(table):
        ids = table["dendrite_id"].to_numpy()
        grouped = spines.groupby("dendrite_id")
        total = grouped.size().reindex(ids, fill_value=0).to_numpy()
        table["total_spines"] = total
        table["spines_per_um"] = _per(total, table["dendrite_length"].to_numpy())
        table["spines_per_um3"] = _per(total, table["dendrite_volume"].to_numpy())
        means = grouped[measured].mean().reindex(ids)
        table = pd.concat([table, means.reset_index(drop=True)], axis=1)
    return _typed(table, names)


def numbers_of(dendrites: pd.DataFrame, spines: pd.DataFrame) -> dict[str, float]:
    """An image's totals."""
    return {
        "spines": float(len(spines)),
        "dendrites": float(len(dendrites)),
        "dendrite_length_um": float(dendrites["dendrite_length"].sum()),
        "dendrite_volume_um3": float(dendrites["dendrite_volume"].sum()),
    }


def _per(total: np.ndarray[Any, Any], amount: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Density; missing where there is nothing to divide by."""
    missing = np.full(len(total), np.nan)
    return np.asarray(np.divide(total, amount, out=missing, where=amount > 0))


def _typed(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    table = table.reindex(columns=names)
    return table.astype({name: columns.dtype_of(name) for name in names})
