"""Classes of a phantom's voxels, in each of RESPAN's label schemes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from respan_common.schemes import SCHEMES
from respan_training.phantoms.field import Field

CLASSES = {**SCHEMES[3], "axon": 5, "spine_core": 6, "spine_shell": 7}
"""Class values while a phantom is drawn: those of scheme 3, and what it does not know."""

CORE_DEPTH = 0.5
"""Least depth of a core's voxels over that of the head's deepest voxel."""


def to_scheme(
    classes: NDArray[np.uint8], instances: NDArray[np.uint32], scheme: int, field: Field
) -> None:
    """Rewrite classes, as they were drawn, with the values of a label scheme.

    Where a scheme knows no necks they belong to the spine, as they do for scheme 1; what it does
    not know at all is background. Core and shell divide each head by its depth, in µm, so that
    thick slices do not matter.

    Parameters
    ----------
    classes : uint8 (z, y, x)
        By `CLASSES`.
    instances : uint32 (z, y, x)
        Spine numbers.
    """
    values = SCHEMES[scheme]
    if "spine_core" in values:
        _divide_heads(classes, instances, field)
    new = np.zeros(max(CLASSES.values()) + 1, dtype=np.uint8)
    for role, drawn in CLASSES.items():
        new[drawn] = values.get(role, values.get("spine", 0) if role == "neck" else 0)
    for slab in field.slabs():
        classes[slab] = new[classes[slab]]


def _divide_heads(classes: NDArray[np.uint8], instances: NDArray[np.uint32], field: Field) -> None:
    boxes: list[Any] = ndi.find_objects(instances)
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        mine = (instances[box] == number) & (classes[box] == CLASSES["spine"])
        depth_um = ndi.distance_transform_edt(np.pad(mine, 1), sampling=field.spacing.zyx)
        depth_um = depth_um[1:-1, 1:-1, 1:-1]
        is_core = depth_um[mine] >= CORE_DEPTH * depth_um.max()
        classes[box][mine] = np.where(is_core, CLASSES["spine_core"], CLASSES["spine_shell"])
