"""Results of single blocks, kept in the draft until they are put together.

A part is a folder of .npy files, one per array, so that a reader maps only what it needs; tables
are Parquet. Nothing here is pickled: a store may come from anywhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from respan_common.locks import exclusive_if_free

if TYPE_CHECKING:
    import pandas as pd

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
        import pandas as pd  # the server names the stage without it

        return pd.read_parquet(self._path(step, number).with_suffix(".parquet"))

    def is_done(self, step: str, number: int) -> bool:
        """Whether this piece of work is finished, by whomever."""
        return self._path(step, number).with_suffix(".done").exists()

    def mark_done(self, step: str, number: int) -> None:
        """Say that this piece of work is finished and on disk."""
        self._path(step, number).with_suffix(".done").touch()

    @contextmanager
    def claimed(self, step: str, number: int) -> Iterator[bool]:
        """Hold a piece of work that is not done yet; gives whether that succeeded.

        The kernel frees what a killed process had claimed.
        """
        with exclusive_if_free(self._path(step, number).with_suffix(".lock")) as mine:
            yield mine and not self.is_done(step, number)

    def open_step(self, digest: str, step: str) -> None:
        """Let others with the same work join this step."""
        (self.folder / step).mkdir(parents=True, exist_ok=True)
        fresh = self.folder / "open.json.new"
        fresh.write_text(json.dumps({"digest": digest, "step": step}), encoding="utf-8")
        fresh.replace(self.folder / "open.json")

    def close(self) -> None:
        """Let nobody join any more."""
        (self.folder / "open.json").unlink(missing_ok=True)

    def step_to_join(self, digest: str) -> str | None:
        """Step that somebody with the same work has opened."""
        try:
            said = json.loads((self.folder / "open.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return str(said["step"]) if said["digest"] == digest else None

    def _path(self, step: str, number: int) -> Path:
        return self.folder / step / f"{number:06d}"
