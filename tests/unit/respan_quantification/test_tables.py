import math

from respan_quantification import columns
from respan_quantification.tables import dendrite_table, numbers_of, spine_table

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
