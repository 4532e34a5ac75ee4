import json

import numpy as np
import pytest
import trimesh

from respan_common.geometry import VoxelSpacing
from respan_quantification import meshes
from respan_quantification.mesh_files import (
    problems,
    read_precomputed,
    write_mesh,
    write_precomputed,
)
from respan_quantification.meshes import Mesh

SPACING = VoxelSpacing(0.3, 0.1, 0.1)


@pytest.fixture
def brick():
    mask = np.zeros((5, 9, 12), bool)
    mask[1:4, 2:7, 1:11] = True
    return meshes.of_mask(mask, SPACING).moved(np.array([3.0, 2.0, 1.0]))


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_a_file_holds_the_mesh_in_micrometers_as_x_y_z(brick, suffix, tmp_path):
    path = tmp_path / f"spine{suffix}"
    write_mesh(brick, path)
    read = trimesh.load_mesh(path)
    assert read.is_watertight
    assert read.volume == pytest.approx(3 * 5 * 10 * 0.003, rel=1e-3)
    assert read.centroid == pytest.approx([1.55, 2.4, 3.6], abs=0.01)


def test_a_neuroglancer_folder_holds_nanometers(brick, tmp_path):
    write_precomputed([(7, brick), (12, brick)], tmp_path)
    assert json.loads((tmp_path / "info").read_text()) == {"@type": "neuroglancer_legacy_mesh"}
    fragment = json.loads((tmp_path / "7:0").read_text())["fragments"][0]
    content = (tmp_path / fragment).read_bytes()
    count = int.from_bytes(content[:4], "little")
    assert count == len(brick.vertices_um)
    assert len(content) == 4 + 12 * count + 12 * len(brick.faces)
    first_nm = np.frombuffer(content, "<f4", 3, offset=4)
    assert first_nm == pytest.approx(1000 * brick.vertices_um[0, ::-1], rel=1e-6)


def test_a_neuroglancer_folder_reads_back_and_grows(brick, tmp_path):
    write_precomputed([(7, brick)], tmp_path)
    write_precomputed([(8, brick)], tmp_path)
    for number in (7, 8):
        read = read_precomputed(tmp_path, number)
        assert np.array_equal(read.faces, brick.faces)
        assert read.volume_um3 == pytest.approx(brick.volume_um3, rel=1e-4)


def test_a_good_mesh_has_no_problems(brick):
    assert problems(brick) == []


def test_problems_have_names(brick):
    assert problems(Mesh(brick.vertices_um, brick.faces[:, ::-1])) == ["it looks inwards"]
    assert "it has holes" in problems(Mesh(brick.vertices_um, brick.faces[1:]))
