import math

import pytest

from respan_orchestrator.pooling import pooled, ratio


def image(sub_folder, spines, length, neck=None, necks=None, status="done", **more):
    row = {
        "sub_folder": sub_folder,
        "status": status,
        "total_spines": spines,
        "dendrite_length_um": length,
        "spines_per_um": ratio(spines, length),
        **more,
    }
    if necks is not None:
        row |= {"avg_neck": neck, "n_neck": necks, "missing_neck": spines - necks}
    return row


def group(*rows, labels=()):
    table = pooled(rows, "sub_folder", labels)
    assert len(table) == 1
    return table.iloc[0]


def test_a_groups_density_is_all_spines_over_all_dendrite():
    found = group(image("A", 10, 10.0), image("A", 0, 30.0))
    assert found["spines_per_um"] == 0.25
    assert found["spines_per_um_mean_of_images"] == 0.5
    assert found["spines_per_um_sd_of_images"] == pytest.approx(math.sqrt(0.5))


def test_a_mean_weighs_images_by_the_spines_that_have_the_value():
    found = group(image("A", 4, 1.0, neck=1.0, necks=3), image("A", 9, 1.0, neck=2.0, necks=1))
    assert found["avg_neck"] == 1.25
    assert (found["n_neck"], found["missing_neck"]) == (4, 9)


def test_an_image_without_a_value_takes_no_part_in_the_mean():
    found = group(image("A", 4, 1.0, neck=1.0, necks=3), image("A", 2, 1.0, neck=math.nan, necks=0))
    assert (found["avg_neck"], found["n_neck"], found["missing_neck"]) == (1.0, 3, 3)


def test_a_value_that_no_spine_lacks_is_weighed_by_all_spines():
    found = group(image("A", 1, 1.0, avg_vol=1.0), image("A", 3, 1.0, avg_vol=2.0))
    assert found["avg_vol"] == 1.75


def test_a_group_of_failures_has_no_numbers():
    found = group(image("A", None, None, status="failed"))
    assert (found["images"], found["images_failed"]) == (1, 1)
    assert math.isnan(found["total_spines"])


def test_a_label_stays_if_all_images_share_it():
    rows = [image("A", 1, 1.0, animal="7", day="1"), image("A", 1, 1.0, animal="7", day="2")]
    found = group(*rows, labels=["animal", "day"])
    assert (found["animal"], found["day"]) == ("7", "")


@pytest.mark.parametrize("parts", [(None, 1.0), (1.0, None), (1.0, 0.0), (math.nan, 1.0)])
def test_a_ratio_of_something_missing_is_missing(parts):
    assert ratio(*parts) is None
