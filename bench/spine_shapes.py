"""Real spines' surfaces, voxelized and measured, against what others measured on the surfaces.

    python -m bench.spine_shapes [--spacing 0.02,0.02,0.02] [--data ../shared/data]

dXplorer (3D-SIM): surfaces that are open where they were cut off their dendrites; a lid closes
them, and the spine stands on it. Volume, length of a skeleton (which ends inside the surface),
smallest and largest diameter of head and neck (compared as circles of the same area). MICrONS
(electron microscopy): closed surfaces with a piece of shaft, which is what lies below y = 0; the
length is how far the spine reaches from there, straight. Where voxels are so coarse that a spine
falls into pieces, only its volume counts.
"""

from __future__ import annotations

import argparse
import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cc3d
import h5py
import numpy as np
import pandas as pd
import trimesh
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing
from respan_quantification import heads, lengths
from respan_quantification.profile import middle_line

Floats = NDArray[np.float64]

MEASURES = ("volume", "length", "head_diameter", "neck_diameter")


@dataclass(frozen=True)
class Surface:
    """A closed spine, µm (z, y, x), and the lid it stands on; without one it stands at y = 0."""

    name: str
    vertices_um: Floats
    faces: NDArray[np.int64]
    lid: NDArray[np.int64]
    truth: dict[str, float]

    @property
    def volume_um3(self) -> float:
        """Volume inside surface and lid."""
        a, b, c = (self.vertices_um[self.faces[:, corner]] for corner in range(3))
        return float(abs(np.einsum("ij,ij->i", np.cross(a, b), c).sum()) / 6)


def data_folder(given: Path | None = None) -> Path:
    """Where the surfaces are."""
    return Path(given or os.environ.get("RESPAN_TEST_DATA", "../shared/data")) / "spine_shapes"


def surfaces(folder: Path) -> Iterator[Surface]:
    """All surfaces that have a measured row."""
    yield from _dxplorer(folder / "dxplorer")
    for path in sorted((folder / "microns").glob("*.h5")):
        yield from _microns(path)


def _dxplorer(folder: Path) -> Iterator[Surface]:
    table = pd.read_csv(folder / "spineInfo.csv").set_index("Spine Name")
    for name, row in table.iterrows():
        truth = {
            "volume": row["V"],
            "length": row["L"],
            "head_diameter": float(np.sqrt(row["hMin"] * row["hMax"])),
            "neck_diameter": float(np.sqrt(row["nMin"] * row["nMax"])),
        }
        mesh = trimesh.load_mesh(folder / str(name), process=True)
        yield closed(f"dxplorer {name}", mesh, truth)


def _microns(path: Path) -> Iterator[Surface]:
    with h5py.File(path) as file:
        meshes, table = file[f"spines/meshes/{path.stem}"], file[f"edges/{path.stem}"]
        offsets, points, triangles = (meshes[n][:] for n in ("offsets", "vertices", "triangles"))
        names = [name.decode() for name in table["block0_items"][:]]
        length = table["block0_values"][:, names.index("spine_length")]
    for number, (low, high) in enumerate(itertools.pairwise(offsets)):
        mesh = trimesh.Trimesh(points[low[0] : high[0]], triangles[low[1] : high[1]])
        yield closed(f"microns {number}", mesh, {"length": float(length[number])})


def closed(name: str, mesh: trimesh.Trimesh, truth: dict[str, float]) -> Surface:
    """Put lids on every hole; the largest is where the spine stood."""
    rims = _rims(mesh)
    vertices = np.asarray(mesh.vertices)[:, ::-1]
    faces, lids = [np.asarray(mesh.faces)], []
    for rim in rims:
        middle = len(vertices)
        vertices = np.concatenate([vertices, vertices[rim].mean(axis=0)[None]])
        lid = np.stack([np.roll(rim, -1), rim, np.full(len(rim), middle)], axis=1)
        faces.append(lid)
        lids.append(lid)
    lids.sort(key=lambda lid: _area(vertices, lid))
    truth = truth | {"volume": truth.get("volume", np.nan)}
    base = lids[-1] if lids else np.zeros((0, 3), np.int64)
    return Surface(name, vertices, np.concatenate(faces).astype(np.int64), base, truth)


def _rims(mesh: trimesh.Trimesh) -> list[NDArray[np.int64]]:
    """Closed chains of edges that belong to one triangle only, as those triangles turn."""
    edges = np.asarray(mesh.edges)
    _, index, counts = np.unique(mesh.edges_sorted, axis=0, return_index=True, return_counts=True)
    following = dict(edges[index[counts == 1]].tolist())
    rims = []
    while following:
        rim = [next(iter(following))]
        while (after := following.pop(rim[-1], None)) is not None:
            rim.append(after)
        rims.append(np.array(rim[:-1]))
    return [rim for rim in rims if len(rim) > 2]


def _area(vertices: Floats, faces: NDArray[np.int64]) -> float:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def voxelized(
    surface: Surface, spacing: VoxelSpacing, shift: Floats
) -> tuple[NDArray[np.bool_], Floats]:
    """Voxels whose center is inside: a line along z is inside between each two crossings.

    Returns
    -------
    mask, origin_um
        And the center of the first voxel.
    """
    edges = np.asarray(spacing.zyx)
    origin = surface.vertices_um.min(axis=0) - (1 + shift) * edges
    points = (surface.vertices_um - origin) / edges
    shape_zyx = np.ceil(points.max(axis=0)).astype(int) + 2
    crossings = np.zeros(shape_zyx, np.int32)
    for corners in points[surface.faces]:
        (z, y, x), rows = corners.T, _columns_under(corners)
        det = (y[1] - y[0]) * (x[2] - x[0]) - (y[2] - y[0]) * (x[1] - x[0])
        if not len(rows) or det == 0:
            continue
        dy, dx = rows[:, 0] - y[0], rows[:, 1] - x[0]
        u = (dy * (x[2] - x[0]) - dx * (y[2] - y[0])) / det
        v = (dx * (y[1] - y[0]) - dy * (x[1] - x[0])) / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1)
        height = z[0] + u[hit] * (z[1] - z[0]) + v[hit] * (z[2] - z[0])
        cells = np.ceil(height).astype(int), *rows[hit].T
        np.add.at(crossings, cells, int(np.sign(det)))
    return np.cumsum(crossings, axis=0) != 0, origin


def _columns_under(corners: Floats) -> NDArray[np.int64]:
    """Grid columns (y, x) in the box of a triangle."""
    low, high = np.ceil(corners[:, 1:].min(axis=0)), np.floor(corners[:, 1:].max(axis=0))
    y, x = (np.arange(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    return np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)


@dataclass(frozen=True)
class Standing:
    """A spine's voxels, which of them touch the dendrite, the middle one, and the way out there."""

    index: NDArray[np.int64]
    roots: NDArray[np.bool_]
    first: int
    way_um: Floats


def _on_lid(surface: Surface, mask: NDArray[np.bool_], origin: Floats, edges: Floats) -> Standing:
    rim, middle = surface.vertices_um[surface.lid[:, 1]], surface.vertices_um[surface.lid[0, 2]]
    normal = np.linalg.svd(rim - rim.mean(axis=0))[2][2]
    index = np.argwhere(mask)
    points = origin + index * edges
    normal = normal if (points.mean(axis=0) - middle) @ normal < 0 else -normal
    spread = np.linalg.norm(rim - middle, axis=1).max()
    height, off = (points - middle) @ normal, np.linalg.norm(points - middle, axis=1)
    roots = (off <= spread) & (np.abs(height) <= np.abs(normal) @ edges)
    steps = normal / edges
    way_um = np.rint(steps / np.abs(steps).max()) * edges
    return Standing(index, roots, int(np.argmin(off)), way_um)


def _on_plane(mask: NDArray[np.bool_], origin: Floats, edges: Floats) -> Standing:
    above = mask.copy()
    ground = int(np.ceil(-origin[1] / edges[1]))
    above[:, :ground] = False
    parts = cc3d.connected_components(above, connectivity=26)
    tip = np.argwhere(above)[np.argwhere(above)[:, 1].argmax()]
    index = np.argwhere(parts == parts[tuple(tip)])
    roots = index[:, 1] == index[:, 1].min()
    off = np.linalg.norm((index - index[roots].mean(axis=0)) * edges, axis=1)
    off[~roots] = np.inf
    return Standing(index, roots, int(np.argmin(off)), np.array([0, -1, 0]) * edges)


def measure(surface: Surface, spacing: VoxelSpacing, shift: Floats) -> dict[str, float]:
    """What we say about a voxelized surface."""
    mask, origin = voxelized(surface, spacing, shift)
    volume_um3 = int(mask.sum()) * spacing.voxel_volume_um3
    if not _is_whole(mask):
        return {"volume": volume_um3}
    edges = np.asarray(spacing.zyx)
    on = (
        _on_lid(surface, mask, origin, edges)
        if len(surface.lid)
        else _on_plane(mask, origin, edges)
    )
    middle = middle_line(on.index, on.roots, on.index[on.first], on.way_um, spacing)
    seen = np.ones(len(on.index), dtype=bool)
    head = heads.split(middle, seen, spacing)
    found = lengths.measure(middle, seen if head is None else head, seen, spacing)
    return {
        "volume": volume_um3,
        "length": found.spine_um if len(surface.lid) else found.straight_um,
        "head_diameter": found.head_diameter_um,
        "neck_diameter": found.neck_diameter_um,
        "neck_length": found.neck_um,
    }


def _is_whole(mask: NDArray[np.bool_]) -> bool:
    """Whether nearly all voxels hang together."""
    sizes = np.bincount(cc3d.connected_components(mask, connectivity=26).ravel())[1:]
    return bool(len(sizes)) and sizes.max() > 0.98 * sizes.sum()


def compare(folder: Path, spacing: VoxelSpacing, draws: int = 1) -> pd.DataFrame:
    """One row per surface: theirs and ours; ours is the mean over `draws` places on the grid."""
    rng = np.random.default_rng(0)
    rows = []
    for surface in surfaces(folder):
        ours = pd.DataFrame([measure(surface, spacing, rng.uniform(0, 1, 3)) for _ in range(draws)])
        row = {"name": surface.name, "mesh_volume": surface.volume_um3}
        row |= {f"{name}_theirs": surface.truth.get(name, np.nan) for name in MEASURES}
        rows.append(row | {f"{name}_ours": value for name, value in ours.mean().items()})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per collection and measure: number, correlation, median ratio ours / theirs, its spread."""
    table = table.assign(mesh_theirs=table["mesh_volume"], mesh_ours=table["volume_ours"])
    rows = []
    for source, part in table.groupby(table["name"].str.split().str[0]):
        for name in ("mesh", *MEASURES):
            pairs = part[[f"{name}_theirs", f"{name}_ours"]].dropna().to_numpy()
            if len(pairs) < 3:
                continue
            ratio = pairs[:, 1] / pairs[:, 0]
            rows.append(
                {
                    "surfaces": source,
                    "measure": "volume of the closed surface" if name == "mesh" else name,
                    "n": len(pairs),
                    "correlation": np.corrcoef(pairs.T)[0, 1],
                    "median ratio": np.median(ratio),
                    "quartiles": "{:.2f}-{:.2f}".format(*np.quantile(ratio, [0.25, 0.75])),
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Print table and summary."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spacing", default="0.02,0.02,0.02", help="voxel edges z,y,x in µm")
    parser.add_argument("--draws", type=int, default=1, help="places on the grid")
    parser.add_argument("--data", type=Path, help="folder that holds spine_shapes")
    parser.add_argument("--all", action="store_true", help="print every surface")
    arguments = parser.parse_args()
    spacing = VoxelSpacing(*map(float, arguments.spacing.split(",")))
    table = compare(data_folder(arguments.data), spacing, arguments.draws)
    if arguments.all:
        print(table.round(3).to_string(index=False), "\n")
    print(f"at {arguments.spacing} µm\n{summary(table).round(3).to_string(index=False)}")


if __name__ == "__main__":
    main()
