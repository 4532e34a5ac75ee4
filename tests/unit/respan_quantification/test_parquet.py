import json

import pandas as pd
import pyarrow.parquet as pq

from respan_common.drafts import drafting
from respan_common.events import SilentReporter
from respan_common.records import StageKey
from respan_quantification import columns
from respan_quantification.parquet import write_parquet, write_tables
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


def test_a_store_says_whose_labels_a_tables_rows_are(tmp_path):
    store = tmp_path / "a.ome.zarr"
    table = spine_table([{"spine_id": 1, "dendrite_id": 2, "attached": "seen"}], 1)
    with drafting(store, StageKey("quantification", {}), SilentReporter()) as draft:
        write_tables({"spines": table}, 1, draft.table)
        draft.publish()
    group = json.loads((store / "tables/spines/zarr.json").read_text())["attributes"]
    assert group["type"] == "feature_table"
    assert (group["index_key"], group["region"]) == ("spine_id", {"path": "../labels/spines"})
    assert group["columns"]["head_vol"]["unit"] == "µm³"
    assert len(pd.read_parquet(store / "tables/spines/table.parquet")) == 1
