"""SWC text of dendrite trees: µm, x y z, soma first, parents before children (INCF SWC)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from respan_quantification.tree import Tree

SOMA, DENDRITE = 1, 3
"""Structure types: 3 (basal) stands for any dendrite, as nothing here tells basal from apical."""


@dataclass(frozen=True)
class Soma:
    """A soma as one sample: center (z, y, x) and radius of the ball of its volume, in µm."""

    center_um: tuple[float, float, float]
    radius_um: float


def swc_text(trees: Mapping[int, Tree], somas: Mapping[int, Soma]) -> str:
    """All somas and dendrites of an image; an empty image gives the header alone."""
    lines = [
        "# RESPAN: dendrite centerlines; coordinates and radii in um",
        "# id type x y z radius parent",
    ]
    sample_of_soma: dict[int, int] = {}
    for number, soma in somas.items():
        sample_of_soma[number] = len(sample_of_soma) + 1
        lines.append(_line(sample_of_soma[number], SOMA, soma.center_um, soma.radius_um, -1))
    first = len(somas) + 1
    for dendrite, tree in trees.items():
        lines.append(f"# dendrite {dendrite}")
        root_parent = sample_of_soma.get(tree.soma_id, -1)
        for node in range(len(tree.parents)):
            parent = int(tree.parents[node])
            above = root_parent if parent < 0 else first + parent
            z, y, x = (float(edge) for edge in tree.points_um[node])
            radius = float(tree.radius_um[node])
            lines.append(_line(first + node, DENDRITE, (z, y, x), radius, above))
        first += len(tree.parents)
    return "\n".join(lines) + "\n"


def ball_radius_um(volume_um3: float) -> float:
    """Radius of the ball of that volume."""
    return float(np.cbrt(3 * volume_um3 / (4 * np.pi)))


def _line(
    sample: int, kind: int, at_um: tuple[float, float, float], radius_um: float, parent: int
) -> str:
    z, y, x = at_um
    return f"{sample} {kind} {x:.4f} {y:.4f} {z:.4f} {radius_um:.4f} {parent}"
