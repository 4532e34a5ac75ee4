from pathlib import Path

from respan_quantification import columns

REGENERATE = """\
docs/columns.md is not current; replace the part of it that begins with "## Spines" and ends before
"## In experiment folders" by what this prints:
python -c "from respan_quantification.columns import reference; print(reference())"\
"""

RESPAN_ORDER = """
spine_id x y z dendrite_id geodesic_dist_to_soma euclidean_dist_to_soma spine_area spine_vol
spine_surf_area spine_length spine_length_euclidean spine_bbox_vol spine_extent spine_solidity
spine_convex_vol head_area head_vol head_surf_area head_length head_euclidean_dist_to_dend
head_bbox_vol head_extent head_solidity head_convex_vol head_convex_hull_ratio neck_area neck_vol
neck_surf_area neck_length neck_bbox_vol neck_extent neck_solidity neck_convex_vol
spine_C1_mean_int spine_C1_max_int spine_C1_int_density head_C1_mean_int head_C1_max_int
head_C1_int_density neck_C1_mean_int neck_C1_max_int neck_C1_int_density spine_C2_mean_int
spine_C2_max_int head_C2_mean_int head_C2_max_int neck_C2_mean_int neck_C2_max_int
head_C2_int_density neck_C2_int_density spine_C2_int_density
"""


def tables(channels):
    return {name: kind.columns for name, kind in columns.kinds(channels).items()}


def test_every_column_of_respan_is_there_in_its_order():
    respans = RESPAN_ORDER.split()
    assert columns.spine_columns(2)[: len(respans)] == respans


def test_no_table_has_a_column_twice():
    for channels in (1, 4):
        for table in tables(channels).values():
            names = columns.names(table)
            assert len(names) == len(set(names))


def test_every_column_has_a_definition_that_is_a_sentence():
    for table in tables(2).values():
        assert all(column.meaning.endswith(".") for column in table)


UNITS = {"_per_um3": "1/µm³", "_per_um": "1/µm", "_um3": "µm³", "_um": "µm", "_deg": "°"}


def test_units_are_those_that_names_end_with():
    for table in tables(2).values():
        for column in table:
            ending = next((end for end in UNITS if column.name.endswith(end)), "")
            is_number = not column.name.startswith(("n_", "missing_"))
            assert not (ending and is_number) or column.unit == UNITS[ending]


def test_only_numbers_are_averaged():
    assert all(column.dtype == "float64" for column in columns.averaged(3))


def test_the_column_reference_in_the_docs_is_current():
    page = (Path(__file__).parents[3] / "docs" / "columns.md").read_text(encoding="utf-8")
    assert columns.reference() in page, REGENERATE
