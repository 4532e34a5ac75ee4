"""Truth tables and centerlines of a scene."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_training.phantoms.annotation import Sight, SpineLabels
from respan_training.phantoms.field import Field
from respan_training.phantoms.scene import Dendrite, Scene
from respan_training.phantoms.spines import Spine

SPINE_COLUMNS = [
    *("spine_id", "dendrite_id", "spine_class"),
    *("x_um", "y_um", "z_um"),
    *("base_x_um", "base_y_um", "base_z_um"),
    *("tip_x_um", "tip_y_um", "tip_z_um"),
    *("length_um", "neck_length_um", "neck_diameter_um"),
    *("head_diameter_um", "head_volume_um3", "volume_um3"),
    *("position_on_dendrite_um", "elevation_deg", "brightness"),
    *("contrast", "signal_to_noise", "voxels", "resolvable"),
    *("stem_id", "seen_as"),
]
"""`x_um`, `y_um`, `z_um` are the head's center. `stem_id` is the spine on whose neck this one's
neck begins, and 0 for one that begins on a shaft. `seen_as` is the number of the labels in which it
is: its own where it is `resolvable`, that of a spine it cannot be told from, or 0."""


def spine_table(scene: Scene, sights: list[Sight], labels: SpineLabels) -> pd.DataFrame:
    """One row per spine, in the order of their numbers from 1."""
    numbers = {id(spine): number for number, spine in enumerate(scene.spines, start=1)}
    rows = [
        {
            "spine_id": number,
            "stem_id": numbers.get(id(spine.stem), 0),
            **_spine_row(spine),
            "contrast": seen.contrast,
            "signal_to_noise": seen.signal_to_noise,
            "voxels": int(count),
            "resolvable": bool(count),
            "seen_as": int(seen_as),
        }
        for number, (spine, seen, count, seen_as) in enumerate(
            zip(scene.spines, sights, labels.voxels, labels.seen_as, strict=True), start=1
        )
    ]
    types = dict.fromkeys(SPINE_COLUMNS, "float64") | {
        "spine_id": "int64",
        "dendrite_id": "int64",
        "spine_class": "object",
        "voxels": "int64",
        "stem_id": "int64",
        "seen_as": "int64",
        "resolvable": "bool",
    }
    return pd.DataFrame(rows, columns=SPINE_COLUMNS).astype(types)


def _spine_row(spine: Spine) -> dict[str, object]:
    towards = spine.tip_um - spine.base_um
    return {
        "dendrite_id": spine.dendrite_id,
        "spine_class": spine.spine_class,
        **_xyz("", spine.head.center_um),
        **_xyz("base_", spine.base_um),
        **_xyz("tip_", spine.tip_um),
        "length_um": spine.length_um,
        "neck_length_um": spine.neck_length_um,
        "neck_diameter_um": spine.neck_diameter_um,
        "head_diameter_um": (6 * spine.head_volume_um3 / np.pi) ** (1 / 3),
        "head_volume_um3": spine.head_volume_um3,
        "volume_um3": spine.volume_um3,
        "position_on_dendrite_um": spine.position_um,
        "elevation_deg": float(np.rad2deg(np.arcsin(towards[0] / np.linalg.norm(towards)))),
        "brightness": spine.brightness,
    }


def _xyz(prefix: str, point_um: NDArray[np.float64]) -> dict[str, float]:
    return {f"{prefix}{axis}_um": float(v) for axis, v in zip("zyx", point_um, strict=True)}


def dendrite_table(scene: Scene, field: Field) -> pd.DataFrame:
    """One row per arbor; lengths follow the centerline from node to node."""
    rows = []
    for dendrite in scene.dendrites:
        inside_um = sum(
            float(field.length_inside_um(p.nodes_um[:-1], p.nodes_um[1:]).sum())
            for p in dendrite.paths
        )
        rows.append(
            {
                "dendrite_id": dendrite.dendrite_id,
                "length_um": inside_um,
                "path_length_um": sum(path.length_um for path in dendrite.paths),
                "branches": len(dendrite.paths),
                "mean_radius_um": float(
                    np.mean(np.concatenate([p.radius_um for p in dendrite.paths]))
                ),
                "brightness": dendrite.brightness,
            }
        )
    return pd.DataFrame(rows)


def centerlines_of(scene: Scene, field: Field) -> tuple[NDArray[np.float64], ...]:
    """Per dendrite its nodes inside the field: z, y, x, radius, parent's row or -1."""
    return tuple(_centerline(dendrite, field) for dendrite in scene.dendrites)


def _centerline(dendrite: Dendrite, field: Field) -> NDArray[np.float64]:
    nodes, parents = [], []
    first = 0
    for number, path in enumerate(dendrite.paths):
        count = len(path.nodes_um)
        parent = np.arange(first - 1, first + count - 1)
        parent[0] = dendrite.forks[number - 1] if number else -1
        nodes.append(np.column_stack([path.nodes_um, path.radius_um]))
        parents.append(parent)
        first += count
    rows, parent_rows = np.concatenate(nodes), np.concatenate(parents)
    inside = field.contains(rows[:, :3])
    # Rows of nodes outside are dropped; -1, looked up last, stays -1.
    renumbered = np.append(np.where(inside, np.cumsum(inside) - 1, -1), -1)
    kept: NDArray[np.float64] = np.column_stack([rows, renumbered[parent_rows]])[inside]
    return kept
