"""Meshes as files: one spine as OBJ or PLY, an image's as a Neuroglancer folder.

A Neuroglancer folder (precomputed, single resolution) holds any number of meshes, and more can be
added at any time, so that blocks need not know one another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from respan_quantification.meshes import Mesh

NM_PER_UM = 1000.0


def as_trimesh(mesh: Mesh) -> Any:
    """The mesh for trimesh: x, y, z in µm."""
    return trimesh.Trimesh(mesh.vertices_um[:, ::-1], mesh.faces, process=False)


def problems(mesh: Mesh) -> list[str]:
    """What is wrong with a surface; empty if it is closed, consistent and looks outwards."""
    found = as_trimesh(mesh)
    checks = {
        "it has holes": not found.is_watertight,
        "its faces turn different ways": not found.is_winding_consistent,
        "it looks inwards": not found.volume > 0,
    }
    return [problem for problem, is_there in checks.items() if is_there]


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write one mesh in the format that the file's suffix names (.obj, .ply, .stl, .glb); µm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    as_trimesh(mesh).export(path)


def write_precomputed(meshes: Iterable[tuple[int, Mesh]], folder: Path) -> None:
    """Add meshes, by their ids, to a folder that Neuroglancer opens as precomputed meshes.

    Each mesh has a manifest, `<id>:0`, and one fragment: the number of vertices, their x, y, z in
    nm, and three vertices per triangle; little-endian, 32 bits each. An id that is there already
    is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "info").write_text(json.dumps({"@type": "neuroglancer_legacy_mesh"}))
    for number, mesh in meshes:
        fragment = f"{number}.fragment"
        (folder / fragment).write_bytes(_fragment(mesh))
        (folder / f"{number}:0").write_text(json.dumps({"fragments": [fragment]}))


def _fragment(mesh: Mesh) -> bytes:
    vertices = np.ascontiguousarray(mesh.vertices_um[:, ::-1] * NM_PER_UM, dtype="<f4")
    count = np.array([len(vertices)], dtype="<u4")
    return count.tobytes() + vertices.tobytes() + mesh.faces.astype("<u4").tobytes()


def read_precomputed(folder: Path, number: int) -> Mesh:
    """Read back one mesh that `write_precomputed` wrote."""
    manifest = json.loads((folder / f"{number}:0").read_text())
    content = (folder / manifest["fragments"][0]).read_bytes()
    count = int(np.frombuffer(content, "<u4", 1)[0])
    vertices = np.frombuffer(content, "<f4", 3 * count, offset=4).reshape(-1, 3)
    faces = np.frombuffer(content, "<u4", offset=4 + vertices.nbytes).reshape(-1, 3)
    return Mesh(vertices[:, ::-1].astype(np.float64) / NM_PER_UM, faces.astype(np.int64))
