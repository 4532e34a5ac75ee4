from pathlib import Path

from tests.unit.respan_orchestrator.test_summary import Outcome, one_image, rows_of

from respan_orchestrator import table_columns
from respan_orchestrator.rule_sets import find_rules
from respan_orchestrator.summary import write_experiment_tables, write_sub_folder_summary

REGENERATE = """\
docs/columns.md is not current; replace all from "## In experiment folders" on by what this prints:
python -c "from respan_orchestrator.table_columns import reference; print(reference())"\
"""
PATTERNS = ("avg_", "n_", "missing_", "spines_")


def undocumented(header, columns):
    known = {name for column in columns for name in column.name.split(" or ")}
    return [name for name in header if name not in known and not name.startswith(PATTERNS)]


def test_every_column_of_the_summaries_is_documented(tmp_path):
    one_image(tmp_path / "A")
    rules = find_rules("rodriguez")
    found = rows_of(write_sub_folder_summary(tmp_path / "A", rules))[0]
    assert undocumented(found, table_columns.SUB_FOLDER) == []
    done = [Outcome("A", "a", "done", numbers={"spines": 2.0, "dendrite_length_um": 3.0})]
    tables = write_experiment_tables(tmp_path, done, None, lambda name: rules)
    for path, columns in zip(
        tables, (table_columns.EXPERIMENT, *[table_columns.GROUP] * 3), strict=True
    ):
        assert undocumented(rows_of(path)[0], columns) == []


def test_the_reference_of_csv_files_in_the_docs_is_current():
    page = (Path(__file__).parents[3] / "docs" / "columns.md").read_text(encoding="utf-8")
    assert page.endswith(table_columns.reference()), REGENERATE
