"""Tables as Parquet files that say what their columns mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from respan_common.columns import Column


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
