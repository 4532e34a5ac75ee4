"""Tables of spines, branches, dendrites, neurons and images. A missing value is never 0.

Rows of things without spines are there, too. Every table has all of its columns with their types,
even without a row; `columns` says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from respan_common.columns import Column
from respan_quantification import columns
from respan_quantification.sholl import Sholl

Rows = Sequence[Mapping[str, Any]] | pd.DataFrame

_SUMS = ("dendrite_length", "dendrite_volume", "branches", "tips", "forks")
_USABLE = ("usable_length_um", "usable_spines")


def spine_table(rows: Rows, channels: int) -> pd.DataFrame:
    """One row per spine; columns that no row has are empty, and all are there without any row."""
    return _typed(pd.DataFrame(rows), columns.spine(channels))


def dendrite_table(rows: Rows, spines: pd.DataFrame, channels: int) -> pd.DataFrame:
    """One row per dendrite, with or without spines, and the means over its spines.

    Parameters
    ----------
    rows
        dendrite_id, dendrite_length (µm), dendrite_volume (µm³), and those of our own columns that
        are measured on the dendrite itself; soma_id may be 0 for none.
    spines
        From `spine_table`.
    """
    table = _without_zeros(pd.DataFrame(rows), "soma_id")
    table = _with_spines(table, ["dendrite_id"], spines, channels)
    return _typed(_with_densities(table, "dendrite_length"), columns.dendrite(channels))


def branch_table(rows: Rows, spines: pd.DataFrame, channels: int) -> pd.DataFrame:
    """One row per branch of every dendrite.

    Parameters
    ----------
    rows
        Those of `Tree.branches_table`, with dendrite_id, usable_length_um and usable_spines;
        parent_branch_id is 0 for branches that begin at the root.
    """
    table = _without_zeros(pd.DataFrame(rows), "parent_branch_id")
    table = _with_spines(table, ["dendrite_id", "branch_id"], spines, channels)
    return _typed(_with_densities(table, "length_um"), columns.branch(channels))


def branch_order_table(branches: pd.DataFrame) -> pd.DataFrame:
    """One row per dendrite and branch order."""
    amounts = ["length_um", "total_spines", *_USABLE]
    grouped = branches.groupby(["dendrite_id", "branch_order"], sort=True)
    table = grouped[amounts].sum(min_count=1)
    table["branches"] = grouped.size()
    return _typed(_with_densities(table.reset_index(), "length_um"), columns.branch_order())


def neuron_table(
    somas: Rows, dendrites: pd.DataFrame, spines: pd.DataFrame, channels: int
) -> pd.DataFrame:
    """One row per soma, with all dendrites that reach it; those that reach none are in no row.

    Parameters
    ----------
    somas
        soma_id (from 1) and what was measured of it.
    dendrites, spines
        From `dendrite_table` and `spine_table`.
    """
    table = pd.DataFrame(somas)
    if len(table):
        grouped = dendrites.groupby("soma_id")
        sums = grouped[[*_SUMS, *_USABLE]].sum(min_count=1)
        sums["max_branch_order"] = grouped["max_branch_order"].max()
        sums = sums.reindex(table["soma_id"].to_numpy()).reset_index(drop=True)
        measured = ["dendrite_length", "dendrite_volume", *_SUMS[2:], *_USABLE]
        sums[measured] = sums[measured].fillna(0)
        count = grouped.size().reindex(table["soma_id"].to_numpy(), fill_value=0)
        table = pd.concat([table, sums], axis=1).assign(dendrites=count.to_numpy())
    of_dendrite = dendrites.set_index("dendrite_id")["soma_id"]
    owned = spines.assign(soma_id=spines["dendrite_id"].map(of_dendrite))
    table = _with_spines(table, ["soma_id"], owned.dropna(subset="soma_id"), channels)
    return _typed(_with_densities(table, "dendrite_length"), columns.neuron(channels))


def image_table(
    dendrites: pd.DataFrame, spines: pd.DataFrame, somas: int, channels: int
) -> pd.DataFrame:
    """One row: totals over all dendrites, and means over all spines."""
    sums = dendrites[[*_SUMS, *_USABLE]].sum(min_count=1).to_dict()
    if not len(dendrites):
        sums = dict.fromkeys(sums, 0)
    row = {"image": 1, "somas": somas, "total_dendrites": len(dendrites), **sums}
    table = _with_spines(pd.DataFrame([row]), ["image"], spines.assign(image=1), channels)
    table = _with_densities(table, "dendrite_length")
    return _typed(
        table.rename(columns={"dendrite_volume": "dendrite_vol"}), columns.image(channels)
    )


def sholl_table(dendrites: Mapping[int, Sholl], somas: Mapping[int, int]) -> pd.DataFrame:
    """Every soma's spheres with all of its dendrites, then every dendrite's.

    Parameters
    ----------
    dendrites
        Per dendrite, around its soma's center or, without one, its root.
    somas
        The soma that each dendrite reaches; 0, or no entry: none.
    """
    of_soma: dict[int, list[Sholl]] = {}
    for dendrite, part in dendrites.items():
        if somas.get(dendrite):
            of_soma.setdefault(somas[dendrite], []).append(part)
    rows = [row for soma in sorted(of_soma) for row in Sholl.total(of_soma[soma]).rows(soma)]
    for dendrite in sorted(dendrites):
        rows += dendrites[dendrite].rows(somas.get(dendrite) or None, dendrite)
    return _typed(pd.DataFrame(rows), columns.SHOLL)


def numbers_of(dendrites: pd.DataFrame, spines: pd.DataFrame) -> dict[str, float]:
    """An image's totals."""
    return {
        "spines": float(len(spines)),
        "dendrites": float(len(dendrites)),
        "dendrite_length_um": float(dendrites["dendrite_length"].sum()),
        "dendrite_volume_um3": float(dendrites["dendrite_volume"].sum()),
    }


def _with_spines(
    table: pd.DataFrame, keys: list[str], spines: pd.DataFrame, channels: int
) -> pd.DataFrame:
    """Table with counts of spines, and means over them with n and missing counts.

    Each row owns the spines whose `keys` are its own.
    """
    if not len(table):
        return table
    means = columns.averaged(channels)
    names = columns.names(means)
    kinds = _kinds(spines)
    owned = pd.concat([spines[names], kinds], axis=1)
    grouped = owned.groupby([spines[key].astype("Int64") for key in keys])
    owners = _index(table[keys].astype("Int64"))
    total = grouped.size().reindex(owners, fill_value=0).to_numpy()
    counts = grouped[names].count().reindex(owners, fill_value=0).reset_index(drop=True)
    extra: dict[str, Any] = {"total_spines": total}
    for name in names:
        extra |= {f"n_{name}": counts[name], f"missing_{name}": total - counts[name]}
    found = [
        grouped[names].mean().reindex(owners).reset_index(drop=True),
        grouped[list(kinds)].sum().reindex(owners, fill_value=0).reset_index(drop=True),
        pd.DataFrame(extra),
    ]
    return pd.concat([table.reset_index(drop=True), *found], axis=1)


def _index(keys: pd.DataFrame) -> Any:
    """What a group-by over these columns has as its index."""
    if len(keys.columns) > 1:
        return pd.MultiIndex.from_frame(keys)
    return pd.Index(keys.iloc[:, 0])


def _kinds(spines: pd.DataFrame) -> pd.DataFrame:
    """Whether each spine is of the kinds that tables count."""
    return pd.DataFrame(
        {
            "spines_seen": spines["attached"] == "seen",
            "spines_inferred": spines["attached"] == "inferred",
            "spines_unattached": spines["attached"] == "none",
            "spines_at_border": spines["touches_border"].fillna(False).astype(bool),
            "spines_below_resolution": spines["below_resolution"].fillna(False).astype(bool),
        }
    )


def _with_densities(table: pd.DataFrame, length: str) -> pd.DataFrame:
    """Table with spines per length, per volume and per usable length, where it has those."""
    if not len(table):
        return table
    found = {"spines_per_um": _per(table["total_spines"], table[length])}
    if "dendrite_volume" in table:
        found["spines_per_um3"] = _per(table["total_spines"], table["dendrite_volume"])
    if "usable_spines" in table:
        found["usable_spines_per_um"] = _per(table["usable_spines"], table["usable_length_um"])
    return table.assign(**found)


def _per(total: pd.Series[Any], amount: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Density; missing where there is nothing to divide by."""
    above, below = total.to_numpy("float64", na_value=np.nan), amount.to_numpy("float64")
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))


def _without_zeros(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Table in which a number of 0, which means none, is missing."""
    return table.assign(**{name: table[name].where(table[name] != 0)}) if name in table else table


def _typed(table: pd.DataFrame, wanted: Sequence[Column]) -> pd.DataFrame:
    kinds: dict[Any, list[str]] = {}
    for column in wanted:
        kinds.setdefault(column.dtype, []).append(column.name)
    names = columns.names(wanted)
    table = table.reindex(columns=names)
    # All columns of a type at once: for one after the other pandas takes as long as all the rest.
    parts = [table[own].astype(kind) for kind, own in kinds.items()]
    # A copy keeps columns of one type together; else pandas warns whoever adds a column.
    return pd.concat(parts, axis=1)[names].copy()
