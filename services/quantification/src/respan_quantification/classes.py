"""Which voxel is what: a class image together with the meaning of its values. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box

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
        found = np.zeros(self.values.shape, dtype=bool)
        for role in roles:
            if role in self.roles:  # comparing is several times faster than looking values up
                found |= self.values == self.roles[role]
        return found

    def part(self, box: Box) -> ClassImage:
        """The same of a box of voxels."""
        return ClassImage(self.values[box], self.roles)

    def has(self, role: str) -> bool:
        """Whether the scheme knows this role, be there voxels of it or not."""
        return role in self.roles
