"""Find a request's models, identify them by content, and keep the loaded ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respan_common.devices import torch_device
from respan_common.errors import ModelError
from respan_common.params import RestorationParams
from respan_common.settings import Runtime
from respan_restoration import care

if TYPE_CHECKING:
    from respan_restoration.selfnet import SelfNet

_FOLDERS_DEEP = 3


@dataclass(frozen=True)
class Models:
    """Models of one request, not yet loaded."""

    folders: dict[int, care.CareFolder]
    """CARE models by channel."""
    axial: Path | None
    """Self-Net checkpoint."""

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 over the files of each model."""
        found = {f"care {channel}": _sha256(it.files) for channel, it in self.folders.items()}
        return found | ({"axial": _sha256([self.axial])} if self.axial else {})

    @property
    def digest(self) -> str:
        """SHA-256 over all of them, and what each is for."""
        return hashlib.sha256(json.dumps(self.digests, sort_keys=True).encode()).hexdigest()

    def load_care(self, channel: int, runtime: Runtime) -> care.CareModel:
        """Model of a channel; one that is in memory already is used again."""
        return _load_care(self.folders[channel].path, self.digests[f"care {channel}"], runtime)

    def load_axial(self, runtime: Runtime) -> SelfNet:
        """Self-Net, likewise."""
        assert self.axial is not None
        return _load_axial(self.axial, self.digests["axial"], runtime)


def find(params: RestorationParams) -> Models:
    """Check the models that a request names.

    Raises
    ------
    ModelError
        If one of them is missing, incomplete or of another kind.
    """
    folders = {
        channel: care.open_folder(Path(path)) for channel, path in params.care_models.items()
    }
    axial = Path(params.axial_model) if params.axial_model else None
    if axial is not None and not axial.is_file():
        raise ModelError(f"there is no Self-Net checkpoint at {axial}")
    return Models(dict(sorted(folders.items())), axial)


def offered(roots: Sequence[Path]) -> list[str]:
    """CARE folders and Self-Net checkpoints at most three folders below the roots."""
    found: list[str] = []
    for root in roots:
        for depth in range(_FOLDERS_DEEP):
            configs = root.glob("*/" * depth + "config.json")
            found += [str(config.parent) for config in configs if _is_care(config.parent)]
            found += [str(it) for it in root.glob("*/" * depth + "*.pkl")]
    return sorted(found)


def _is_care(path: Path) -> bool:
    try:
        care.open_folder(path)
    except ModelError:
        return False
    return True


# The digest is part of what is remembered: a model trained anew at the same place is read anew.
@lru_cache(maxsize=4)
def _load_care(path: Path, digest: str, runtime: Runtime) -> care.CareModel:
    return care.load(care.open_folder(path), runtime.device, runtime.thread_count)


@lru_cache(maxsize=2)
def _load_axial(path: Path, digest: str, runtime: Runtime) -> SelfNet:
    from respan_restoration.selfnet import load_network  # PyTorch: only a worker pays for it

    return load_network(path, torch_device(runtime))


def _sha256(files: Iterable[Path]) -> str:
    digest: Any = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while part := content.read(2**20):
                digest.update(part)
    return str(digest.hexdigest())
