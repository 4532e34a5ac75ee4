"""Results of single blocks, kept in the draft until they are put together.

A part is a folder of .npy files, one per array, so that a reader maps only what it needs; tables
are Parquet. Nothing here is pickled: a store may come from anywhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Parts:
    """The parts of one draft, by step and number."""

    folder: Path

    def save(self, step: str, number: int, arrays: Arrays) -> None:
        """Keep arrays; they are there wholly or not at all."""
        target = self._path(step, number)
        fresh = target.with_name(f"{target.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, values in arrays.items():
            np.save(fresh / f"{name}.npy", values, allow_pickle=False)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)

    def load(self, step: str, number: int) -> dict[str, NDArray[Any]]:
        """Arrays that were kept, mapped from disk."""
        return {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
            for path in self._path(step, number).glob("*.npy")
        }

    def save_table(self, step: str, number: int, table: pd.DataFrame) -> None:
        """Keep a table."""
        target = self._path(step, number).with_suffix(".parquet")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        table.to_parquet(fresh, index=False)
        fresh.replace(target)

    def load_table(self, step: str, number: int) -> pd.DataFrame:
        """A table that was kept."""
        return pd.read_parquet(self._path(step, number).with_suffix(".parquet"))

    def _path(self, step: str, number: int) -> Path:
        return self.folder / step / f"{number:06d}"
