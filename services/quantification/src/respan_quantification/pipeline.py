"""The recipe: from classes and grey values to labels, tables and trees, block by block.

Every step consists of numbered pieces that need only what earlier steps left on the shelf, so that
any process can do any piece, in any order:

survey_somas, survey_dendrites
            their components in each block
merge_somas, merge_dendrites
            which of them are one object; small ones are dropped, somas in favor of the dendrites
paint       label images of dendrites and somas; the somas' surfaces
objects     each tile's spines, measured; what the dendrites' trees are made from
trees       each dendrite's centerline, and the places of its spines on it
assemble    final ids of the spines; all tables
write       label images of spines and centerlines

Arrays and tables only: where they lie is the image's and the shelf's affair.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from respan_common.blocks import Block, grid
from respan_common.geometry import Box, Zyx, grow, shape_of
from respan_common.params import QuantificationParams
from respan_quantification import (
    assembly,
    block_spines,
    dendrite_rows,
    distances,
    mesh_parts,
    painting,
    placement,
    shafts,
    somas,
    tables,
    twigs,
)
from respan_quantification.assembly import ImageTables, Told
from respan_quantification.census import Census
from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.growth import grow_tree
from respan_quantification.objects import Labels
from respan_quantification.painting import SpineVoxels
from respan_quantification.places import Image, Shelf, arrays_of
from respan_quantification.population import Population
from respan_quantification.shafts import Lattice, Shafts
from respan_quantification.sholl import Sholl
from respan_quantification.somas import SomaMoments, SomaSurface
from respan_quantification.surface import Surface
from respan_quantification.swc import Heads, Soma, SwcFile, write_single_files
from respan_quantification.tree import Tree
from respan_quantification.view import Look, View, kept_once

HALO_UM = 3.0
"""A block sees this much beyond its own voxels: most spines and their dendrites. The others are
looked at once more, in their own surroundings."""

OBJECTS = {"dendrite": "labels/dendrites", "soma": "labels/soma"}
"""Roles whose connected components are objects, and where these are painted."""

TILE: Zyx = (64, 256, 256)
"""Most voxels in which spines are looked for at once. What that takes is held for them and a halo:
this decides how much memory a process needs. Label images are written in whole blocks."""

DISTANCES = "distances"
"""Image group with the distances to the dendrite and along it."""


@dataclass(frozen=True)
class Summary:
    """An image's tables, its few numbers, and what a reader must know."""

    tables: ImageTables
    numbers: dict[str, float]
    warnings: list[str]


class Recipe:
    """All steps of one image's quantification."""

    def __init__(self, image: Image, shelf: Shelf, params: QuantificationParams) -> None:
        self._image, self._shelf, self._params = image, shelf, params
        self._blocks = grid(image.shape_zyx, image.block_zyx)
        self._tiles = grid(image.shape_zyx, _tile(image.block_zyx))
        self._population = Population(image, shelf, params, self._blocks)

    def pieces(self, step: str) -> list[int]:
        """Numbers of a step's pieces; those of "trees" are known after "merge_dendrites"."""
        if step in ("merge_somas", "merge_dendrites", "assemble"):
            return [0]
        if step == "trees":
            return list(range(1, self._dendrites.count + 1))
        return [part.number for part in (self._tiles if step == "objects" else self._blocks)]

    def do(self, step: str, piece: int) -> None:
        """Do one piece of a step."""
        getattr(self, f"_{step}")(piece)

    def summary(self) -> Summary:
        """Everything in tables and numbers; after "assemble"."""
        names = [field.name for field in dataclasses.fields(ImageTables)]
        found = ImageTables(**{name: self._shelf.load_table(name, 0) for name in names})
        discarded: Counter[str] = Counter()
        told = [self._shelf.load("discarded", tile.number) for tile in self._tiles]
        for counts in [*told, self._population.discarded()]:
            discarded.update({name: float(count) for name, count in counts.items()})
        return Summary(
            found,
            tables.numbers_of(found.dendrites, found.spines) | discarded,
            assembly.warnings_of(found, self._image.roles, self._params),
        )

    def _survey_somas(self, number: int) -> None:
        self._population.survey_somas(number)

    def _merge_somas(self, _: int) -> None:
        self._population.merge_somas()

    def _survey_dendrites(self, number: int) -> None:
        self._population.survey_dendrites(number)

    def _merge_dendrites(self, _: int) -> None:
        self._population.merge_dendrites()

    def _paint(self, number: int) -> None:
        block = self._blocks[number]
        painted = self._population.painted(number)
        for role, group in OBJECTS.items():
            self._image.write(group, block.inner, painted[role])
        frame = self._frame(block, (1, 1, 1))
        # Beyond the block no ids are known yet; a mask is enough to see which voxels are outermost.
        mask = self._classes(frame.outer).mask("soma").astype(np.uint32)
        surface = somas.soma_surface(mask, frame)
        inside = surface.index_zyx - [part.start for part in block.inner]
        surface = surface.named(painted["soma"][tuple(inside.T)])
        self._shelf.save("soma-surface", number, arrays_of(surface))

    def _objects(self, number: int) -> None:
        spacing, shape = self._image.spacing, self._image.shape_zyx
        tile = self._tiles[number]
        frame, look = self._frame(tile, self._halo), self._look(tile)
        view = look(grow(frame.outer, block_spines.margin(spacing, self._params), shape))
        own = shafts.gather(view.dendrites, view.somas, view.frame, self._lattices)
        self._shelf.save("shafts", number, own.arrays())
        moments = somas.soma_moments(view.somas[view.frame.inner_in_outer], view.frame)
        self._shelf.save("soma-moments", number, arrays_of(moments))
        del view
        found = block_spines.find(frame, look, self._soma_surface, self._params)
        self._shelf.save_table("found", number, found.table)
        self._shelf.save("voxels", number, found.voxels())
        self._shelf.save("meshes", number, mesh_parts.packed(found.meshes))
        counts = {name: np.asarray(count) for name, count in found.discarded.items()}
        self._shelf.save("discarded", number, counts)

    def _trees(self, dendrite: int) -> None:
        spacing, shape = self._image.spacing, self._image.shape_zyx
        spines = self._spines_of(dendrite)
        tree = twigs.without_necks(self._grown(dendrite), spines)
        self._shelf.save("tree", dendrite, arrays_of(tree))
        voxels = painting.centerline_voxels(tree, spacing, shape)
        self._shelf.save("centerline", dendrite, {"linear": voxels})
        placed = spines[["anchor"]].join(placement.place(spines, tree))
        window_um = self._params.density_window_um
        told = dendrite_rows.describe(dendrite, tree, placed, shape, spacing, window_um)
        self._shelf.save_table("placed", dendrite, placed.join(told.spines))
        self._shelf.save_table("dendrite", dendrite, pd.DataFrame([told.dendrite]))
        self._shelf.save_table("branches-of", dendrite, pd.DataFrame(told.branches))

    def _assemble(self, _: int) -> None:
        numbers = range(1, self._dendrites.count + 1)
        found = [self._shelf.load_table("found", tile.number) for tile in self._tiles]
        told = Told(
            found,
            [self._shelf.load_table("placed", number) for number in numbers],
            [self._shelf.load_table("dendrite", number) for number in numbers],
            [self._shelf.load_table("branches-of", number) for number in numbers],
            self._soma_table(),
            {number: self._sholl(number) for number in numbers},
        )
        image = self._image
        made = assembly.image_tables(
            told, self._dendrites, image.shape_zyx, image.spacing, image.channels
        )
        for name, table in made.named().items():
            self._shelf.save_table(name, 0, table)
        for tile, ids in zip(self._tiles, assembly.final_ids(found), strict=True):
            self._shelf.save("final-ids", tile.number, {"ids": ids})

    def _write(self, number: int) -> None:
        inner, shape = self._blocks[number].inner, self._image.shape_zyx
        near = grow(inner, self._image.block_zyx, shape)
        voxels = SpineVoxels.joined(self._spine_voxels(tile) for tile in self._tiles_at(near))
        for name, labels in painting.spine_labels(voxels, inner, shape).items():
            self._image.write(f"labels/{name}", inner, labels)
        drawn = (
            (dendrite, self._shelf.load("centerline", dendrite)["linear"])
            for dendrite in self._dendrites_at(inner)
        )
        skeleton = painting.skeleton_labels(drawn, inner, shape)
        self._image.write("labels/skeleton", inner, skeleton)
        for tile in self._tiles_at(inner):
            ids = self._shelf.load("final-ids", tile)["ids"]
            for own, part, mesh in mesh_parts.unpacked(self._shelf.load("meshes", tile)):
                self._image.write_mesh(part, int(ids[own]), mesh)
        if self._params.distance_maps:
            self._write_distances(number)

    def _write_distances(self, number: int) -> None:
        reach_um = self._params.max_spine_distance_um
        halo = distances.halo(reach_um, self._image.spacing)
        frame = self._frame(self._blocks[number], halo)
        dendrites = self._image.labels(OBJECTS["dendrite"], frame.outer)
        own = dendrites[frame.inner_in_outer]
        trees = {int(n): self._tree(int(n)) for n in np.unique(own) if n}
        to_dendrite_um = distances.to_dendrite_um(dendrites, frame, reach_um)
        along_um = distances.along_dendrite_um(own, frame, trees)
        for channel, values in enumerate((to_dendrite_um, along_um), start=1):
            # Digits below 8 nm say nothing and would double the file.
            self._image.write(DISTANCES, frame.inner, np.round(values * 128) / 128, channel)

    # What the steps look at.

    def _classes(self, box: Box) -> ClassImage:
        return ClassImage(self._image.classes(box), self._image.roles)

    def _frame(self, own: Block, halo_zyx: Zyx) -> Frame:
        inner, shape = own.inner, self._image.shape_zyx
        return Frame(grow(inner, halo_zyx, shape), inner, shape, self._image.spacing)

    def _look(self, tile: Block) -> Look:
        """Shows any box of the image, in the frame of a tile."""
        image, own = self._image, self._frame(tile, (0, 0, 0))

        def view(box: Box) -> View:
            return View(
                frame=dataclasses.replace(own, outer=box),
                classes=self._classes(box),
                dendrites=image.labels(OBJECTS["dendrite"], box),
                somas=self._somas(box),
                grey=kept_once(lambda channel: image.grey(channel, box)),
                channels=image.channels,
                uncertainty=image.uncertainty(box),
                confidence=image.confidence(box),
            )

        return kept_once(view)

    def _somas(self, box: Box) -> Labels:
        if self._soma_surface is None:  # most images have none: nothing to read, nothing to hold
            return np.broadcast_to(np.uint32(0), shape_of(box))
        return self._image.labels(OBJECTS["soma"], box)

    @cached_property
    def _halo(self) -> Zyx:
        return shafts.halo_zyx(self._image.spacing, HALO_UM)

    @cached_property
    def _dendrites(self) -> Census:
        return self._population.census("dendrite")

    @cached_property
    def _lattices(self) -> dict[int, Lattice]:
        return shafts.lattices(self._dendrites, self._image.spacing, HALO_UM)

    @cached_property
    def _soma_surface(self) -> Surface | None:
        every = SomaSurface.joined(
            [
                SomaSurface(**self._shelf.load("soma-surface", block.number))
                for block in self._blocks
            ]
        )
        if not len(every.ids):
            return None
        return Surface.of_voxels(
            every.index_zyx, every.ids, self._image.spacing, self._image.shape_zyx
        )

    @cached_property
    def _soma_balls(self) -> dict[int, Soma]:
        parts = [
            SomaMoments(**self._shelf.load("soma-moments", tile.number)) for tile in self._tiles
        ]
        return somas.soma_balls(parts, self._image.spacing)

    def write_swc(self, folder: Path) -> None:
        """Write all trees into one file, and each neuron or lonely dendrite into its own."""
        heads = self._heads()
        whole = SwcFile(folder / "dendrites.swc", self._soma_balls)
        for dendrite, tree in self._trees_one_by_one():
            whole.add(dendrite, tree, heads.get(dendrite))
        (folder / "single").mkdir(exist_ok=True)
        write_single_files(folder / "single", self._trees_one_by_one(), self._soma_balls, heads)

    def _heads(self) -> dict[int, Heads]:
        """Heads of every dendrite's spines; after "assemble"."""
        table = self._shelf.load_table("spines", 0)
        owners = table["dendrite_id"].to_numpy(np.int64)
        heads = {}
        for dendrite in np.unique(owners).tolist():
            rows = table[owners == dendrite]
            heads[dendrite] = Heads(
                rows["spine_id"].to_numpy(np.int64),
                rows[["z_um", "y_um", "x_um"]].to_numpy(np.float64),
                rows["head_equivalent_diameter_um"].to_numpy(np.float64) / 2,
            )
        return heads

    def _sholl(self, dendrite: int) -> Sholl:
        tree = self._tree(dendrite)
        ball = self._soma_balls.get(tree.soma_id)
        center_um = tree.points_um[0] if ball is None else np.asarray(ball.center_um)
        heads_um = self._spines_of(dendrite)[["z_um", "y_um", "x_um"]].to_numpy(np.float64)
        return Sholl.of(tree, heads_um, center_um, self._params.sholl_step_um)

    def _soma_table(self) -> pd.DataFrame:
        known, voxel_um3 = self._population.census("soma"), self._image.spacing.voxel_volume_um3
        return pd.DataFrame(
            {
                "soma_id": number,
                "soma_volume_um3": float(known.voxels[number]) * voxel_um3,
                **dict(zip(("soma_z_um", "soma_y_um", "soma_x_um"), ball.center_um, strict=True)),
            }
            for number, ball in self._soma_balls.items()
        )

    def _grown(self, dendrite: int) -> Tree:
        lattice, spacing = self._lattices[dendrite], self._image.spacing
        parts = [
            Shafts.of_arrays(self._shelf.load("shafts", number)).part(dendrite)
            for number in self._tiles_at(self._dendrites.box(dendrite))
        ]
        shaft = shafts.merge_shafts(parts, lattice, spacing, self._image.shape_zyx)
        return grow_tree(
            shaft.cells,
            shaft.radius_um,
            lattice.factor_zyx,
            shaft.samples,
            spacing,
            shaft.contact,
        )

    def _tree(self, dendrite: int) -> Tree:
        kept = self._shelf.load("tree", dendrite)
        return Tree(
            kept["points_um"],
            kept["parents"],
            kept["radius_um"],
            int(kept["loops"]),
            int(kept["soma_id"]),
            float(kept["soma_gap_um"]),
        )

    def _trees_one_by_one(self) -> Iterator[tuple[int, Tree]]:
        for dendrite in range(1, self._dendrites.count + 1):
            yield dendrite, self._tree(dendrite)

    def _spines_of(self, dendrite: int) -> pd.DataFrame:
        """Its spines; their anchors may lie a block away from it."""
        around = grow(self._dendrites.box(dendrite), self._image.block_zyx, self._image.shape_zyx)
        tables_near = [self._shelf.load_table("found", n) for n in self._tiles_at(around)]
        table = pd.concat(tables_near, ignore_index=True)
        return table[table["dendrite_id"] == dendrite].reset_index(drop=True)

    def _spine_voxels(self, number: int) -> SpineVoxels:
        ids = self._shelf.load("final-ids", number)["ids"]
        kept = self._shelf.load("voxels", number)
        own = np.asarray(kept["ids"])
        return SpineVoxels(kept["linear"], ids[own], kept["part"], kept["gap_um"][own])

    def _tiles_at(self, box: Box) -> list[int]:
        """Numbers of the tiles that own voxels of a box."""
        return [tile.number for tile in self._tiles if _overlap(tile.inner, box)]

    def _dendrites_at(self, box: Box) -> list[int]:
        known = self._dendrites
        low, high = [part.start for part in box], [part.stop for part in box]
        inside = np.all((known.low < high) & (known.high > low), axis=1)
        return [int(number) for number in np.flatnonzero(inside) if number]


def _tile(block_zyx: Zyx) -> Zyx:
    """Voxels of a tile: a block is cut where it is larger than a tile should be."""
    z, y, x = (
        block // -(-block // most) if block % -(-block // most) == 0 else block
        for block, most in zip(block_zyx, TILE, strict=True)
    )
    return (z, y, x)


def _overlap(one: Box, other: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))
