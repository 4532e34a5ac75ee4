import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from respan_common.drafts import drafting, drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing, whole
from respan_common.records import StageKey, read_record
from respan_orchestrator.conditions import Conditions
from respan_orchestrator.experiment import images_of
from respan_orchestrator.rule_sets import find_rules
from respan_orchestrator.summary import (
    image_summary,
    write_experiment_summary,
    write_experiment_tables,
    write_sub_folder_summary,
)
from respan_orchestrator.table_export import DENDRITES, SPINES
from respan_quantification import columns, tables
from respan_quantification.parquet import write_parquet

REPORT = SilentReporter()
SHAPE = (2, 8, 9)


def quantified(folder: Path, name: str, spines: dict, lengths: list[float]) -> None:
    store = folder / "Zarr" / f"{name}.ome.zarr"
    store.parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.tif").touch()
    with drafting_store(store, StageKey("ingest", {"file": name}), REPORT) as draft:
        image = draft.image("", (1, *SHAPE), VoxelSpacing(1.0, 0.2, 0.2), "uint8", ["C1"])
        image.write(whole(SHAPE), np.zeros(SHAPE))
        raw = draft.publish()
    dendrites = {"dendrite_length": lengths, "dendrite_volume": [2 * part for part in lengths]}
    with drafting(store, StageKey("quantification", {"raw": raw.digest}), REPORT) as draft:
        pd.DataFrame(spines).to_parquet(draft.file(SPINES))
        pd.DataFrame(dendrites, dtype="float64").to_parquet(draft.file(DENDRITES))
        draft.publish()


def spines(*necks: float) -> dict:
    return {
        "spine_id": np.arange(1, len(necks) + 1),
        "dendrite_id": np.ones(len(necks), int),
        "x": np.zeros(len(necks)),
        "neck_length": np.array(necks, float),
        "attached": ["path"] * len(necks),
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_has_respans_columns_and_all_dendrites(tmp_path):
    quantified(tmp_path, "a", spines(0.2, 0.4), [6.0, 2.0])
    path = write_sub_folder_summary(tmp_path)
    assert path == tmp_path / "Tables" / "Detected_spines_summary.csv"
    assert rows_of(path) == [
        {
            "Filename": "a",
            "res_XY": "0.2",
            "res_Z": "1.0",
            "dendrite_length": "8.0",
            "dendrite_vol": "16.0",
            "total_spines": "2",
            "spines_per_um": "0.25",
            "spines_per_um3": "0.125",
            "avg_neck_length": pytest.approx("0.30000000000000004"),
            "total_dendrites": "2",
            "n_neck_length": "2",
            "missing_neck_length": "0",
        }
    ]


def test_a_mean_leaves_out_what_is_missing(tmp_path):
    quantified(tmp_path, "a", spines(0.4, np.nan), [1.0])
    quantified(tmp_path, "b", spines(np.nan), [1.0])
    found = rows_of(write_sub_folder_summary(tmp_path))
    assert [row["avg_neck_length"] for row in found] == ["0.4", ""]


def test_an_image_without_spines_counts_none_and_one_without_dendrites_has_no_density(tmp_path):
    quantified(tmp_path, "a", spines(), [4.0])
    quantified(tmp_path, "b", spines(), [])
    found = rows_of(write_sub_folder_summary(tmp_path))
    assert [row["total_spines"] for row in found] == ["0", "0"]
    assert [row["spines_per_um"] for row in found] == ["0.0", ""]
    assert found[1]["dendrite_length"] == "0.0"


def test_images_come_in_natural_order_and_none_is_lost_by_a_later_run(tmp_path):
    quantified(tmp_path, "d10", spines(0.1), [1.0])
    write_sub_folder_summary(tmp_path)
    quantified(tmp_path, "d2", spines(0.1), [1.0])
    (tmp_path / "failed.tif").touch()
    found = rows_of(write_sub_folder_summary(tmp_path))
    assert [row["Filename"] for row in found] == ["d2", "d10"]


def test_no_image_gives_a_header_alone(tmp_path):
    path = write_sub_folder_summary(tmp_path)
    assert path.read_text().startswith("Filename,res_XY,res_Z,dendrite_length,")
    assert rows_of(path) == []


@dataclass
class Outcome:
    sub_folder: str
    name: str
    status: str
    error: str = ""
    numbers: dict = field(default_factory=dict)


def test_the_experiments_table_has_failed_images_with_their_reason(tmp_path):
    numbers = {"spines": 4.0, "dendrites": 1.0, "dendrite_length_um": 8.0}
    done = Outcome("A", "1", "done", numbers=numbers)
    failed = Outcome("Ä µ", "2", "failed", error='2.tif is "empty",\nreally')
    found = rows_of(write_experiment_summary(tmp_path, [done, failed]))
    assert (found[0]["total_spines"], found[0]["spines_per_um"]) == ("4", "0.5")
    assert found[1]["error"] == '2.tif is "empty",\nreally'
    assert found[1]["total_spines"] == ""


def test_an_experiment_without_images_gives_a_header_alone(tmp_path):
    path = write_experiment_summary(tmp_path, [])
    assert path.read_text().startswith("sub_folder,image,status,error,total_spines")


def test_results_of_an_image_that_has_changed_since_are_left_out(tmp_path):
    quantified(tmp_path, "a", spines(0.1), [1.0])
    store = tmp_path / "Zarr" / "a.ome.zarr"
    with drafting(store, StageKey("quantification", {"raw": "another file"}), REPORT) as draft:
        pd.DataFrame(spines(0.1)).to_parquet(draft.file(SPINES))
        draft.publish()
    assert rows_of(write_sub_folder_summary(tmp_path)) == []


def test_images_that_a_run_left_out_keep_their_row(tmp_path):
    for name in ("A/1.tif", "A/10.tif", "A/2.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    first = [Outcome("A", name, "done", numbers={"spines": 3.0}) for name in ("1", "10", "gone")]
    write_experiment_summary(tmp_path, first)
    found = rows_of(write_experiment_summary(tmp_path, [Outcome("A", "2", "failed", error="bad")]))
    assert [(row["image"], row["total_spines"]) for row in found] == [
        ("1", "3"),
        ("2", ""),
        ("10", "3"),
    ]


def measured_by_the_service(folder: Path, name: str, rows: list[dict]) -> None:
    """An image whose tables are those of the quantification service."""
    store = folder / "Zarr" / f"{name}.ome.zarr"
    quantified(folder, name, spines(), [])
    table = tables.spine_table(rows, 1)
    dendrite = {
        "dendrite_id": 1,
        "dendrite_length": 10.0,
        "dendrite_volume": 5.0,
        "usable_length_um": 4.0,
        "usable_spines": 1,
    }
    dendrites = tables.dendrite_table([dendrite], table, 1)
    raw = read_record(store, "ingest")
    with drafting(store, StageKey("quantification", {"raw": raw.digest}), REPORT) as draft:
        for file, content, known in (
            ("spines", table, columns.spine(1)),
            ("dendrites", dendrites, columns.dendrite(1)),
        ):
            write_parquet(content, known, draft.table(file, {}))
        draft.publish()


def seen(number: int, **measured: float) -> dict:
    return {"spine_id": number, "dendrite_id": 1, "attached": "seen", "z_um": 3.0, **measured}


def one_image(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        seen(1, neck_length=0.5, head_diameter_um=0.6, neck_diameter_um=0.2, spine_vol=1.0),
        seen(2, head_diameter_um=0.5, spine_length=0.6, spine_vol=3.0),
    ]
    measured_by_the_service(folder, "a", rows)
    return folder


def test_only_what_the_store_calls_averaged_is_averaged(tmp_path):
    row = image_summary(images_of(one_image(tmp_path))[0])
    assert row["avg_spine_vol"] == 2.0
    assert (row["avg_neck_length"], row["n_neck_length"], row["missing_neck_length"]) == (0.5, 1, 1)
    assert "n_spine_vol" not in row, "no spine lacks its volume"
    assert not {"avg_z_um", "avg_branch_id", "avg_angle_around_shaft_deg"} & set(row)


def test_an_image_has_its_usable_density_and_kinds_of_spines(tmp_path):
    row = image_summary(images_of(one_image(tmp_path))[0], find_rules("rodriguez"))
    assert (row["usable_length_um"], row["usable_spines"]) == (4, 1)
    assert row["usable_spines_per_um"] == 0.25
    assert (row["spines_seen"], row["spines_unattached"]) == (2, 0)
    assert (row["spines_mushroom"], row["spines_stubby"], row["spines_thin"]) == (1, 1, 0)
    assert row["shape_rules"] == "rodriguez"


def test_labels_of_conditions_reach_all_tables_of_the_experiment(tmp_path):
    for name in "ABC":
        one_image(tmp_path / name)
    done = [
        Outcome(
            name,
            "a",
            "done",
            numbers={
                "spines": 2.0 * length,
                "dendrites": 1.0,
                "dendrite_length_um": 10.0 * length,
                "dendrite_volume_um3": 5.0,
            },
        )
        for name, length in (("A", 1), ("B", 1), ("C", 3))
    ]
    labels = {
        name: {"condition": condition, "animal": name.lower()}
        for name, condition in (("A", "control"), ("B", "drug"), ("C", "drug"))
    }
    conditions = Conditions(("condition", "animal"), labels)
    rules = find_rules("rodriguez")
    images, folders, groups, total = map(
        rows_of, write_experiment_tables(tmp_path, done, conditions, lambda name: rules)
    )
    assert [(row["condition"], row["animal"]) for row in images] == [
        ("control", "a"),
        ("drug", "b"),
        ("drug", "c"),
    ]
    assert images[0]["avg_neck_length"] == "0.5"
    assert [row["sub_folder"] for row in folders] == ["A", "B", "C"]
    assert [row["animal"] for row in folders] == ["a", "b", "c"]
    assert [row["condition"] for row in groups] == ["control", "drug"]
    drug = groups[1]
    assert (drug["images"], drug["total_spines"], drug["spines_per_um"]) == ("2", "8", "0.2")
    assert drug["animal"] == "", "its images differ in it"
    assert (drug["avg_neck_length"], drug["n_neck_length"]) == ("0.5", "2")
    assert drug["spines_mushroom"] == "2"
    assert (total[0]["images"], total[0]["total_spines"]) == ("3", "10")


def test_a_failed_image_counts_in_its_group_and_adds_nothing(tmp_path):
    done = Outcome("A", "1", "done", numbers={"spines": 4.0, "dendrite_length_um": 8.0})
    failed = Outcome("A", "2", "failed", error="bad")
    folders = rows_of(write_experiment_tables(tmp_path, [done, failed])[1])
    assert (folders[0]["images"], folders[0]["images_failed"]) == ("2", "1")
    assert (folders[0]["total_spines"], folders[0]["spines_per_um"]) == ("4", "0.5")


def test_no_images_give_tables_with_a_header_alone(tmp_path):
    for path in write_experiment_tables(tmp_path, []):
        assert rows_of(path) == []
        assert "total_spines" in path.read_text()
