import math

import numpy as np
import pandas as pd

from respan_quantification import columns
from respan_quantification.sholl import Sholl
from respan_quantification.tables import (
    branch_order_table,
    branch_table,
    dendrite_table,
    image_table,
    neuron_table,
    numbers_of,
    sholl_table,
    spine_table,
)

SPINES = [
    {
        "spine_id": 1,
        "dendrite_id": 1,
        "neck_length": 0.5,
        "attached": "seen",
        "touches_border": False,
    },
    {"spine_id": 2, "dendrite_id": 1, "attached": "none", "touches_border": True},
]
DENDRITES = [
    {
        "dendrite_id": number,
        "dendrite_length": 10.0,
        "dendrite_volume": 5.0,
        "branches": 1,
        "soma_id": 0,
        "touches_border": False,
    }
    for number in (1, 2)
]


def test_respans_columns_come_first_in_its_order():
    names = columns.spine_columns(2)
    assert names[:7] == [
        "spine_id",
        "x",
        "y",
        "z",
        "dendrite_id",
        "geodesic_dist_to_soma",
        "euclidean_dist_to_soma",
    ]
    assert names[7:12] == [
        "spine_area",
        "spine_vol",
        "spine_surf_area",
        "spine_length",
        "spine_length_euclidean",
    ]
    assert names[34] == "spine_C1_mean_int"
    assert names[43:46] == ["spine_C2_mean_int", "spine_C2_max_int", "head_C2_mean_int"]
    assert names[49:52] == ["head_C2_int_density", "neck_C2_int_density", "spine_C2_int_density"]
    assert len(names) == len(set(names))


def test_a_mean_ignores_missing_values():
    table = dendrite_table(DENDRITES, spine_table(SPINES, 1), 1)
    assert table["neck_length"].iloc[0] == 0.5
    assert math.isnan(table["neck_length"].iloc[1])


def test_a_dendrite_without_spines_has_a_density_of_zero():
    table = dendrite_table(DENDRITES, spine_table(SPINES, 1), 1)
    assert table["total_spines"].tolist() == [2, 0]
    assert table["spines_per_um"].tolist() == [0.2, 0.0]
    assert table["spines_per_um3"].tolist() == [0.4, 0.0]


def test_totals_count_every_dendrite():
    spines = spine_table(SPINES, 1)
    numbers = numbers_of(dendrite_table(DENDRITES, spines, 1), spines)
    assert numbers == {
        "spines": 2,
        "dendrites": 2,
        "dendrite_length_um": 20,
        "dendrite_volume_um3": 10,
    }


def test_empty_tables_have_the_types_of_full_ones():
    empty, full = spine_table([], 1), spine_table(SPINES, 1)
    assert empty.dtypes.equals(full.dtypes)


def spines_on(*places, **columns):
    """Spines on (dendrite, branch), with any further columns."""
    rows = [
        {"spine_id": n + 1, "dendrite_id": dendrite, "branch_id": branch, "attached": "seen"}
        for n, (dendrite, branch) in enumerate(places)
    ]
    return spine_table(pd.DataFrame(rows).assign(**columns), 1)


BRANCHES = [
    {
        "dendrite_id": dendrite,
        "branch_id": branch,
        "parent_branch_id": parent,
        "branch_order": order,
        "length_um": 4.0,
        "usable_length_um": 2.0,
        "usable_spines": 1,
        "start": "root",
        "end": "tip",
    }
    for dendrite, branch, parent, order in ((1, 1, 0, 1), (1, 2, 1, 2), (1, 3, 1, 2), (2, 1, 0, 1))
]


def test_a_mean_says_how_many_spines_have_the_value_and_how_many_lack_it():
    table = dendrite_table(DENDRITES, spine_table(SPINES, 1), 1)
    assert table["n_neck_length"].tolist() == [1, 0]
    assert table["missing_neck_length"].tolist() == [1, 0]
    assert "n_spine_vol" not in table, "no spine lacks its volume"


def test_respans_dendrite_columns_come_first_and_ours_follow():
    names = columns.names(columns.dendrite(1))
    assert names[:7] == [
        "dendrite_id",
        "dendrite_length",
        "dendrite_volume",
        "total_spines",
        "spines_per_um",
        "spines_per_um3",
        "geodesic_dist_to_soma",
    ]
    assert names.index("neck_C1_int_density") + 1 == names.index("branches")
    assert len(names) == len(set(names))


def test_spines_count_on_the_branch_that_their_foot_is_on():
    spines = spines_on((1, 2), (1, 2), (2, 1), head_vol=[1.0, 3.0, 5.0])
    table = branch_table(BRANCHES, spines, 1)
    assert table["total_spines"].tolist() == [0, 2, 0, 1]
    assert table["spines_per_um"].tolist() == [0, 0.5, 0, 0.25]
    assert table["usable_spines_per_um"].tolist() == [0.5] * 4
    assert table["head_vol"].tolist()[1::2] == [2.0, 5.0]
    assert table["parent_branch_id"].isna().tolist() == [True, False, False, True]


def test_branches_of_one_order_are_added_up():
    branches = branch_table(BRANCHES, spines_on((1, 2), (1, 3), (1, 3)), 1)
    table = branch_order_table(branches)
    assert table[["dendrite_id", "branch_order"]].to_numpy().tolist() == [[1, 1], [1, 2], [2, 1]]
    assert table["branches"].tolist() == [1, 2, 1]
    assert table["spines_per_um"].tolist() == [0, 3 / 8, 0]


def test_a_neuron_has_the_dendrites_that_reach_its_soma():
    rows = [{**row, "soma_id": soma} for row, soma in zip(DENDRITES, (2, 0), strict=True)]
    spines = spines_on((1, 1), (1, 1), (2, 1), head_vol=[1.0, 3.0, 9.0])
    dendrites = dendrite_table(rows, spines, 1)
    assert dendrites["soma_id"].isna().tolist() == [False, True]
    table = neuron_table([{"soma_id": 1}, {"soma_id": 2}], dendrites, spines, 1)
    assert table["dendrites"].tolist() == [0, 1]
    assert table["dendrite_length"].tolist() == [0, 10]
    assert table["total_spines"].tolist() == [0, 2]
    assert math.isnan(table["spines_per_um"][0])
    assert table["head_vol"][1] == 2.0


def test_an_image_has_all_dendrites_and_all_spines():
    spines = spine_table(SPINES, 1)
    table = image_table(dendrite_table(DENDRITES, spines, 1), spines, 0, 1)
    row = table.iloc[0]
    assert (row["total_dendrites"], row["dendrite_length"], row["dendrite_vol"]) == (2, 20, 10)
    assert (row["total_spines"], row["spines_per_um"]) == (2, 0.1)
    assert (row["neck_length"], row["n_neck_length"], row["missing_neck_length"]) == (0.5, 1, 1)
    assert (row["spines_seen"], row["spines_unattached"], row["spines_at_border"]) == (1, 1, 1)


def test_an_empty_image_has_empty_tables_of_the_right_types():
    spines = spine_table([], 2)
    dendrites = dendrite_table([], spines, 2)
    branches = branch_table([], spines, 2)
    assert dendrites.dtypes.equals(dendrite_table(DENDRITES, spine_table(SPINES, 2), 2).dtypes)
    assert branches.dtypes.equals(branch_table(BRANCHES, spine_table(SPINES, 2), 2).dtypes)
    assert len(branch_order_table(branches)) == len(neuron_table([], dendrites, spines, 2)) == 0
    image = image_table(dendrites, spines, 0, 2).iloc[0]
    assert (image["total_spines"], image["dendrite_length"]) == (0, 0)
    assert pd.isna(image["spines_per_um"])


def shells(*spines):
    """Two dendrites' spheres of 10 µm with one crossing and 10 µm each, and these spines."""
    ones = np.ones(len(spines), np.int64)
    return Sholl(10.0, ones, ones * 10.0, np.array(spines))


def test_a_somas_spheres_hold_all_of_its_dendrites():
    table = sholl_table({1: shells(1, 2), 2: shells(3), 3: shells(4)}, {1: 7, 2: 7, 3: 0})
    soma = table[table["dendrite_id"].isna()]
    assert soma["soma_id"].tolist() == [7, 7]
    assert soma["intersections"].tolist() == [2, 1]
    assert soma["spines"].tolist() == [4, 2]
    assert soma["spines_per_um"].tolist() == [0.2, 0.2]
    alone = table[table["soma_id"].isna()]
    assert alone["dendrite_id"].tolist() == [3]
    assert len(table) == 6


def test_without_dendrites_there_are_no_spheres():
    assert sholl_table({}, {}).columns.tolist() == columns.names(columns.SHOLL)
