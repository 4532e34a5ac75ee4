"""A second look: each spine is cut out with its surroundings and segmented anew by another model.

An object is a connected set of spine voxels (heads, necks, cores, shells). What the second model
finds replaces it where both overlap; other objects keep their voxels. Every shard looks at whole
objects, also at those that it shares with its neighbors, so the result does not depend on the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from respan_common.geometry import (
    Box,
    VoxelSpacing,
    Zyx,
    absolute,
    grow,
    intersection,
    relative,
    shape_of,
    whole,
)
from respan_common.model_folders import ModelFolder
from respan_common.params import SegmentationParams
from respan_segmentation.model import Model
from respan_segmentation.normalization import statistics_of
from respan_segmentation.outputs import Decision, Writer
from respan_segmentation.pipeline import Read, Tally, scores_of
from respan_segmentation.plan import Row, rows
from respan_segmentation.recipes import Grid, recipe_for
from respan_segmentation.scores import Meaning

LARGEST_UM = 8.0
"""Objects longer than this along an axis are left as they are: no spine, but a wrong dendrite."""
SPINE_ROLES = ("spine", "neck", "spine_core", "spine_shell")
_TOUCHING = np.ones((3, 3, 3), dtype=bool)


class Refinement:
    """Refines shard after shard.

    Parameters
    ----------
    name
        Names its pieces of work.
    roles
        Class values of the image that is refined, by structure.
    grey, first
        Boxes (z, y, x) of the image, and of the classes to refine.
    writer
        Where the refined classes are written.
    count
        Told for each shard how many objects that begin in it were refined, and how many objects
        near it were too large.
    """

    def __init__(
        self,
        name: str,
        folder: ModelFolder,
        model: Model,
        params: SegmentationParams,
        roles: Mapping[str, int],
        grey: Read,
        first: Read,
        writer: Writer,
        spacing: VoxelSpacing,
        check: Callable[[], None],
        count: Callable[[Box, int, int], None] = lambda shard, refined, too_large: None,
    ) -> None:
        self.name, self.tally = name, Tally(check)
        self._folder, self._model, self._params = folder, model, params
        self._grey, self._first, self._writer, self._spacing = grey, first, writer, spacing
        self._count = count
        own = folder.roles()
        self._spines = [value for role, value in roles.items() if role in SPINE_ROLES]
        self._own_spines = [value for role, value in own.items() if role in SPINE_ROLES]
        self._translation = _translation(own, roles)

    def columns(self, region: Box) -> list[list[Row]]:
        """Shards of a region: each stands for itself."""
        return rows(region, self._writer.block_zyx, 0, self._writer.block_zyx)

    def sweep(self, some: Sequence[Row]) -> Iterator[Row]:
        """Refine and write shards, and give each when it is written."""
        for row in some:
            self._writer.write(row.box, self._refined(row.box))
            yield row

    def _refined(self, inner: Box) -> NDArray[np.uint8]:
        """Classes of a shard after the second look."""
        shape = self._writer.shape_zyx
        outer = grow(inner, self._reach, shape)
        classes = np.array(self._first(outer), dtype=np.uint8)
        objects = np.zeros(classes.shape, dtype=np.int32)
        ndimage.label(np.isin(classes, self._spines), structure=_TOUCHING, output=objects)
        count = too_large = 0
        for number, (z, y, x) in enumerate(ndimage.find_objects(objects), start=1):
            found = absolute((z, y, x), outer)
            crop = grow(found, self._margin, shape)
            if intersection(crop, inner) is None:
                continue
            if max(self._length_um(found)) > LARGEST_UM:
                too_large += 1
                continue
            part = relative(crop, outer)
            self._paste(classes[part], objects[part], number, self._look(self._grey(crop)))
            count += _begins_in(found, inner)
        self._count(inner, count, too_large)
        return classes[relative(inner, outer)]

    @property
    def _reach(self) -> Zyx:
        """An object may begin a margin away from the shard, and its own surroundings count, too."""
        z, y, x = (
            longest + 2 * margin
            for longest, margin in zip(self._spacing.reach(LARGEST_UM), self._margin, strict=True)
        )
        return (z, y, x)

    @property
    def _margin(self) -> Zyx:
        return self._spacing.reach(self._params.refinement_margin_um)

    def _length_um(self, box: Box) -> list[float]:
        return [size * edge for size, edge in zip(shape_of(box), self._spacing.zyx, strict=True)]

    def _paste(
        self,
        classes: NDArray[np.uint8],
        objects: NDArray[np.int32],
        number: int,
        seen: NDArray[np.uint8],
    ) -> None:
        """Replace one object's voxels in a view of the classes by what the model sees."""
        mine, others = objects == number, (objects > 0) & (objects != number)
        parts = np.zeros(seen.shape, dtype=np.int32)
        ndimage.label(np.isin(seen, self._own_spines), structure=_TOUCHING, output=parts)
        kept = np.isin(parts, np.setdiff1d(parts[mine], [0])) & ~others
        replaced = mine | kept
        classes[replaced] = self._translation[seen[replaced]]

    def _look(self, grey: NDArray[Any]) -> NDArray[np.uint8]:
        """Classes of a crop, which the second model sees as an image of its own."""
        box = whole((grey.shape[0], grey.shape[1], grey.shape[2]))
        statistics = statistics_of([(box, grey)])
        classes = np.zeros(grey.shape, dtype=np.uint8)
        if statistics.box is None:
            return classes
        crop = statistics.box
        grid = Grid(self._folder, shape_of(box), self._spacing, self._params.step)
        painted = self._folder.regions_class_order if self._folder.regions is not None else ()
        meaning = Meaning(self._folder.outputs, tuple(painted))
        decision = Decision(meaning)
        recipe = recipe_for(
            grid, grid.layout(crop), statistics, self._model, self._params, decision
        )
        own = whole(shape_of(grid.turned(crop)))
        seen = classes[crop].transpose(self._folder.transpose)
        read = grid.reader(lambda part: grey[part], crop)
        with ThreadPoolExecutor(1) as helper:
            for part in scores_of(read, own, recipe, self.tally, helper):
                if part.sums is not None:
                    seen[part.box] = meaning.classes(part.sums, part.weight).cpu().numpy()
        return classes


def _translation(own: Mapping[str, int], roles: Mapping[str, int]) -> NDArray[np.uint8]:
    """Value of the refined image for each of the second model's; its heads are spines, say."""
    table = np.zeros(256, dtype=np.uint8)
    fallback = roles.get("spine", roles.get("spine_core", 0))
    for role, value in own.items():
        table[value] = roles.get(role, fallback if role in SPINE_ROLES else 0)
    return table


def _begins_in(box: Box, other: Box) -> bool:
    return all(b.start <= a.start < b.stop for a, b in zip(box, other, strict=True))
