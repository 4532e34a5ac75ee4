"""Many meshes as a few arrays, and back: what blocks keep until ids are final."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_quantification.columns import PARTS
from respan_quantification.meshes import Mesh

Meshes = Mapping[tuple[int, str], Mesh]
"""By the spine's id and the part: spine, head or neck."""


def packed(meshes: Meshes) -> dict[str, NDArray[Any]]:
    """Vertices and triangles one below the other; `starts` says where each mesh begins in both."""
    vertices = [np.zeros((0, 3)), *(mesh.vertices_um for mesh in meshes.values())]
    faces = [np.zeros((0, 3), np.int64), *(mesh.faces for mesh in meshes.values())]
    counts = [[len(mesh.vertices_um), len(mesh.faces)] for mesh in meshes.values()]
    return {
        "ids": np.array([number for number, _ in meshes], np.int64),
        "parts": np.array([PARTS.index(part) for _, part in meshes], np.int64),
        "starts": np.cumsum([[0, 0], *counts], axis=0),
        "vertices_um": np.concatenate(vertices),
        "faces": np.concatenate(faces),
    }


def unpacked(arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[int, str, Mesh]]:
    """Id, part and mesh, one after the other."""
    starts = arrays["starts"]
    for row, (number, part) in enumerate(zip(arrays["ids"], arrays["parts"], strict=True)):
        (vertex, face), (last_vertex, last_face) = starts[row], starts[row + 1]
        mesh = Mesh(arrays["vertices_um"][vertex:last_vertex], arrays["faces"][face:last_face])
        yield int(number), PARTS[int(part)], mesh
