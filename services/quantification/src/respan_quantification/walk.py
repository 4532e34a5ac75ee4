"""The walk over an image's blocks: which piece of work comes next, and who does it.

A step's pieces are claimed one by one through lock files in the draft, so that the processes of one
replica, and several replicas that were asked for the same image, share them; what a killed one had
claimed is free again. A step begins when the one before is finished.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from respan_common.buckets import Location
from respan_common.drafts import draft_folder
from respan_common.events import Reporter
from respan_common.geometry import Box, VoxelSpacing, Zyx
from respan_common.params import QuantificationParams
from respan_common.processes import Crew, Work, give_memory_back
from respan_common.settings import Runtime
from respan_common.volumes import LevelWriter, Volume, exists, open_volume
from respan_quantification.parts import Parts

if TYPE_CHECKING:
    from respan_quantification.meshes import Mesh
    from respan_quantification.pipeline import Recipe

STAGE = "quantification"
CLASSES = "labels/classes"
UNCERTAINTY = "uncertainty"
"""Image group with the model's doubt, if segmentation has written one."""
CONFIDENCE = "confidence"
"""Image group with how probable each voxel of a spine is, if segmentation has written one."""

SHARE_OF_TIME = {
    "survey_somas": 2,
    "merge_somas": 1,
    "survey_dendrites": 3,
    "merge_dendrites": 1,
    "paint": 8,
    "objects": 59,
    "trees": 10,
    "assemble": 4,
    "write": 12,
}
"""Every step in order, and about how much of the whole it takes (%)."""

_VOXELS_PER_PROCESS = 2**23
"""Starting a process costs about as long as this many voxels."""

_POLL_S = 0.2


@dataclass(frozen=True)
class Site:
    """All that a process must know to work on any piece of one image."""

    store: Location
    digest: str
    """Digest of the work's key."""
    params: QuantificationParams
    runtime: Runtime

    @property
    def draft(self) -> Path:
        """Where the unfinished work lies."""
        return draft_folder(self.store, STAGE)

    @property
    def parts(self) -> Parts:
        """Results of single pieces."""
        return Parts(self.draft / ".parts")


@dataclass
class StoredImage:
    """The image's volumes, as the recipe asks for them (see `pipeline.Image`)."""

    site: Site
    _writers: dict[str, LevelWriter] = field(default_factory=dict)

    @cached_property
    def raw(self) -> Volume:
        """The raw image."""
        return open_volume(self.site.store)

    @cached_property
    def class_volume(self) -> Volume:
        """The class image, on whose grid everything is measured."""
        return open_volume(self.site.store, CLASSES)

    @cached_property
    def opinions(self) -> dict[str, Volume]:
        """What segmentation has said about its own result, by group: if it did."""
        groups = [group for group in (UNCERTAINTY, CONFIDENCE) if exists(self.site.store, group)]
        return {group: open_volume(self.site.store, group) for group in groups}

    def digests(self) -> dict[str, str]:
        """What the result depends on, by group."""
        opinions = {group: volume.digest for group, volume in self.opinions.items()}
        return {"raw": self.raw.digest, CLASSES: self.class_volume.digest} | opinions

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels of the class image."""
        return self.class_volume.shape_zyx

    @property
    def block_zyx(self) -> Zyx:
        """Voxels of a block: one shard of every label image, as a shard has one writer."""
        return self._writer("labels/dendrites").block_zyx

    @property
    def spacing(self) -> VoxelSpacing:
        """Voxel size of the class image."""
        return self.class_volume.spacing

    @property
    def channels(self) -> int:
        """Channels of the raw image."""
        return self.raw.channels

    @property
    def roles(self) -> dict[str, int]:
        """Value of each role in the class image."""
        return dict(self.class_volume.attributes["roles"])

    def classes(self, box: Box) -> NDArray[np.uint8]:
        """Class values."""
        return np.asarray(self.class_volume.read(box), np.uint8)

    def grey(self, channel: int, box: Box) -> NDArray[Any]:
        """Raw values of a channel, counted from 1."""
        return read_on_grid(self.raw, self.class_volume, channel, box)

    def uncertainty(self, box: Box) -> NDArray[Any] | None:
        """The model's doubt, if the store has it."""
        return self._opinion(UNCERTAINTY, box)

    def confidence(self, box: Box) -> NDArray[np.uint8] | None:
        """How sure the model is of each voxel of a spine, if the store has it."""
        return self._opinion(CONFIDENCE, box)

    def _opinion(self, group: str, box: Box) -> NDArray[Any] | None:
        volume = self.opinions.get(group)
        return None if volume is None else read_on_grid(volume, self.class_volume, 1, box)

    def labels(self, group: str, box: Box) -> NDArray[np.uint32]:
        """Labels that an earlier step wrote."""
        return np.asarray(self._writer(group).read(box), np.uint32)

    def write(self, group: str, box: Box, values: NDArray[Any], channel: int = 1) -> None:
        """Write whole shards of a group that the draft has begun."""
        self._writer(group).write(box, values, channel)

    def write_mesh(self, part: str, spine_id: int, mesh: Mesh) -> None:
        """Write the surface of a spine, head or neck, for Neuroglancer."""
        from respan_quantification.mesh_files import write_precomputed

        write_precomputed([(spine_id, mesh)], self.site.draft / "meshes" / part)

    def _writer(self, group: str) -> LevelWriter:
        if group not in self._writers:
            self._writers[group] = LevelWriter.existing(self.site.draft / group)
        return self._writers[group]


def read_on_grid(image: Volume, grid: Volume, channel: int, box: Box) -> NDArray[Any]:
    """Voxels of an image at the places of another grid over the same field: the nearest ones.

    The grid of the classes is finer than the raw image's after axial restoration.
    """
    if image.shape_zyx == grid.shape_zyx:
        return image.read(box, channel)
    edges = zip(grid.spacing.zyx, image.spacing.zyx, strict=True)
    nearest = [
        # Both grids share the face of their first voxel.
        np.minimum(((np.arange(part.start, part.stop) + 0.5) * edge / own).astype(int), size - 1)
        for part, (edge, own), size in zip(box, edges, image.shape_zyx, strict=True)
    ]
    z, y, x = (slice(int(axis[0]), int(axis[-1]) + 1) for axis in nearest)
    values = image.read((z, y, x), channel)
    return np.asarray(values[np.ix_(*(axis - axis[0] for axis in nearest))])


class Walk:
    """One image's walk: leads the work, or helps whoever leads it."""

    def __init__(self, site: Site, shape_zyx: Zyx, report: Reporter) -> None:
        self._site, self._report = site, report
        give_memory_back()
        worthwhile = int(np.prod(shape_zyx)) // _VOXELS_PER_PROCESS
        self._crew = Crew(prepare, site, min(site.runtime.thread_count, max(worthwhile, 1)))
        self.warning = compute_on(site)

    def __enter__(self) -> Walk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._crew.__exit__(kind, error, traceback)

    def lead(self) -> None:
        """Take every step, from wherever an earlier attempt stopped, to the end."""
        recipe = recipe_for(self._site)
        begun = 0
        for step, share in SHARE_OF_TIME.items():
            pieces = recipe.pieces(step)
            left = self._left(step, pieces)
            self._site.parts.open_step(self._site.digest, step)
            while left:
                for _ in self._crew.done(step, left, self._report.check):
                    finished = len(pieces) - len(self._left(step, pieces))
                    per_mille = 10 * begun + round(10 * share * finished / len(pieces))
                    self._report.progress(per_mille, 1000, step)
                left = self._left(step, pieces)
                if left:  # in the hands of another replica
                    self._report.check()
                    time.sleep(_POLL_S)
            begun += share
        self._site.parts.close()

    def help(self) -> None:
        """Do pieces of the step that another replica has opened, if it is the same work."""
        step = self._site.parts.step_to_join(self._site.digest)
        if step is None:
            return
        try:
            pieces = recipe_for(self._site).pieces(step)
            for _ in self._crew.done(step, self._left(step, pieces), self._report.check):
                self._report.check()
        except Exception:
            # What is finished is published and moved away, at any moment and in any order.
            if self._site.parts.step_to_join(self._site.digest) == step:
                raise

    def _left(self, step: str, pieces: list[int]) -> list[int]:
        return [piece for piece in pieces if not self._site.parts.is_done(step, piece)]


def prepare(site: Site) -> Work:
    """Make a process ready to do any piece of a site's work."""
    give_memory_back()
    recipe, parts = recipe_for(site), site.parts
    compute_on(site)

    def do(step: str, piece: int) -> None:
        with parts.claimed(step, piece) as mine:
            if mine:
                recipe.do(step, piece)
                parts.mark_done(step, piece)

    return do


def compute_on(site: Site) -> str:
    """Have this process compute on the site's device; a warning if that cannot be."""
    from respan_quantification import arrays  # only who computes loads the libraries

    return arrays.compute_on(site.runtime.device)


def recipe_for(site: Site) -> Recipe:
    """The recipe on a site's own image."""
    # Only a worker computes: the server names the stage without loading the libraries.
    from respan_quantification.pipeline import Recipe

    return Recipe(StoredImage(site), site.parts, site.params)
