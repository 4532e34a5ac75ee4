"""SWC files of dendrite trees: µm, x y z, soma first, parents before children (INCF SWC).

There are two kinds of files. One of a whole image holds every tree, for viewers. One of a single
neuron or dendrite has one root, as programs for morphometry ask (NeuroM and MorphIO read it without
a warning). Both are written tree by tree, so that not all have to be in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from respan_quantification.tree import Points, Tree

SOMA, DENDRITE = 1, 3
"""Structure types: 3 (basal) stands for any dendrite, as nothing here tells basal from apical."""

HEADER = (
    "# RESPAN: dendrite centerlines; coordinates and radii in um",
    "# id type x y z radius parent",
)

STAND_IN = "# no soma was seen: sample 1 is the root itself, since readers ask for a soma"

LEAST_RADIUS_UM = 0.0001
"""What four decimals can say; readers complain of a radius of 0."""


@dataclass(frozen=True)
class Soma:
    """A soma as one sample: center (z, y, x) and radius of the ball of its volume, in µm."""

    center_um: tuple[float, float, float]
    radius_um: float


@dataclass(frozen=True)
class Heads:
    """Spine heads of one dendrite as balls: ids, centers of shape (n, 3), radii in µm."""

    ids: NDArray[np.integer]
    center_um: Points
    radius_um: NDArray[np.float64]


class SwcFile:
    """An SWC file that takes one tree after the other.

    Parameters
    ----------
    path
        Overwritten at once.
    somas
        By id: those that the trees to come may belong to.
    needs_soma
        Whether the root of a tree without any of these somas is written as a soma too, with the
        dendrite's radius there, and said so in a comment. Only for a file of one tree.
    """

    def __init__(self, path: Path, somas: Mapping[int, Soma], *, needs_soma: bool = False) -> None:
        self._path = path
        self._samples = len(somas)
        self._sample_of_soma = {number: row + 1 for row, number in enumerate(somas)}
        self._needs_soma = needs_soma
        lines = [
            _line(row + 1, SOMA, soma.center_um, soma.radius_um, -1)
            for row, soma in enumerate(somas.values())
        ]
        path.write_text(_text([*HEADER, *lines]), encoding="utf-8")

    def add(self, dendrite: int, tree: Tree, heads: Heads | None = None) -> None:
        """Append a dendrite, and its spines as comments: `# spine id x y z radius sample`."""
        lines = [f"# dendrite {dendrite}"]
        above = self._sample_of_soma.get(tree.soma_id, -1)
        if above < 0 and self._needs_soma:
            self._samples += 1
            above = self._samples
            root = _line(above, SOMA, tree.points_um[0], float(tree.radius_um[0]), -1)
            lines += [STAND_IN, root]
        lines += _tree_lines(tree, self._samples + 1, above)
        lines += _head_lines(heads, tree, self._samples + 1)
        self._samples += len(tree.parents)
        with self._path.open("a", encoding="utf-8") as target:
            target.write(_text(lines))


def write_single_files(
    folder: Path,
    trees: Iterable[tuple[int, Tree]],
    somas: Mapping[int, Soma],
    heads: Mapping[int, Heads] | None = None,
) -> list[Path]:
    """One file per neuron (`neuron_<soma id>.swc`) and per dendrite without a soma.

    The latter are named `dendrite_<id>.swc`. A soma without dendrites has no file.
    """
    heads = heads or {}
    neurons: dict[int, SwcFile] = {}
    paths = []
    for dendrite, tree in trees:
        file = neurons.get(tree.soma_id)
        if file is None:
            its = {number: somas[number] for number in [tree.soma_id] if number in somas}
            name = f"neuron_{tree.soma_id}.swc" if its else f"dendrite_{dendrite}.swc"
            paths.append(folder / name)
            file = SwcFile(paths[-1], its, needs_soma=True)
            neurons |= dict.fromkeys(its, file)
        file.add(dendrite, tree, heads.get(dendrite))
    return paths


def ball_radius_um(volume_um3: float) -> float:
    """Radius of the ball of that volume."""
    return float(np.cbrt(3 * volume_um3 / (4 * np.pi)))


def _tree_lines(tree: Tree, first: int, root_parent: int) -> Iterator[str]:
    """A tree's samples, numbered from `first`."""
    for node, parent in enumerate(tree.parents.tolist()):
        above = root_parent if parent < 0 else first + parent
        radius_um = float(tree.radius_um[node])
        yield _line(first + node, DENDRITE, tree.points_um[node], radius_um, above)


def _head_lines(heads: Heads | None, tree: Tree, first: int) -> Iterator[str]:
    """Spines as comments, each with the sample that is nearest to its head."""
    if heads is None or not len(heads.ids):
        return
    samples = first + np.asarray(cKDTree(tree.points_um).query(heads.center_um)[1])
    for spine, at_um, radius_um, sample in zip(
        heads.ids, heads.center_um, heads.radius_um, samples, strict=True
    ):
        z, y, x = (float(edge) for edge in at_um)
        yield f"# spine {spine} {x:.4f} {y:.4f} {z:.4f} {radius_um:.4f} {sample}"


def _line(
    sample: int,
    kind: int,
    at_um: tuple[float, float, float] | Points,
    radius_um: float,
    parent: int,
) -> str:
    z, y, x = (float(edge) for edge in at_um)
    radius_um = max(radius_um, LEAST_RADIUS_UM)
    return f"{sample} {kind} {x:.4f} {y:.4f} {z:.4f} {radius_um:.4f} {parent}"


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
