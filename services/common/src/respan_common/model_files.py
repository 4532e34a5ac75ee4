"""Files of an nnU-Net model folder: JSON, weights, and a digest over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from respan_common.errors import ModelError

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""Names of weights, the preferred one first."""


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object.

    Raises
    ------
    ModelError
        If the file is missing or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path.parent} has no {path.name}: copy it from the training's result folder"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}): copy it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object: copy it again")
    return content


def checkpoints_of(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Weights of fold_all, else of every numbered fold; all of one name, as nnU-Net has it."""
    folds = (
        [path / "fold_all"] if (path / "fold_all").is_dir() else sorted(path.glob("fold_[0-9]*"))
    )
    for name in CHECKPOINTS:
        found = tuple(fold / name for fold in folds if (fold / name).is_file())
        if found:
            left_out = [fold.name for fold in folds if not (fold / name).is_file()]
            return found, tuple(f"{fold} of {path} has no {name}: left out" for fold in left_out)
    raise ModelError(
        f"{path} has no weights: expected {path / 'fold_all' / CHECKPOINTS[0]} "
        f"(or fold_0 ... fold_4, or {CHECKPOINTS[1]}); copy it from the training"
    )


def digest_of(path: Path, checkpoints: Iterable[Path], facts: str) -> str:
    """SHA-256 over names and contents of all files that a prediction depends on, and `facts`."""
    digest = hashlib.sha256(facts.encode())
    for file in (path / "dataset.json", path / "plans.json", *checkpoints):
        digest.update(f"\n{file.relative_to(path).as_posix()} {sha256_of(file)}".encode())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file; not computed again while size and time stamp stay."""
    status = path.stat()
    return _file_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, modified_ns: int) -> str:
    """SHA-256 of a file; size and time stamp are part of the cache's key only."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
