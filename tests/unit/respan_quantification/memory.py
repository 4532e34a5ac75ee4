"""An image, and a shelf for the recipe's parts, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from respan_common.geometry import Box, VoxelSpacing, Zyx
from respan_common.params import QuantificationParams
from respan_quantification.meshes import Mesh
from respan_quantification.pipeline import ImageTables, Recipe
from respan_quantification.walk import SHARE_OF_TIME


@dataclass
class MemoryImage:
    class_values: NDArray[np.uint8]
    raw: NDArray[Any]
    """Shape (c, z, y, x)."""
    spacing: VoxelSpacing
    roles: dict[str, int]
    block_zyx: Zyx
    doubt: NDArray[Any] | None = None
    sureness: NDArray[np.uint8] | None = None
    written: dict[str, NDArray[Any]] = field(default_factory=dict)
    meshes: dict[tuple[int, str], Mesh] = field(default_factory=dict)

    @property
    def shape_zyx(self) -> Zyx:
        z, y, x = self.class_values.shape
        return (z, y, x)

    @property
    def channels(self) -> int:
        return len(self.raw)

    def classes(self, box: Box) -> NDArray[np.uint8]:
        return self.class_values[box].copy()

    def grey(self, channel: int, box: Box) -> NDArray[Any]:
        return self.raw[channel - 1][box].copy()

    def uncertainty(self, box: Box) -> NDArray[Any] | None:
        return None if self.doubt is None else self.doubt[box].copy()

    def confidence(self, box: Box) -> NDArray[np.uint8] | None:
        return None if self.sureness is None else self.sureness[box].copy()

    def labels(self, group: str, box: Box) -> NDArray[np.uint32]:
        return self.written[group][box].copy()

    def write(self, group: str, box: Box, values: NDArray[Any], channel: int = 1) -> None:
        shape = self.shape_zyx if group.startswith("labels/") else (2, *self.shape_zyx)
        array = self.written.setdefault(group, np.zeros(shape, values.dtype))
        array[box if array.ndim == 3 else (channel - 1, *box)] = values

    def write_mesh(self, part: str, spine_id: int, mesh: Mesh) -> None:
        self.meshes[spine_id, part] = mesh


@dataclass
class MemoryShelf:
    arrays: dict[tuple[str, int], dict[str, NDArray[Any]]] = field(default_factory=dict)
    tables: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)

    def save(self, step: str, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays[step, number] = {name: np.asarray(array) for name, array in arrays.items()}

    def load(self, step: str, number: int) -> dict[str, NDArray[Any]]:
        return dict(self.arrays[step, number])

    def save_table(self, step: str, number: int, table: pd.DataFrame) -> None:
        self.tables[step, number] = table.copy()

    def load_table(self, step: str, number: int) -> pd.DataFrame:
        return self.tables[step, number].copy()


@dataclass(frozen=True)
class Quantified:
    """Everything about an image: tables, label images by name, numbers, warnings."""

    tables: ImageTables
    labels: dict[str, NDArray[Any]]
    numbers: dict[str, float]
    warnings: list[str]
    recipe: Recipe
    image: MemoryImage

    @property
    def spine_table(self) -> pd.DataFrame:
        return self.tables.spines

    @property
    def dendrite_table(self) -> pd.DataFrame:
        return self.tables.dendrites


def quantify_in_memory(image: MemoryImage, params: QuantificationParams) -> Quantified:
    """Take all steps, one piece after the other."""
    recipe = Recipe(image, MemoryShelf(), params)
    for step in SHARE_OF_TIME:
        for piece in recipe.pieces(step):
            recipe.do(step, piece)
    summary = recipe.summary()
    labels = {group.removeprefix("labels/"): array for group, array in image.written.items()}
    return Quantified(summary.tables, labels, summary.numbers, summary.warnings, recipe, image)
