"""Centerlines as SWC text."""

from __future__ import annotations

from respan_training.phantoms.phantom import Phantom

DENDRITE = 3
"""SWC's type number of a basal dendrite, commonly used for any dendrite."""


def swc_text(phantom: Phantom) -> str:
    """All dendrites of a phantom in one SWC text, in µm, numbered from 1."""
    lines = [
        "# ORIGINAL_SOURCE RESPAN phantom",
        "# SCALE 1.0 1.0 1.0",
        "# COORDINATES in micrometer, (0, 0, 0) is the center of the first voxel",
        "# n type x y z radius parent",
    ]
    first = 1
    for centerline in phantom.centerlines:
        for row, (z, y, x, radius, parent) in enumerate(centerline):
            parent_id = int(parent) + first if parent >= 0 else -1
            lines.append(
                f"{first + row} {DENDRITE} {x:.4f} {y:.4f} {z:.4f} {radius:.4f} {parent_id}"
            )
        first += len(centerline)
    return "\n".join(lines) + "\n"
