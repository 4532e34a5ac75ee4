"""What the recipe asks of the world: an image to read and write, and a shelf between its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx
from respan_quantification.meshes import Mesh
from respan_quantification.objects import Labels

Arrays = Mapping[str, NDArray[Any]]


class Image(Protocol):
    """One image's volumes, all on the grid of its class image. Boxes are in its voxels."""

    @property
    def shape_zyx(self) -> Zyx:
        """Voxels along each axis."""

    @property
    def block_zyx(self) -> Zyx:
        """Voxels of a block: what has one writer."""

    @property
    def spacing(self) -> VoxelSpacing:
        """Voxel size."""

    @property
    def channels(self) -> int:
        """Channels of the raw image."""

    @property
    def roles(self) -> dict[str, int]:
        """Value of each role in the class image."""

    def classes(self, box: Box) -> NDArray[np.uint8]:
        """Class values, shape (z, y, x)."""

    def grey(self, channel: int, box: Box) -> NDArray[Any]:
        """Raw values of a channel, counted from 1."""

    def uncertainty(self, box: Box) -> NDArray[Any] | None:
        """The model's doubt, if there is an image of it."""

    def confidence(self, box: Box) -> NDArray[np.uint8] | None:
        """How sure the model is of each voxel of a spine (255: certain), if there is an image."""

    def labels(self, group: str, box: Box) -> Labels:
        """Labels that an earlier step wrote."""

    def write(self, group: str, box: Box, values: NDArray[Any], channel: int = 1) -> None:
        """Write a block of a label image or of a channel."""

    def write_mesh(self, part: str, spine_id: int, mesh: Mesh) -> None:
        """Write the surface of a spine, head or neck."""


class Shelf(Protocol):
    """Where pieces of work leave their results for later steps, by step and number."""

    def save(self, step: str, number: int, arrays: Arrays) -> None:
        """Keep arrays; they are there wholly or not at all."""

    def load(self, step: str, number: int) -> dict[str, NDArray[Any]]:
        """Arrays that were kept."""

    def save_table(self, step: str, number: int, table: pd.DataFrame) -> None:
        """Keep a table."""

    def load_table(self, step: str, number: int) -> pd.DataFrame:
        """A table that was kept."""


def arrays_of(result: Any) -> dict[str, NDArray[Any]]:
    """The fields of a result as arrays; empty tuples are left out."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {
        name: np.asarray(value)
        for name, value in values.items()
        if isinstance(value, (np.ndarray, float, int))
    }
