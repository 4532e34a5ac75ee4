import pandas as pd
import pyarrow.parquet as pq

from respan_quantification import columns
from respan_quantification.parquet import write_parquet
from respan_quantification.tables import spine_table


def test_a_table_comes_back_as_it_was(tmp_path):
    table = spine_table([{"spine_id": 1, "dendrite_id": 2, "attached": "seen"}], 1)
    write_parquet(table, columns.spine(1), tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)


def test_every_column_says_its_unit_and_what_it_means(tmp_path):
    write_parquet(spine_table([], 2), columns.spine(2), tmp_path / "table.parquet")
    schema = pq.read_schema(tmp_path / "table.parquet")
    assert schema.field("head_vol").metadata[b"unit"].decode() == "µm³"
    assert schema.field("neck_length").metadata[b"missing"] == b"no neck, `attached` none"
    assert all(field.metadata[b"description"] for field in schema)
