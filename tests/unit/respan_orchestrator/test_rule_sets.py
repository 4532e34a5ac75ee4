import pytest

from respan_common.errors import SettingsError
from respan_orchestrator.rule_sets import COLUMNS, find_rules, parse_rules, rule_names
from respan_quantification import columns


def test_the_shipped_rules_can_be_read_and_are_called_like_their_files():
    assert rule_names() == ["protrusions", "rodriguez"]
    assert [find_rules(name).name for name in rule_names()] == rule_names()


def test_none_means_no_rules():
    assert find_rules("none") is None


def test_every_column_that_rules_may_ask_for_is_in_the_spine_table():
    assert set(COLUMNS) <= set(columns.spine_columns(1))


def test_a_file_is_read_like_a_shipped_rule_set(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text('name: own\nrules: [{class: long, when: {spine_length: "> 3"}}]\n')
    assert find_rules(str(path)).classes == ["long", "ambiguous", "unknown"]


def test_other_rules_have_another_digest():
    rules = find_rules("rodriguez")
    assert rules.digest != rules.model_copy(update={"margin": 0.2}).digest
    assert rules.digest == rules.model_copy(update={"description": "other"}).digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: x\nrules: []", "rules"),
        ("rules: [{class: a}]", "name"),
        ("name: x\nrules: [{class: Big One}]", "rules 1 class: 'Big One' is no name for a class"),
        ("name: x\nrules: [{class: unknown}]", "'unknown' is no name"),
        ('name: x\nrules: [{class: a, when: {head_diamter_um: "> 1"}}]', "did you mean 'head_diam"),
        ('name: x\nrules: [{class: a, when: {head_vol: "about 1"}}]', "'about 1' is no condition"),
        ('name: x\nrules: [{class: a, when: {head_vol: "> -1"}}]', "'> -1' is no condition"),
        ('name: x\nrules: [{class: a, when: {head_vol / x: "> 1"}}]', "'x' cannot be asked for"),
        ("name: x\nmargin: 2\nrules: [{class: a}]", "margin"),
        ("name: x\nrules: [{class: a, if: {}}]", "if"),
        ("name: [x", "not valid YAML"),
        ("just text", "just text|dictionary|valid"),
    ],
)
def test_what_is_wrong_with_rules_is_said_with_its_place(text, complaint):
    with pytest.raises(SettingsError, match=complaint) as caught:
        parse_rules(text, "my.yaml")
    assert str(caught.value).startswith("my.yaml")


def test_rules_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(SettingsError, match="did you mean 'rodriguez'"):
        find_rules("rodrigues")
