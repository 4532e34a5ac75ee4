from __future__ import annotations

import pytest

from respan_common.errors import ModelError
from respan_common.schemes import ROLES, SCHEMES, roles_of


@pytest.mark.parametrize("number", sorted(SCHEMES))
def test_every_scheme_knows_a_dendrite_and_only_known_roles(number):
    scheme = roles_of({"nonsense": 1}, number)
    assert "dendrite" in scheme
    assert set(scheme) <= set(ROLES)
    assert sorted(scheme.values()) == list(range(1, len(scheme) + 1))


def test_names_are_read_whatever_their_spelling():
    labels = {
        "background": 0,
        " Spine_Core": 2,
        "DENDRITES": 1,
        "spine-membrane": 3,
        "Spine.Necks": 4,
        "Cell  Bodies": 5,
        "AXONS": 6,
        "ignore": 9,
    }
    assert roles_of(labels) == SCHEMES[4]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("ending", ["", "s"])
def test_every_role_is_understood_by_its_own_name(role, ending):
    labels = {"background": 0, "Dendrite": 1, role.upper() + ending: 2}
    expected = {"dendrite": 2} if role == "dendrite" else {"dendrite": 1, role: 2}
    if role == "dendrite":
        del labels["Dendrite"]
    assert roles_of(labels) == expected


@pytest.mark.parametrize("name", ["background", "Background", "BG", "0", "outside"])
def test_zero_is_the_background_however_it_is_named(name):
    assert roles_of({name: 0, "dendrite": 1}) == {"dendrite": 1}


def test_the_whole_spine_around_a_core_is_its_shell():
    labels = {"background": 0, "dendrite": 1, "spine": 3, "spine core": 2}
    assert roles_of(labels) == {"dendrite": 1, "spine_core": 2, "spine_shell": 3}


def test_the_head_beside_a_neck_is_the_spine():
    labels = {"background": 0, "head": 1, "dendrite": 2, "neck": 3}
    assert roles_of(labels) == {"spine": 1, "dendrite": 2, "neck": 3}


def test_an_unknown_name_is_an_error_that_lists_all_and_the_ways_out():
    with pytest.raises(ModelError, match="'vessel'") as refused:
        roles_of({"background": 0, "dendrite": 1, "vessel": 2})
    text = str(refused.value)
    assert "0 background, 1 dendrite, 2 vessel" in text
    assert "label_scheme=1, 2, 3 or 4" in text
    assert "2: dendrite, soma" in text


@pytest.mark.parametrize("name", ["class1", "1", "", "dendrite?spine", "spine neck head", "gut"])
def test_a_name_that_says_nothing_is_never_guessed(name):
    with pytest.raises(ModelError, match="of unknown meaning"):
        roles_of({"background": 0, "dendrite": 1, name: 2})


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "dendrite": 1, "spine": 2, "spine head": 3},
        {"background": 0, "dendrite": 1, "shaft": 2},
        {"background": 0, "dendrite": 1, "spine": 1},
    ],
)
def test_two_labels_that_mean_the_same_are_refused_by_name(labels):
    first, second = list(labels)[-2:]
    with pytest.raises(ModelError, match=f"'{first}' and '{second}' mean the same"):
        roles_of(labels)


@pytest.mark.parametrize("labels", [{"dendrite": 0, "spine": 1}, {"dendrite": 1, "background": 2}])
def test_background_and_zero_belong_together(labels):
    with pytest.raises(ModelError, match="has the value"):
        roles_of(labels)


def test_labels_without_a_dendrite_are_refused():
    with pytest.raises(ModelError, match="is a dendrite"):
        roles_of({"background": 0, "spine": 1})


@pytest.mark.parametrize("number", [7, "1", [1]])
def test_a_type_that_does_not_exist_is_refused(number):
    with pytest.raises(ModelError, match=r"no model type .*; RESPAN.s are 1: spine, dendrite"):
        roles_of({}, number)


def test_changing_the_answer_does_not_change_the_scheme():
    roles_of({}, 1)["dendrite"] = 99
    assert roles_of({}, 1)["dendrite"] == 2
