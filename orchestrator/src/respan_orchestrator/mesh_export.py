"""Spines' surfaces as RESPAN's folders have them: one file per spine, head and neck.

A store keeps them as Neuroglancer reads them (precomputed, single resolution: `ID.fragment` files
with the number of vertices, their x, y, z in nm, and triangles), or as files for other programs.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from respan_common.buckets import Location
from respan_common.errors import VolumeFormatError
from respan_common.events import Reporter
from respan_common.records import read_record, verify

_FOLDER = "meshes/"
_FRAGMENT = ".fragment"
_KEPT = (".obj", ".ply", ".stl", ".glb")
_UM_PER_NM = 1e-3


def export_meshes(store: Location, folder: Path, report: Reporter) -> list[Path]:
    """Write FOLDER/NAME/{head,neck,spine}/ID.obj (µm, x y z, looking outwards).

    An older export of the image is replaced as a whole, or removed if there is none any more.
    """
    name = store.name.removesuffix(".ome.zarr")
    target, temporary = folder / name, folder / f".{name}.{os.getpid()}.tmp"
    record = read_record(store, "quantification")
    found = [] if record is None else [o for o in record.outputs if o.startswith(_FOLDER)]
    written = []
    try:
        for done, output in enumerate(found):
            report.progress(done, len(found))
            if record is not None and output.endswith((_FRAGMENT, *_KEPT)):
                verify(store, output, record)
                place = _write(store / output, temporary / output.removeprefix(_FOLDER))
                written.append(target / place.relative_to(temporary))
        shutil.rmtree(target, ignore_errors=True)
        if written:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def _write(source: Location, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != _FRAGMENT:
        place.write_bytes(source.read_bytes())
        return place
    place = place.with_suffix(".obj")
    place.write_text(_obj(*_fragment(source)), encoding="ascii")
    return place


def _fragment(path: Location) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Vertices (x, y, z) in µm and triangles of vertex numbers from 0."""
    content = path.read_bytes()
    count = int(np.frombuffer(content[:4], "<u4")[0]) if len(content) >= 4 else 0
    faces_at = 4 + 12 * count
    if not count or len(content) <= faces_at or (len(content) - faces_at) % 12:
        raise VolumeFormatError(f"{path} is not a mesh as Neuroglancer keeps it")
    vertices = np.frombuffer(content, "<f4", 3 * count, offset=4).reshape(-1, 3)
    return vertices * np.float32(_UM_PER_NM), np.frombuffer(
        content, "<u4", offset=faces_at
    ).reshape(-1, 3)


def _obj(vertices_um: NDArray[np.float32], faces: NDArray[np.uint32]) -> str:
    """Wavefront OBJ; it counts vertices from 1."""
    points = (f"v {x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in vertices_um.tolist())
    triangles = (f"f {a} {b} {c}\n" for a, b, c in (faces + 1).tolist())
    return "".join(points) + "".join(triangles)
