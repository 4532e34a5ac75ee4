"""Meshes in a store, as the quantification service may keep them."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from respan_common.drafts import drafting
from respan_common.errors import VolumeFormatError
from respan_common.events import SilentReporter
from respan_common.records import StageKey
from respan_orchestrator.mesh_export import export_meshes

REPORT = SilentReporter()
BOX = trimesh.creation.box((1.0, 2.0, 3.0))


def fragment() -> bytes:
    """The box as Neuroglancer keeps it, in nm."""
    vertices = np.asarray(BOX.vertices * 1000, "<f4")
    faces = np.asarray(BOX.faces, "<u4")
    return np.uint32(len(vertices)).tobytes() + vertices.tobytes() + faces.tobytes()


def store_of(folder: Path, files: dict[str, bytes], version: str = "1") -> Path:
    store = folder / "cell.ome.zarr"
    store.mkdir(exist_ok=True)
    with drafting(store, StageKey("quantification", {"raw": version}), REPORT) as draft:
        for name, content in files.items():
            draft.file(f"meshes/{name}").write_bytes(content)
        draft.publish()
    return store


def test_a_neuroglancer_mesh_becomes_a_closed_obj_in_micrometers(tmp_path):
    store = store_of(tmp_path, {"head/7.fragment": fragment(), "head/info": b"{}"})
    written = export_meshes(store, tmp_path / "Spine_Meshes", REPORT)
    assert written == [tmp_path / "Spine_Meshes/cell/head/7.obj"]
    found = trimesh.load_mesh(written[0])
    assert found.is_watertight
    assert found.volume == pytest.approx(6.0, rel=1e-5)
    assert found.extents == pytest.approx([1, 2, 3], rel=1e-5)


def test_files_for_other_programs_are_copied(tmp_path):
    store = store_of(tmp_path, {"spine/1.ply": b"ply", "neck/1.obj": b"v 0 0 0"})
    written = export_meshes(store, tmp_path / "m", REPORT)
    assert {path.name: path.read_bytes() for path in written} == {
        "1.ply": b"ply",
        "1.obj": b"v 0 0 0",
    }


def test_an_older_export_is_replaced_as_a_whole(tmp_path):
    export_meshes(store_of(tmp_path, {"head/7.fragment": fragment()}), tmp_path / "m", REPORT)
    store = store_of(tmp_path, {"head/8.fragment": fragment()}, "2")
    export_meshes(store, tmp_path / "m", REPORT)
    assert [path.name for path in (tmp_path / "m").rglob("*.obj")] == ["8.obj"]
    assert export_meshes(store_of(tmp_path, {}, "3"), tmp_path / "m", REPORT) == []
    assert not list((tmp_path / "m").iterdir())


@pytest.mark.parametrize("content", [b"", b"ab", fragment()[:-1]])
def test_a_damaged_mesh_is_refused_and_leaves_the_older_export(tmp_path, content):
    export_meshes(store_of(tmp_path, {"head/7.fragment": fragment()}), tmp_path / "m", REPORT)
    store = store_of(tmp_path, {"head/7.fragment": content}, "2")
    with pytest.raises(VolumeFormatError, match=r"7\.fragment is not a mesh"):
        export_meshes(store, tmp_path / "m", REPORT)
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["cell"]
