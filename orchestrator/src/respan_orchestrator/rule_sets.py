"""Rule sets of spine shapes: YAML that says which measurements make which class.

name: rodriguez
margin: 0.05
rules:
  - class: mushroom
    when: {head_to_neck: "> 1.1", head_diameter_um: ">= 0.35"}
  - class: stubby
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from respan_common.errors import SettingsError
from respan_orchestrator.settings_file import Problem, raise_problems, suggestion

AMBIGUOUS, UNKNOWN = "ambiguous", "unknown"
NONE = "none"
"""Name that stands for no rules at all."""
DEFAULT_RULES = "rodriguez"

DERIVED = {
    "head_to_neck": "head_diameter_um / neck_diameter_um; 0 for a spine that sits on the dendrite, "
    "infinite for an inferred neck, which is too thin to be seen",
    "length_to_head": "spine_length / head_diameter_um",
    "nearest_base_um": "distance to the nearest other spine's base on the same dendrite, µm",
}
"""Quantities that are computed from columns of the spine table."""

COLUMNS = (
    "spine_area",
    "spine_vol",
    "spine_length",
    "spine_length_straight_um",
    "spine_length_from_center_um",
    "spine_solidity",
    "spine_extent",
    "spine_sphericity",
    "spine_equivalent_diameter_um",
    "spine_intensity_vol",
    "head_area",
    "head_vol",
    "head_length",
    "head_solidity",
    "head_convex_hull_ratio",
    "head_sphericity",
    "head_asymmetry",
    "head_diameter_um",
    "head_equivalent_diameter_um",
    "head_euclidean_dist_to_dend",
    "neck_length",
    "neck_vol",
    "neck_diameter_um",
    "neck_diameter_min_um",
    "attachment_quality",
)
"""Columns of the spine table that a rule may ask for."""

_CONDITION = re.compile(r"\s*(<=|>=|<|>)\s*([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*")
_MOST_CONDITIONS = 12
_CLASS = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Condition:
    """A quantity beyond a threshold: above it, or at it as well; or the opposite."""

    quantity: str
    threshold: float
    inclusive: bool
    """Whether the threshold itself counts as beyond."""
    holds: bool
    """False: the condition is that the quantity is not beyond."""

    @property
    def question(self) -> tuple[str, float, bool]:
        """What is asked; a condition and its opposite ask the same."""
        return self.quantity, self.threshold, self.inclusive


class Rule(BaseModel):
    """A class, and what a spine must fulfill to be of it; nothing: every spine does."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    shape: str = Field(alias="class")
    when: dict[str, str | list[str]] = {}

    @field_validator("shape")
    @classmethod
    def _is_a_word(cls, name: str) -> str:
        if not _CLASS.fullmatch(name) or name in (AMBIGUOUS, UNKNOWN):
            raise ValueError(
                f"'{name}' is no name for a class: use small letters, digits and _, and neither "
                f"{AMBIGUOUS} nor {UNKNOWN}, which say that no class could be given"
            )
        return name

    @property
    def conditions(self) -> list[Condition]:
        """All conditions; ValueError if one cannot be understood."""
        found = []
        for quantity, texts in self.when.items():
            for text in [texts] if isinstance(texts, str) else texts:
                found.append(_condition(quantity, text))
        return found

    @field_validator("when")
    @classmethod
    def _can_be_understood(cls, when: dict[str, Any]) -> dict[str, Any]:
        for quantity, texts in when.items():
            for text in [texts] if isinstance(texts, str) else texts:
                _condition(quantity, text)
        return when


class RuleSet(BaseModel):
    """Rules in order: the first whose conditions all hold gives a spine's class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """A spine that a smaller relative change of a quantity would put into another class is
    ambiguous."""
    rules: Annotated[list[Rule], Field(min_length=1)]

    @field_validator("rules")
    @classmethod
    def _few_questions(cls, rules: list[Rule]) -> list[Rule]:
        if len({one.question for rule in rules for one in rule.conditions}) > _MOST_CONDITIONS:
            raise ValueError(f"there are more than {_MOST_CONDITIONS} different conditions")
        return rules

    @property
    def classes(self) -> list[str]:
        """Names of the classes, each once, then those for spines without one."""
        return [*dict.fromkeys(rule.shape for rule in self.rules), AMBIGUOUS, UNKNOWN]

    @property
    def questions(self) -> list[tuple[str, float, bool]]:
        """What is asked of a spine, each once."""
        return list(dict.fromkeys(one.question for rule in self.rules for one in rule.conditions))

    @property
    def digest(self) -> str:
        """What identifies the rules, wherever they lie."""
        content = self.model_dump_json(exclude={"description"})
        return hashlib.sha256(content.encode()).hexdigest()


def rule_names() -> list[str]:
    """Rule sets that come with the software."""
    folder = resources.files("respan_orchestrator") / "shape_rules"
    return sorted(part.name.removesuffix(".yaml") for part in folder.iterdir())


def find_rules(name: str) -> RuleSet | None:
    """Rule set of a name or a file; None for "none".

    Raises
    ------
    SettingsError
        If there is none of that name, or the file is not right; all problems are listed.
    """
    if name == NONE:
        return None
    if name in rule_names():
        text = (resources.files("respan_orchestrator") / "shape_rules" / f"{name}.yaml").read_text()
        return parse_rules(text, f"rule set {name}")
    path = Path(name).expanduser()
    if not path.is_file():
        known = [*rule_names(), NONE]
        raise SettingsError(
            f"there are no shape rules '{name}', neither of that name nor as a file; "
            f"{suggestion(name, known)}"
        )
    try:
        return parse_rules(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


def parse_rules(text: str, source: str) -> RuleSet:
    """Rule set from YAML; SettingsError lists what is wrong with it."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: not valid YAML: {error}") from error
    try:
        return RuleSet.model_validate(content)
    except ValidationError as error:
        problems = [Problem(0, _told(detail)) for detail in error.errors()]
        raise_problems(problems, source)
        raise  # raise_problems always has something to raise here


def _told(detail: Any) -> str:
    """One of pydantic's complaints with the place in the file: rules 2: when: ..."""
    place = [part + 1 if isinstance(part, int) else part for part in detail["loc"]]
    text = str(detail["msg"]).removeprefix("Value error, ")
    return f"{' '.join(str(part) for part in place)}: {text}" if place else text


def _condition(quantity: str, text: str) -> Condition:
    for part in quantity.split(" / "):
        if part not in DERIVED and part not in COLUMNS:
            raise ValueError(
                f"'{part}' cannot be asked for; {suggestion(part, [*DERIVED, *COLUMNS])}"
            )
    match = _CONDITION.fullmatch(text)
    threshold = float(match.group(2)) if match else 0.0
    if match is None or threshold <= 0:
        raise ValueError(
            f"'{text}' is no condition for {quantity}; write a comparison with a positive number, "
            'such as "> 1.1", "<= 0.35"'
        )
    sign = match.group(1)
    # "< 2" is the opposite of ">= 2", "<= 2" that of "> 2".
    return Condition(quantity, threshold, inclusive=sign in (">=", "<"), holds=sign in (">", ">="))
