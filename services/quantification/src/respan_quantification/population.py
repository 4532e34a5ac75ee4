"""The objects of an image: what is one dendrite or one soma, and which of them count.

In four steps: somas are surveyed block by block and merged, then dendrites, of which somas that
are too small are part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from respan_common.blocks import Block
from respan_common.params import QuantificationParams
from respan_quantification import brightness, census
from respan_quantification.census import Census, Survey
from respan_quantification.classes import ClassImage, Mask
from respan_quantification.frame import Frame
from respan_quantification.objects import Labels
from respan_quantification.places import Image, Shelf, arrays_of


@dataclasses.dataclass(frozen=True)
class Population:
    """Dendrites and somas of an image that is cut into blocks; a piece of work is a block."""

    image: Image
    shelf: Shelf
    params: QuantificationParams
    blocks: Sequence[Block]

    def survey_somas(self, number: int) -> None:
        """Components of somas in a block."""
        frame, classes = self._seen(number)
        found = census.survey(classes.mask("soma"), frame, self._least_voxels("soma"))
        self.shelf.save("survey-soma", number, arrays_of(found))

    def merge_somas(self) -> None:
        """Which of them are one soma; small ones are dropped."""
        self._keep("soma", self._merged("soma"))

    def survey_dendrites(self, number: int) -> None:
        """Components of dendrites in a block, and what `merge_dendrites` is to know of light."""
        frame, classes = self._seen(number)
        grey = None
        if self.params.min_dendrite_brightness > 0:
            grey = self.image.grey(self.params.channel, frame.inner)
            around = brightness.background_sum(classes.part(frame.inner_in_outer), grey)
            self.shelf.save("background", number, {"sum": around})
        mask = self._mask("dendrite", classes, number)
        found = census.survey(mask, frame, self._least_voxels("dendrite"), grey)
        self.shelf.save("survey-dendrite", number, arrays_of(found))

    def merge_dendrites(self) -> None:
        """Which of them are one dendrite; small and dim ones are dropped."""
        self._keep("dendrite", self._without_dim(self._merged("dendrite")))

    def painted(self, number: int) -> dict[str, Labels]:
        """By role, the numbers of its objects in the voxels that a block owns."""
        frame, classes = self._seen(number)
        return {
            role: census.paint(self._mask(role, classes, number), frame, self._lookup(role, number))
            for role in ("dendrite", "soma")
        }

    def census(self, role: str) -> Census:
        """All objects of a role, without lookups."""
        return Census(ids=(), **self.shelf.load(f"census-{role}", 0))

    def discarded(self) -> dict[str, NDArray[np.generic]]:
        """How many dendrites were left out, by reason."""
        return self.shelf.load("discarded-dendrites", 0)

    def _seen(self, number: int) -> tuple[Frame, ClassImage]:
        inner, shape = self.blocks[number].inner, self.image.shape_zyx
        outer = census.survey_box(inner, shape)
        classes = ClassImage(self.image.classes(outer), self.image.roles)
        return Frame(outer, inner, shape, self.image.spacing), classes

    def _mask(self, role: str, classes: ClassImage, number: int) -> Mask:
        mask = classes.mask(role)
        if role == "soma":
            return mask
        return mask | census.dropped(classes.mask("soma"), self._lookup("soma", number))

    def _lookup(self, role: str, number: int) -> NDArray[np.uint32]:
        return np.asarray(self.shelf.load(f"ids-{role}", number)["ids"])

    def _least_voxels(self, role: str) -> float:
        known = self.params
        least_um3 = known.min_soma_volume_um3 if role == "soma" else known.min_dendrite_volume_um3
        return self.image.spacing.voxels_in(least_um3)

    def _merged(self, role: str) -> Census:
        surveys = (self.shelf.load(f"survey-{role}", block.number) for block in self.blocks)
        return census.merge([Survey(**one) for one in surveys], self._least_voxels(role))

    def _keep(self, role: str, objects: Census) -> None:
        for block, lookup in zip(self.blocks, objects.ids, strict=True):
            self.shelf.save(f"ids-{role}", block.number, {"ids": lookup})
        self.shelf.save(f"census-{role}", 0, arrays_of(dataclasses.replace(objects, ids=())))

    def _without_dim(self, dendrites: Census) -> Census:
        least = self.params.min_dendrite_brightness
        kept = np.ones(dendrites.count + 1, dtype=bool)
        if least > 0:
            parts = [self.shelf.load("background", block.number)["sum"] for block in self.blocks]
            background = np.sum(parts, axis=0)
            light, voxels = dendrites.light[1:], dendrites.voxels[1:]
            kept[1:] = brightness.relative_brightness(light, voxels, background) >= least
        count = np.asarray(np.count_nonzero(~kept))
        self.shelf.save("discarded-dendrites", 0, {"discarded_dim_dendrites": count})
        return dendrites.only(kept)
