"""Which voxel is what: a class image together with the meaning of its values. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

HEAD_ROLES = ("spine", "spine_core", "spine_shell")
"""Roles that make up a spine's head. Without a neck class a head is the whole visible spine."""


@dataclass(frozen=True)
class ClassImage:
    """Class values, shape (z, y, x), and the value of each role (see `respan_common.schemes`)."""

    values: NDArray[np.uint8]
    roles: dict[str, int]

    def mask(self, *roles: str) -> Mask:
        """Voxels of any of these roles; roles that the image lacks add nothing."""
        table = np.zeros(256, dtype=bool)
        table[[self.roles[role] for role in roles if role in self.roles]] = True
        return np.asarray(table[self.values], dtype=np.bool_)

    def has(self, role: str) -> bool:
        """Whether the scheme knows this role, be there voxels of it or not."""
        return role in self.roles
