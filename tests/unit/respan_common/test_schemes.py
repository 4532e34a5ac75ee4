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
    labels = {"background": 0, " Spine_Core": 2, "DENDRITES": 1, "spine-membrane": 3, "ignore": 9}
    assert roles_of(labels) == {"spine_core": 2, "dendrite": 1, "spine_shell": 3}


def test_an_unknown_name_is_an_error_that_names_it():
    with pytest.raises(ModelError, match="'vessel'"):
        roles_of({"background": 0, "dendrite": 1, "vessel": 2})


def test_labels_without_a_dendrite_are_refused():
    with pytest.raises(ModelError, match="dendrite"):
        roles_of({"background": 0, "spine": 1})


def test_changing_the_answer_does_not_change_the_scheme():
    roles_of({}, 1)["dendrite"] = 99
    assert roles_of({}, 1)["dendrite"] == 2
