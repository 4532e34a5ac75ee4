"""Tables as Parquet files that say what their columns mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from respan_common import ngff
from respan_common.columns import Column
from respan_quantification.columns import kinds

PathOf = Callable[[str, dict[str, Any]], Path]
"""Gives the file of a table by its name and its group's attributes, as `Draft.table` does."""


def write_tables(tables: Mapping[str, pd.DataFrame], channels: int, path_of: PathOf) -> None:
    """Write tables of a store, each under the name that `columns.kinds` has for it."""
    known = kinds(channels)
    for name, table in tables.items():
        kind = known[name]
        attributes = ngff.table_attributes(kind.columns, kind.index, kind.labels)
        write_parquet(table, kind.columns, path_of(name, attributes))


def write_parquet(table: pd.DataFrame, columns: Sequence[Column], path: Path) -> None:
    """Write a table; every field's metadata has unit, description and when it is missing.

    Parameters
    ----------
    table
        Its columns are exactly those of `columns`, in their order.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    described = [
        field.with_metadata(column.metadata())
        for field, column in zip(content.schema, columns, strict=True)
    ]
    pq.write_table(content.cast(pa.schema(described, content.schema.metadata)), path)
