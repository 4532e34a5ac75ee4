"""The recipe: from classes and grey values to labels, tables and trees. Arrays only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_common.params import QuantificationParams
from respan_quantification import dendrites as shafts
from respan_quantification import measurements, spines, tables
from respan_quantification.classes import HEAD_ROLES, ClassImage
from respan_quantification.frame import Frame
from respan_quantification.intensity import ReadChannel
from respan_quantification.objects import Labels, boxes, components, touches_faces, volumes_um3
from respan_quantification.spines import Spines
from respan_quantification.surface import Surface
from respan_quantification.swc import swc_text
from respan_quantification.tree import Tree

Tick = Callable[[str], None]
"""Called with the present step's name, at least once per object; may raise to stop."""


@dataclass(frozen=True)
class Quantified:
    """Everything that is known about an image. Voxels of label images are ids, 0 is background."""

    spines: Spines
    is_head: NDArray[np.bool_]
    dendrites: Labels
    skeleton: tuple[NDArray[np.int64], NDArray[np.uint32]]
    """Voxels of the centerlines, shape (n, 3), and the dendrite of each."""
    spine_table: pd.DataFrame
    dendrite_table: pd.DataFrame
    swc: str
    numbers: dict[str, float]
    warnings: list[str]


def quantify(
    classes: ClassImage,
    read_channel: ReadChannel,
    channels: int,
    spacing: VoxelSpacing,
    params: QuantificationParams,
    tick: Tick = lambda step: None,
) -> Quantified:
    """Find and measure all dendrites and spines of an image."""
    tick("dendrites")
    shaft_mask = classes.mask("dendrite")
    dendrites = shafts.find_dendrites(shaft_mask, spacing, params.min_dendrite_volume_um3)
    somas = components(classes.mask("soma"))
    frame = Frame.of_whole(dendrites.shape, spacing)
    surface, soma = Surface.of_labels(dendrites, frame), Surface.of_labels(somas, frame)
    tick("centerlines")
    roots = shafts.roots_at_soma(surface, soma)
    trees = shafts.grow_trees(dendrites, spacing, roots, lambda: tick("centerlines"))
    tick("spines")
    neuron = read_channel(params.channel)
    search = spines.find_spines(classes, dendrites, neuron, frame, params, lambda: tick("necks"))
    found, dropped = search.spines, search.discarded
    is_head = np.zeros(dendrites.shape, dtype=bool)
    is_head[tuple(found.voxels.index_zyx[found.in_head].T)] = True
    del neuron
    tick("measurements")
    rows = measurements.spine_rows(
        found, trees, soma, spacing, read_channel, channels, lambda: tick("measurements")
    )
    spine_table = tables.spine_table(rows, channels)
    dendrite_rows = _dendrite_rows(dendrites, trees, spacing)
    dendrite_table = tables.dendrite_table(dendrite_rows, spine_table, channels)
    return Quantified(
        spines=found,
        is_head=is_head,
        dendrites=dendrites,
        skeleton=shafts.drawn(trees, spacing, dendrites.shape),
        spine_table=spine_table,
        dendrite_table=dendrite_table,
        swc=swc_text(trees, shafts.soma_samples(somas, spacing)),
        numbers=tables.numbers_of(dendrite_table, spine_table) | dropped,
        warnings=_warnings(classes, dendrite_table, spine_table, params),
    )


def _dendrite_rows(
    dendrites: Labels, trees: dict[int, Tree], spacing: VoxelSpacing
) -> list[measurements.Row]:
    volumes, found = volumes_um3(dendrites, spacing), boxes(dendrites)
    axes = (0, 1, 2) if dendrites.shape[0] > 1 else (1, 2)
    return [
        {
            "dendrite_id": number,
            "dendrite_length": tree.length_um,
            "dendrite_volume": volumes[number],
            "branches": tree.branches,
            "soma_id": tree.soma_id,
            "touches_border": touches_faces(found[number], dendrites.shape, axes),
        }
        for number, tree in trees.items()
    ]


def _warnings(
    classes: ClassImage,
    dendrite_table: pd.DataFrame,
    spine_table: pd.DataFrame,
    params: QuantificationParams,
) -> list[str]:
    """What a reader of the tables must know."""
    warnings = []
    if not len(dendrite_table):
        warnings.append(
            f"no dendrite of at least {params.min_dendrite_volume_um3:g} µm³ was found; spines "
            "are measured only near dendrites, so none is reported"
        )
    elif not any(classes.has(role) for role in HEAD_ROLES):
        warnings.append("the model does not segment spines: only dendrites were measured")
    elif not len(spine_table):
        warnings.append("no spine passed the filters")
    lost = int((spine_table["attached"] == "none").sum())
    if lost:
        warnings.append(
            f"{lost} of {len(spine_table)} spines have no visible or inferred way to a dendrite: "
            "their lengths are missing"
        )
    return warnings
