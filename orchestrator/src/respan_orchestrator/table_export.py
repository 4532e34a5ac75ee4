"""Tables of a store, with shape classes, and as the CSV files that RESPAN's users expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from respan_common import ngff
from respan_common.buckets import Location
from respan_common.columns import Column, from_metadata
from respan_common.errors import VolumeFormatError
from respan_common.geometry import VoxelSpacing
from respan_common.records import record_of, verify
from respan_common.volumes import exists, open_volume
from respan_orchestrator.fiji import complete_or_absent
from respan_orchestrator.rule_sets import RuleSet
from respan_orchestrator.shape_classes import CLASS, class_counts, classify


def table_output(name: str) -> str:
    """Where a store has the table of that name."""
    return f"tables/{name}/{ngff.TABLE}"


SPINES = table_output("spines")
DENDRITES = table_output("dendrites")
_OTHERS = {
    "branches": "branches",
    "branch_orders": "branch_orders",
    "neurons": "neurons",
    "sholl": "sholl",
}
"""Further tables, and how their CSV files' names end."""

_PLACES = ("x", "y", "z", "z_um", "y_um", "x_um", "position_on_dendrite_um")
"""Columns whose mean says nothing, for tables of earlier versions that do not say so."""

_OWNERS = {"branches": ["dendrite_id", "branch_id"], "neurons": ["soma_id"]}
"""Whose spines the rows of further tables count by class."""


@dataclass(frozen=True)
class ImageTables:
    """What is known of one image."""

    spines: pd.DataFrame
    dendrites: pd.DataFrame
    others: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    averaged: tuple[str, ...] = ()
    """Columns of the spine table whose mean says something."""
    may_be_missing: frozenset[str] = frozenset()
    """Those of them that some spines can lack."""


def image_tables(store: Location, rules: RuleSet | None = None) -> ImageTables | None:
    """All tables of a store, with classes if there are rules; None if it has not been quantified.

    Raises
    ------
    VolumeFormatError
        If a table is not as it was published.
    """
    spines, dendrites = read_table(store, SPINES), read_table(store, DENDRITES)
    if spines is None or dendrites is None:
        return None
    columns = [
        column
        for column in described_columns(store, SPINES)
        if column.averaged and column.name not in _PLACES
    ]
    found = {name: read_table(store, table_output(name)) for name in _OTHERS}
    tables = ImageTables(
        spines,
        dendrites,
        {name: table for name, table in found.items() if table is not None},
        tuple(column.name for column in columns),
        frozenset(column.name for column in columns if column.may_be_missing),
    )
    return tables if rules is None else _with_classes(tables, rules)


def export_tables(store: Location, folder: Path, rules: RuleSet | None = None) -> list[Path]:
    """Write an image's tables as CSV, the first two with RESPAN's names and columns first.

    Tables that the store does not have any more are removed.
    """
    name, tables = store.name.removesuffix(".ome.zarr"), image_tables(store, rules)
    spines_path = folder / f"{name}_detected_spines.csv"
    dendrites_path = folder / f"{name}_dendrite_summary.csv"
    others = {table: folder / f"{name}_{ending}.csv" for table, ending in _OTHERS.items()}
    wanted = {} if tables is None else tables.others
    for table, path in others.items():
        if table not in wanted:
            path.unlink(missing_ok=True)
    if tables is None:
        for path in (spines_path, dendrites_path):
            path.unlink(missing_ok=True)
        return []
    spacing = measured_spacing(store)
    return [
        write_csv(tables.spines, spines_path),
        write_csv(_with_origin(tables.dendrites, name, spacing), dendrites_path),
        *(write_csv(_with_origin(wanted[one], name, spacing), others[one]) for one in wanted),
    ]


def measured_spacing(store: Location) -> VoxelSpacing:
    """Voxel size of what was measured: x, y and z in the tables count these voxels.

    Axial restoration makes it finer than the raw image's.
    """
    return open_volume(store, "labels/classes" if exists(store, "labels/classes") else "").spacing


def read_table(store: Location, output: str) -> pd.DataFrame | None:
    """A published table of a store; None if the stage that makes it has not finished.

    Raises
    ------
    VolumeFormatError
        If it is not as it was published.
    """
    content = _published(store, output)
    if content is None:
        return None
    try:
        return pd.read_parquet(content)
    except (OSError, ValueError) as error:
        raise VolumeFormatError(f"{output} of {store} is no table: {error}") from error


def described_columns(store: Location, output: str) -> list[Column]:
    """What a published table says of its columns; empty if it is not there."""
    content = _published(store, output)
    if content is None:
        return []
    return [
        from_metadata(
            part.name,
            {key.decode(): value.decode() for key, value in (part.metadata or {}).items()},
            "float64" if pa.types.is_floating(part.type) else "str",
        )
        for part in pq.read_schema(content)
    ]


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table at once; missing values are empty fields."""
    with complete_or_absent(path) as temporary:
        table.to_csv(temporary, index=False, na_rep="", encoding="utf-8", lineterminator="\n")
    return path


def published_name(store: Location, output: str) -> str:
    """What a store calls a table; earlier versions called it tables/spines.parquet."""
    earlier = output.replace(f"/{ngff.TABLE}", ".parquet")
    return earlier if record_of(store, output) is None and record_of(store, earlier) else output


def _published(store: Location, output: str) -> BytesIO | None:
    """Content of a published table, verified."""
    name = published_name(store, output)
    record = record_of(store, name) if store.is_dir() else None
    if record is None:
        return None
    verify(store, name, record)
    return BytesIO((store / name).read_bytes())


def _with_classes(tables: ImageTables, rules: RuleSet) -> ImageTables:
    spines = pd.concat([tables.spines, classify(tables.spines, rules)], axis=1)
    owned = spines
    if "soma_id" in tables.dendrites:
        somas = tables.dendrites.set_index("dendrite_id")["soma_id"]
        owned = spines.assign(soma_id=spines["dendrite_id"].map(somas))
    others = {
        name: _with_counts(table, owned, _OWNERS[name], rules) if name in _OWNERS else table
        for name, table in tables.others.items()
    }
    dendrites = _with_counts(tables.dendrites, owned, ["dendrite_id"], rules)
    return ImageTables(spines, dendrites, others, tables.averaged, tables.may_be_missing)


def _with_counts(
    table: pd.DataFrame, spines: pd.DataFrame, keys: list[str], rules: RuleSet
) -> pd.DataFrame:
    """Table with the number of each row's spines of every class."""
    if not set(keys) <= set(spines) & set(table):
        return table
    # Numbers that may be missing are of another type than those that never are.
    rows, places = (
        pd.MultiIndex.from_frame(part[keys].astype("float64")) for part in (table, spines)
    )
    counts = class_counts(spines[CLASS], rows.get_indexer(places), len(table), rules)
    return pd.concat([table, counts.set_axis(table.index)], axis=1)


def _with_origin(table: pd.DataFrame, name: str, spacing: VoxelSpacing) -> pd.DataFrame:
    """Table with RESPAN's first three columns: image and voxel size."""
    columns = {"Filename": name, "res_XY": spacing.x_um, "res_Z": spacing.z_um}
    return pd.concat([pd.DataFrame(columns, index=table.index), table], axis=1)
