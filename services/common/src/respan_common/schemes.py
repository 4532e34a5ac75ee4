"""What the values of a class image mean: label names, their aliases, RESPAN's four model types."""

from __future__ import annotations

import re
from collections.abc import Mapping

from respan_common.errors import ModelError

ROLES = ("spine", "dendrite", "soma", "neck", "spine_core", "spine_shell", "axon")
"""Every structure that the project knows. `spine` is the head when a scheme also has `neck`."""

SCHEMES: dict[int, dict[str, int]] = {
    1: {"spine": 1, "dendrite": 2, "soma": 3},
    2: {"dendrite": 1, "soma": 2},
    3: {"spine": 1, "dendrite": 2, "soma": 3, "neck": 4},
    4: {"dendrite": 1, "spine_core": 2, "spine_shell": 3, "neck": 4, "soma": 5, "axon": 6},
}
"""RESPAN's model types 1-4: role to class value."""

_ALIASES = {
    "background": "background",
    "ignore": "ignore",
    "spine": "spine",
    "spine head": "spine",
    "dendritic spine": "spine",
    "head": "spine",
    "dendrite": "dendrite",
    "dendrite shaft": "dendrite",
    "dendritic shaft": "dendrite",
    "shaft": "dendrite",
    # Names of regions: what is left of them when spines and somata are painted over them.
    "dendrite and spine": "dendrite",
    "dendrite with spine": "dendrite",
    "neuron": "dendrite",
    "whole neuron": "dendrite",
    "soma": "soma",
    "somata": "soma",
    "cell body": "soma",
    "cell bodies": "soma",
    "neck": "neck",
    "spine neck": "neck",
    "spine core": "spine_core",
    "core": "spine_core",
    "spine membrane": "spine_shell",
    "spine shell": "spine_shell",
    "membrane": "spine_shell",
    "shell": "spine_shell",
    "axon": "axon",
}
"""Role of each name in lower case, single spaces, singular."""
_NO_ROLE = {"background", "ignore"}


def roles_of(labels: Mapping[str, int], scheme: int | None = None) -> dict[str, int]:
    """Class value of each role that a model's labels name.

    Parameters
    ----------
    labels
        Names and values as they are written into class images; 0 is the background, however it
        is named.
    scheme
        RESPAN's model type; used instead of the names when given.

    Raises
    ------
    ModelError
        If a name is unknown, two names mean the same, or none means a dendrite.
    """
    if scheme is not None:
        return _scheme(scheme)
    roles: dict[str, int] = {}
    names: dict[str, str] = {}
    for name, value in labels.items():
        role = _role_of(name, value, labels)
        if role in _NO_ROLE:
            continue
        if role in roles or value in roles.values():
            other = names.get(role) or _name_of(value, labels)
            raise ModelError(f"the model's labels '{other}' and '{name}' mean the same; {_HINT}")
        roles[role], names[role] = int(value), name
    if "dendrite" not in roles:
        raise ModelError(f"none of the model's labels ({_listed(labels)}) is a dendrite; {_HINT}")
    if "spine_core" in roles and "spine_shell" not in roles and "spine" in roles:
        # The whole spine and its core: what is left of the spine outside its core is its shell.
        roles["spine_shell"] = roles.pop("spine")
    return roles


_TYPES = "; ".join(f"{number}: {', '.join(roles)}" for number, roles in SCHEMES.items())
_HINT = (
    "rename them in dataset.json to background, spine, dendrite, soma, neck, spine core, "
    "spine membrane or axon, or say which of RESPAN's model types it is "
    "(--set segmentation.label_scheme=1, 2, 3 or 4; values 1, 2, 3, ... mean "
    f"{_TYPES.replace('_', ' ')})"
)


def _scheme(number: int) -> dict[str, int]:
    if not isinstance(number, int) or number not in SCHEMES:  # it may come from a card
        raise ModelError(f"there is no model type {number}; RESPAN's are {_TYPES}")
    return dict(SCHEMES[number])


def _role_of(name: str, value: int, labels: Mapping[str, int]) -> str:
    words = " ".join(re.split(r"[\W_]+", name.lower())).strip()
    role = _ALIASES.get(words) or _ALIASES.get(words.removesuffix("s"))
    if value == 0 and role in (None, "background"):
        return "background"
    if role is None:
        raise ModelError(
            f"the model has a label '{name}' of unknown meaning, among {_listed(labels)}; {_HINT}"
        )
    if (value == 0) != (role == "background"):
        raise ModelError(f"the model's label '{name}' has the value {value}; {_HINT}")
    return role


def _name_of(value: int, labels: Mapping[str, int]) -> str:
    return next(name for name, other in labels.items() if other == value)


def _listed(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{value} {name}" for name, value in labels.items())
