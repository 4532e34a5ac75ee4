import math

import pandas as pd
import pytest
from tests.unit.respan_quantification.test_network import FINE, arbor, fork, tree_of

from respan_quantification import columns
from respan_quantification.dendrite_rows import describe
from respan_quantification.tables import branch_table, dendrite_table, spine_table

LARGE = (400, 400, 400)


def spines(*places):
    """Spines of dendrite 1 at (branch, way from the root)."""
    rows = [
        {
            "spine_id": n + 1,
            "dendrite_id": 1,
            "branch_id": branch,
            "position_on_dendrite_um": walked,
            "attached": "seen",
            "touches_border": False,
        }
        for n, (branch, walked) in enumerate(places)
    ]
    return spine_table(rows, 1)


def described(tree, table, shape=LARGE):
    return describe(1, tree, table, shape, FINE, 10.0)


def test_a_dendrites_row_has_its_graph_and_its_spines_spacing():
    table = spines((1, 4.0), (2, 13.0), (3, 12.0))
    found = described(fork().tree, table)
    row = found.dendrite
    assert (row["dendrite_length"], row["branches"], row["tips"], row["forks"]) == (24, 3, 2, 1)
    assert (row["max_branch_order"], row["mean_radius_um"]) == (2, 0.5)
    assert found.spines["nearest_spine_along_um"].tolist() == pytest.approx([8, 5, 5])
    # A window of 5 µm to all sides: 3 + 3 + 2 + 2 µm, cut by a tip, and 5 + 2 + 3 + 3 µm.
    assert found.spines["local_density_per_um"].tolist() == pytest.approx([0, 1 / 10, 1 / 13])


def test_rows_fill_the_tables_columns_and_no_others():
    table = spines((1, 4.0), (2, 13.0))
    found = described(fork().tree, table)
    known = set(columns.names(columns.dendrite(1)))
    assert set(found.dendrite) <= known
    assert set(found.branches[0]) <= set(columns.names(columns.branch(1)))
    row = {**found.dendrite, "dendrite_volume": 3.0, "touches_border": False}
    dendrites = dendrite_table([row], table, 1)
    branches = branch_table(found.branches, table, 1)
    assert dendrites["usable_spines_per_um"].isna().all(), "the dendrite lies in the image's corner"
    assert branches["total_spines"].tolist() == [1, 1, 0]
    assert branches["length_um"].tolist() == [10, 6, 8]


def test_a_dendrite_without_spines_has_a_row_with_lengths_and_without_spread():
    found = described(arbor(1).tree, spines())
    assert found.dendrite["dendrite_length"] > 10
    assert found.dendrite["usable_spines"] == 0
    assert "nearest_neighbor_ratio" not in found.dendrite
    assert len(found.spines) == 0


def test_usable_lengths_of_branches_add_up_to_the_dendrites():
    tree = arbor(4, 600).tree
    moved = tree_of(tree.points_um + 6.0, tree.parents, 0.3)
    found = described(moved, spines((1, 0.1)), (120, 120, 120))
    usable = [row["usable_length_um"] for row in found.branches]
    assert sum(usable) == pytest.approx(found.dendrite["usable_length_um"])
    assert 0 < sum(usable) < found.dendrite["dendrite_length"]


def test_a_dendrite_that_is_a_dot_has_no_density():
    found = described(tree_of([(9, 9, 9)], [-1]), spines((1, 0.0), (1, 0.0)))
    assert found.dendrite["dendrite_length"] == 0
    assert math.isnan(found.dendrite["mean_radius_um"])
    assert found.spines["local_density_per_um"].isna().all()


def test_spines_keep_their_index():
    table = spines((1, 1.0), (1, 2.0)).set_axis(pd.Index([7, 3]))
    assert described(fork().tree, table).spines.index.tolist() == [7, 3]
