"""What the values of a class image mean: label names, their aliases, RESPAN's four model types."""

from __future__ import annotations

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
    "spines": "spine",
    "spine head": "spine",
    "head": "spine",
    "dendrite": "dendrite",
    "dendrites": "dendrite",
    "shaft": "dendrite",
    "soma": "soma",
    "cell body": "soma",
    "neck": "neck",
    "necks": "neck",
    "spine neck": "neck",
    "spine core": "spine_core",
    "core": "spine_core",
    "spine membrane": "spine_shell",
    "spine shell": "spine_shell",
    "membrane": "spine_shell",
    "shell": "spine_shell",
    "axon": "axon",
    "axons": "axon",
}


def roles_of(labels: Mapping[str, int], scheme: int | None = None) -> dict[str, int]:
    """Class value of each role that a model's labels name.

    Parameters
    ----------
    labels
        Names and values as nnU-Net's dataset.json has them.
    scheme
        RESPAN's model type; used instead of the names when given.

    Raises
    ------
    ModelError
        If a name is unknown, or no name means a dendrite.
    """
    if scheme is not None:
        return dict(SCHEMES[scheme])
    roles = {_role_of(name, labels): int(value) for name, value in labels.items()}
    roles.pop("background", None)
    roles.pop("ignore", None)
    if "dendrite" not in roles:
        raise ModelError(f"none of the model's labels {sorted(labels)} means a dendrite; {_HINT}")
    return roles


_HINT = (
    "rename them in dataset.json to background, spine, dendrite, soma, neck, spine core, "
    "spine membrane or axon, or say which of RESPAN's model types it is "
    "(--set segmentation.label_scheme=1, 2, 3 or 4)"
)


def _role_of(name: str, labels: Mapping[str, int]) -> str:
    role = _ALIASES.get(name.strip().lower().replace("_", " ").replace("-", " "))
    if role is None:
        raise ModelError(
            f"the model has a label '{name}' of unknown meaning, among {sorted(labels)}; {_HINT}"
        )
    return role
