"""What a dendrite's tree is grown from, gathered block by block.

Plan: a dendrite whose box is small enough for dense arrays gives all its voxels. A larger one
gives cells of several voxels, each with the thickness found in it, and an even choice of its
voxels. Both give the places where they come near a soma. Nothing here depends on where the image
was cut: what a block tells of its own voxels needs only the halo that `halo_zyx` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import fastremap
import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx, absolute, grow, relative
from respan_quantification import contacts
from respan_quantification.arrays import inside_distance
from respan_quantification.census import Census
from respan_quantification.contacts import Contacts, find_contacts
from respan_quantification.frame import Frame
from respan_quantification.growth import Contact
from respan_quantification.instances import inside_distance_um
from respan_quantification.objects import Labels, box_of

Ids = NDArray[np.uint32]
Index = NDArray[np.int32]

MOST_CELLS = 24_000_000
"""Cells of a dendrite's box: dense arrays of so many take some hundred megabytes."""

SAMPLED_VOXELS = 400_000
"""About as many voxels stand for all of a dendrite where only averages are wanted."""


@dataclass(frozen=True)
class Lattice:
    """How finely one dendrite is gathered.

    `factor_zyx` voxels make a cell; `sample_share` of the voxels stand for all; `reach_um` is
    the largest distance to the background that a block knows exactly.
    """

    factor_zyx: Zyx
    sample_share: float
    reach_um: float

    @property
    def is_fine(self) -> bool:
        """Whether every voxel is a cell."""
        return self.factor_zyx == (1, 1, 1)


@dataclass(frozen=True)
class Shafts:
    """A block's own part of its dendrites. Each list rises by dendrite.

    `voxels`, shape (n, 3), are those of dendrites with a fine lattice. Of the others there are
    `cells` (indices counted in cells), each with the largest distance to the background of a
    voxel in it, and `samples`, voxels. All indices count from the whole image's first voxel or
    cell. `contacts` are with somas.
    """

    voxel_ids: Ids
    voxels: Index
    cell_ids: Ids
    cells: Index
    cell_radius_um: NDArray[np.float32]
    sample_ids: Ids
    samples: Index
    contacts: Contacts

    @property
    def ids(self) -> Ids:
        """Dendrites of which the block owns voxels, rising."""
        return np.union1d(self.voxel_ids, self.cell_ids)

    def part(self, number: int) -> Shafts:
        """The same of one dendrite."""
        voxels, cells, samples, touching = (
            slice(*np.searchsorted(ids, [number, number + 1]))
            for ids in (self.voxel_ids, self.cell_ids, self.sample_ids, self.contacts.ids)
        )
        return Shafts(
            voxel_ids=self.voxel_ids[voxels],
            voxels=self.voxels[voxels],
            cell_ids=self.cell_ids[cells],
            cells=self.cells[cells],
            cell_radius_um=self.cell_radius_um[cells],
            sample_ids=self.sample_ids[samples],
            samples=self.samples[samples],
            contacts=self.contacts.part(touching),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it as named arrays, for a file."""
        flat = {f"contacts_{name}": column for name, column in vars(self.contacts).items()}
        return {name: one for name, one in vars(self).items() if name != "contacts"} | flat

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> Shafts:
        """From what `arrays` gave, or a file of it."""
        near = Contacts(**{one.name: arrays[f"contacts_{one.name}"] for one in fields(Contacts)})
        named = {one.name: arrays[one.name] for one in fields(cls) if one.name != "contacts"}
        return cls(**named, contacts=near)


class Shaft(NamedTuple):
    """All of one dendrite, in raster order.

    `cells`, shape (n, 3), count in cells, `samples`, shape (m, 3), in voxels of the whole image;
    `radius_um` is the largest distance to the background of a voxel in each cell.
    """

    cells: NDArray[np.int64]
    radius_um: NDArray[np.float32]
    samples: NDArray[np.int64]
    contact: Contact | None


def lattices(census: Census, spacing: VoxelSpacing, reach_um: float) -> dict[int, Lattice]:
    """Lattice of each dendrite: the finest that fits in memory.

    Parameters
    ----------
    reach_um
        Every block's halo covers `halo_zyx(spacing, reach_um)`.
    """
    found = {}
    for number in range(1, census.count + 1):
        factor = _factor(census.low[number], census.high[number], spacing)
        share = min(1.0, SAMPLED_VOXELS / int(census.voxels[number]))
        found[number] = Lattice(factor, share, reach_um)
    return found


def halo_zyx(spacing: VoxelSpacing, reach_um: float) -> Zyx:
    """Voxels that a block must see around those that it owns."""
    near = contacts.reach_zyx(spacing)
    z, y, x = (max(a, b) for a, b in zip(spacing.reach(reach_um), near, strict=True))
    return (z, y, x)


def gather(
    dendrites: Labels, somas: Labels, frame: Frame, lattices: Mapping[int, Lattice]
) -> Shafts:
    """What the voxels that a block owns tell of its dendrites.

    Parameters
    ----------
    dendrites, somas : uint32 array, shape (z, y, x)
        Objects of the whole image's census over `frame.outer`.
    """
    owned = dendrites[frame.inner_in_outer]
    present = np.asarray(fastremap.unique(owned[owned > 0]), np.uint32)
    is_fine = np.array([lattices[int(number)].is_fine for number in present], dtype=bool)
    wide = present[~is_fine]
    voxel_ids, voxels = _voxels_of(owned, wide, frame)
    parts = _coarse(owned, wide, dendrites, frame, lattices) if len(wide) else []
    return Shafts(
        voxel_ids=voxel_ids,
        voxels=voxels,
        cell_ids=np.repeat(wide, [len(part.cells) for part in parts]),
        cells=_stacked([part.cells for part in parts]).astype(np.int32),
        cell_radius_um=np.concatenate([np.zeros(0, np.float32), *(p.radius_um for p in parts)]),
        sample_ids=np.repeat(wide, [len(part.samples) for part in parts]),
        samples=_stacked([part.samples for part in parts]).astype(np.int32),
        contacts=find_contacts(dendrites, somas, frame),
    )


def merge_shafts(
    parts: Sequence[Shafts], lattice: Lattice, spacing: VoxelSpacing, shape_zyx: Zyx
) -> Shaft:
    """One dendrite from its parts in all blocks, in any order.

    Parameters
    ----------
    parts
        Of this dendrite only, from `Shafts.part`.
    shape_zyx
        Voxels of the whole image.
    """
    near = Contacts.nearest([one.contacts for one in parts])
    contact = near.of(int(near.ids[0])) if len(near.ids) else None
    if lattice.is_fine:
        voxels = _raster(_stacked([one.voxels for one in parts]))
        radius_um = _distances_um(voxels, spacing, shape_zyx)
        chosen = voxels[is_sampled(voxels, lattice.sample_share)]
        return Shaft(voxels, radius_um, chosen, contact)
    cells, radius_um = _thickest(
        _stacked([one.cells for one in parts]),
        np.concatenate([one.cell_radius_um for one in parts]),
    )
    z, y, x = (-(-size // step) for size, step in zip(shape_zyx, lattice.factor_zyx, strict=True))
    wide = VoxelSpacing(*np.multiply(spacing.zyx, lattice.factor_zyx))
    # Where the blocks saw no background, the distance on the lattice is all there is.
    beyond_um = np.maximum(_distances_um(cells, wide, (z, y, x)), radius_um)
    radius_um = np.where(radius_um < np.float32(lattice.reach_um), radius_um, beyond_um)
    return Shaft(cells, radius_um, _raster(_stacked([one.samples for one in parts])), contact)


def is_sampled(voxels_zyx: NDArray[np.integer], share: float) -> NDArray[np.bool_]:
    """Which voxels stand for all: the same ones in any block, spread evenly.

    A hash (SplitMix64, Steele et al. 2014) of a voxel's place in the whole image decides.
    """
    if share >= 1:
        return np.ones(len(voxels_zyx), dtype=bool)
    z, y, x = voxels_zyx.astype(np.uint64).T
    mixed = ((z << np.uint64(42)) ^ (y << np.uint64(21)) ^ x) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray((mixed >> np.uint64(11)) < share * 2.0**53, dtype=bool)


def _factor(low: NDArray[np.int64], high: NDArray[np.int64], spacing: VoxelSpacing) -> Zyx:
    """Voxels per cell: always one more along the axis where cells stay shortest."""
    factor = np.ones(3, dtype=np.int64)
    while np.prod((high - 1) // factor - low // factor + 1) > MOST_CELLS:
        factor[np.argmin((factor + 1) * spacing.zyx)] += 1
    z, y, x = (int(step) for step in factor)
    return (z, y, x)


def _voxels_of(owned: Labels, without: Ids, frame: Frame) -> tuple[Ids, Index]:
    """Voxels of all dendrites but some, by rising dendrite, in raster order within each."""
    inside = owned > 0
    if len(without):
        inside &= ~np.isin(owned, without)
    ids, linear = owned[inside], np.flatnonzero(inside)
    order = np.argsort(ids, kind="stable")
    voxels = np.stack(np.unravel_index(linear[order], owned.shape), axis=1)
    return ids[order], (voxels + [part.start for part in frame.inner]).astype(np.int32)


class _Coarse(NamedTuple):
    """One dendrite's part in one block on its lattice."""

    cells: NDArray[np.int64]
    radius_um: NDArray[np.float32]
    samples: NDArray[np.int64]


def _coarse(
    owned: Labels, numbers: Ids, dendrites: Labels, frame: Frame, lattices: Mapping[int, Lattice]
) -> list[_Coarse]:
    tight = box_of(np.isin(owned, numbers))
    depth_um = _depths_um(dendrites, tight, frame, lattices[int(numbers[0])].reach_um)
    corner = np.array([p.start + t.start for p, t in zip(frame.inner, tight, strict=True)])
    return [
        _coarse_part(owned[tight] == number, depth_um, corner, lattices[int(number)])
        for number in numbers
    ]


def _coarse_part(
    mask: NDArray[np.bool_],
    depth_um: NDArray[np.float32],
    corner: NDArray[np.int64],
    lattice: Lattice,
) -> _Coarse:
    """Cells and samples of a mask whose first voxel lies at `corner` of the whole image."""
    first = corner // lattice.factor_zyx
    shape = (corner + mask.shape - 1) // lattice.factor_zyx - first + 1
    thickest_um = np.zeros(shape, np.float32)
    samples = []
    for z in np.flatnonzero(mask.any(axis=(1, 2))):  # a plane at a time: it may be all of them
        voxels = np.argwhere(mask[z : z + 1])
        voxels[:, 0] = z
        voxels += corner
        cells = tuple((voxels // lattice.factor_zyx - first).T)
        np.maximum.at(thickest_um, cells, depth_um[z][mask[z]])
        samples.append(voxels[is_sampled(voxels, lattice.sample_share)])
    found = np.argwhere(thickest_um) + first
    return _Coarse(found, thickest_um[thickest_um > 0], _stacked(samples))


def _depths_um(dendrites: Labels, tight: Box, frame: Frame, reach_um: float) -> NDArray[np.float32]:
    """Distance to the background over a box of owned voxels, at most `reach_um`.

    Other dendrites need no care: objects that do not touch have background between them, which
    is nearer.
    """
    own = absolute(tight, frame.inner_in_outer)
    around = grow(own, frame.spacing.reach(reach_um), dendrites.shape)
    depth = inside_distance(dendrites[around] > 0, frame.spacing)
    return np.asarray(np.minimum(depth[relative(own, around)], np.float32(reach_um)))


def _thickest(
    cells: NDArray[np.int64], radius_um: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each cell once, in raster order, with its largest radius."""
    if not len(cells):
        return cells, radius_um
    order = np.lexsort(tuple(cells.T[::-1]))
    cells, radius_um = cells[order], radius_um[order]
    is_first = np.append(True, np.any(cells[1:] != cells[:-1], axis=1))
    return cells[is_first], np.maximum.reduceat(radius_um, np.flatnonzero(is_first))


def _distances_um(
    cells: NDArray[np.int64], spacing: VoxelSpacing, shape_zyx: Zyx
) -> NDArray[np.float32]:
    """Distance of each cell to the nearest one that is not listed; the image's faces are none."""
    box = grow(_box_around(cells), (1, 1, 1), shape_zyx)
    place = tuple((cells - [part.start for part in box]).T)
    mask = np.zeros([part.stop - part.start for part in box], dtype=bool)
    mask[place] = True
    return np.asarray(inside_distance_um(mask, spacing)[place], np.float32)


def _box_around(index_zyx: NDArray[np.int64]) -> Box:
    lows, highs = index_zyx.min(axis=0), index_zyx.max(axis=0) + 1
    z, y, x = (slice(int(low), int(high)) for low, high in zip(lows, highs, strict=True))
    return (z, y, x)


def _raster(index_zyx: NDArray[np.int64]) -> NDArray[np.int64]:
    return index_zyx[np.lexsort(tuple(index_zyx.T[::-1]))]


def _stacked(parts: Sequence[NDArray[np.integer]]) -> NDArray[np.int64]:
    """All indices in one list, also where there is none."""
    return np.concatenate([np.zeros((0, 3), np.int64), *parts])
