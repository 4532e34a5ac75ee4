"""Bring a model among those that can be called by name, from a folder or a zip.

What is copied is checked before anybody can name it, and appears by one rename. Whatever is left
of an import that was killed lies in a folder whose name begins with a dot, which is no model; the
next import clears it away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from respan_common.errors import ModelError
from respan_common.locks import exclusive
from respan_common.model_folders import ModelFolder, describe
from respan_orchestrator.model_archives import unpack
from respan_orchestrator.model_checks import refuse_useless
from respan_orchestrator.models import edges_of

KEPT = (
    "dataset_fingerprint.json",
    "training.json",
    "rdf.yaml",
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "cover.png",
    "test_input.npy",
    "test_output.npy",
)
"""Files that are copied if they are there, besides what a prediction needs."""
_PREFIX = ".importing-"
_NAME = re.compile(r"[\w][\w .+-]{0,99}")


def import_model(
    source: Path,
    roots: Sequence[Path],
    *,
    name: str = "",
    force: bool = False,
    said: Mapping[str, Any] | None = None,
) -> tuple[ModelFolder, list[str]]:
    """Copy a model into the first model root; give it as it is there, and warnings.

    Parameters
    ----------
    source
        An nnU-Net model folder, or a zip with one in it.
    name
        What to call it; empty: as the folder or zip.
    force
        Replace a model of that name.
    said
        Entries for its card that the user knows better: `spacing_um`, `label_scheme`.

    Raises
    ------
    ModelError
        If it is not a usable model, the name is taken or none, or there is no model root.
    """
    source = source.expanduser().absolute()
    if not roots:
        raise ModelError("there is no model root to import into: set RESPAN_MODEL_ROOTS")
    with _workplace(roots[0]) as place:
        folder, origin = _opened(source, place)
        draft = place / "model"
        try:
            model = describe(folder)
            name = name or _name_of(model, source, place)
            _check_name(name, roots, force=force)
            _copy(model, folder, draft, {**origin, **(said or {}), "name": name})
            warnings = [*refuse_useless(draft), *_unheard(describe(draft), said or {})]
        except ModelError as error:
            raise ModelError(_in_users_words(str(error), source, folder, draft)) from error
        _publish(draft, roots[0] / name, place)
    told = [_in_users_words(text, source, folder, draft) for text in warnings]
    return describe(roots[0] / name), told


@contextmanager
def _workplace(root: Path) -> Iterator[Path]:
    """An empty folder in the model root, for one import at a time; gone afterwards."""
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / ".imports.lock", lambda: None):
        for left in root.glob(f"{_PREFIX}*"):
            _clear(left)
        place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        try:
            yield place
        finally:
            _clear(place)


def _clear(place: Path) -> None:
    """Remove a workplace; a model that was being replaced and has no successor comes back."""
    for replaced in place.glob("replaced/*"):
        if not (place.parent / replaced.name).exists():
            replaced.rename(place.parent / replaced.name)
    shutil.rmtree(place, ignore_errors=True)


def _opened(source: Path, place: Path) -> tuple[Path, dict[str, Any]]:
    """Folder to look for the model in, and what the card says of its origin."""
    origin = {"from": str(source), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    if source.is_dir():
        return source, {"imported": {**origin, "digest": describe(source).digest}}
    if not source.is_file():
        raise ModelError(f"there is no {source}: give a model folder, or a zip of one")
    folder = _below(unpack(source, place / "unpacked"))
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return folder, {"imported": {**origin, "sha256": digest}}


def _below(folder: Path) -> Path:
    """The folder itself, or what lies in it if that is one folder alone: zips often nest."""
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir() and "__" not in inside[0].name:
        folder, inside = inside[0], list(inside[0].iterdir())
    return folder


def _name_of(model: ModelFolder, source: Path, place: Path) -> str:
    """The dataset's folder, not the trainer's, which is named alike for all models."""
    if source.is_dir():
        return source.parent.name if "__" in source.name else source.name
    above = model.path.relative_to(place / "unpacked").parts
    return next((part for part in reversed(above) if "__" not in part), source.stem)


def _check_name(name: str, roots: Sequence[Path], *, force: bool) -> None:
    if not _NAME.fullmatch(name) or name != name.strip():
        raise ModelError(
            f"'{name}' cannot be the name of a model: choose another --name of letters, digits, "
            "- and _"
        )
    taken = [root / name for root in roots if (root / name).exists()]
    if taken and not force:
        raise ModelError(
            f"there is a model '{name}' already ({taken[0]}): choose another --name, or replace "
            "it with --force"
        )


def _copy(model: ModelFolder, folder: Path, draft: Path, said: Mapping[str, Any]) -> None:
    """Copy what a prediction needs, and what explains the model."""
    if model.previous is None:
        _copy_stage(model, folder, draft, said)
        return
    first = model.previous.path.name
    trainer = first.rpartition("__")[0]
    _copy_stage(model.previous, folder, draft / first, said)
    _copy_stage(model, folder, draft / f"{trainer}__{model.configuration}", said)


def _copy_stage(model: ModelFolder, folder: Path, draft: Path, said: Mapping[str, Any]) -> None:
    files = [model.path / name for name in ("dataset.json", "plans.json")]
    files += [_nearest(name, model.path, folder) for name in KEPT]
    copies = {file: draft / file.name for file in files if file.is_file()}
    copies |= {path: draft / path.relative_to(model.path) for path in model.checkpoints}
    # The first stage of a cascade may lie beside the folder that was given.
    beside = model.path.parent.resolve() / model.path.name
    inside = folder.resolve() if model.path.is_relative_to(folder) else beside
    for file in (*copies, model.path / "card.json"):
        if not file.resolve().is_relative_to(inside):
            raise ModelError(f"{file} is a link out of the model folder: put the file itself there")
    for file, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    card = {"kind": "nnunet", **model.card, "configuration": model.configuration, **said}
    text = json.dumps(card, indent=1, ensure_ascii=False)
    (draft / "card.json").write_text(text + "\n", encoding="utf-8")


def _unheard(model: ModelFolder, said: Mapping[str, Any]) -> Iterator[str]:
    """What the user said in vain."""
    known = model.trained_um
    if known and "spacing_um" in said and known != tuple(said["spacing_um"]):
        yield f"the voxel size that was given is not used: its plans say {edges_of(known)} µm"


def _nearest(name: str, path: Path, folder: Path) -> Path:
    """A file beside the plans, else where the user pointed to: licenses lie there."""
    return path / name if (path / name).is_file() else folder / name


def _publish(draft: Path, target: Path, place: Path) -> None:
    if target.exists():
        (place / "replaced").mkdir()
        target.rename(place / "replaced" / target.name)
    os.rename(draft, target)


def _in_users_words(text: str, source: Path, folder: Path, draft: Path) -> str:
    """Errors name the file that the user gave, not the copy that was looked at."""
    return text.replace(str(draft), str(source)).replace(str(folder), str(source))
