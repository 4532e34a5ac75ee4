"""From a finished draft to the store: outputs first, the completion record last.

On a file system, outputs are renamed into the store. A bucket knows no renaming: they are uploaded,
after the record that vouched for older ones is gone, and the draft is kept until the new record is
there. Either way a crash leaves nothing that is believed, and the next attempt finishes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from respan_common import ngff
from respan_common.buckets import BucketPath, Location
from respan_common.errors import StorageError
from respan_common.locks import exclusive
from respan_common.pieces import Pieces
from respan_common.records import (
    FOLDER,
    StageRecord,
    is_intact,
    read_record,
    record_path,
    write_text_durably,
)
from respan_common.settings import StoreSettings
from respan_common.volumes import group_json, write_group_attributes

_LISTS = (("labels", ngff.labels_group_attributes), ("tables", ngff.tables_group_attributes))
"""Groups that list what is in them."""


def workspace(store: Location) -> Path:
    """Folder for locks and unfinished work on a store: in it, or for buckets on a disk here.

    Raises
    ------
    StorageError
        If there is no such disk.
    """
    if isinstance(store, Path):
        return store / FOLDER
    folder = StoreSettings().scratch_folder / store.bucket / store.key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made ({error.strerror}): set RESPAN_SCRATCH to a folder on a disk "
            "with room for the results of an image"
        ) from error
    return folder


def publish(store: Location, folder: Path, record: StageRecord, *, is_new_store: bool) -> None:
    """Move a draft's outputs into the store, and write the record."""
    if isinstance(store, BucketPath):
        _upload(store, folder, record, is_new_store=is_new_store)
    elif is_new_store:
        _replace_store(store, folder, record)
    else:
        _move_into_place(store, folder, record)


def intent_of(folder: Path) -> Path:
    """Where a draft keeps the record that it is about to publish."""
    return folder / FOLDER / "publishing.json"


def _replace_store(store: Path, folder: Path, record: StageRecord) -> None:
    write_text_durably(record_path(folder, record.stage), record.model_dump_json(indent=1))
    _list_members(folder)
    intent_of(folder).unlink(missing_ok=True)
    _replace(folder, store)


def _move_into_place(store: Path, folder: Path, record: StageRecord) -> None:
    _remove_outdated(store, record)
    record_path(store, record.stage).unlink(missing_ok=True)
    for output in record.outputs:
        if (folder / output).exists():  # else an interrupted attempt has moved it already
            _replace(folder / output, store / output)
    _list_members(store)
    write_text_durably(record_path(store, record.stage), record.model_dump_json(indent=1))
    _drop(folder)


def _upload(store: BucketPath, folder: Path, record: StageRecord, *, is_new_store: bool) -> None:
    if _has_been_published(store, record):  # by another replica, meanwhile
        _drop(folder)
        return
    there = list(store.files())
    if is_new_store:
        store.remove(name for name in there if name.startswith(f"{FOLDER}/"))
        store.remove(name for name in there if not name.startswith(f"{FOLDER}/"))
    else:
        old = read_record(store, record.stage)
        replaced = {*record.outputs, *(old.outputs if old is not None else ())}
        record_path(store, record.stage).unlink(missing_ok=True)
        store.remove(name for name in there if _is_of(name, replaced))
    store.upload(_files(folder, record.outputs))
    _list_members_of_bucket(store)
    write_text_durably(record_path(store, record.stage), record.model_dump_json(indent=1))
    _drop(folder)


def _has_been_published(store: BucketPath, record: StageRecord) -> bool:
    there = read_record(store, record.stage)
    return there is not None and there.digest == record.digest and is_intact(store, there)


def _is_of(name: str, outputs: set[str]) -> bool:
    """Whether a file of a store is one of the outputs, or lies in one."""
    path = PurePosixPath(name)
    return not outputs.isdisjoint([name, *(str(parent) for parent in path.parents)])


def _files(folder: Path, outputs: Iterable[str]) -> dict[str, Path]:
    """Files of a draft's outputs, by their names in the store."""
    found: dict[str, Path] = {}
    for output in outputs:
        # The raw image's levels and its metadata lie beside what is never published.
        tops = (
            [folder / output]
            if output
            else [folder / "zarr.json", *(top for top in folder.glob("[0-9]*") if top.is_dir())]
        )
        for top in tops:
            files = [top] if top.is_file() else [p for p in top.rglob("*") if p.is_file()]
            found |= {path.relative_to(folder).as_posix(): path for path in files}
    return found


def _drop(folder: Path) -> None:
    Pieces(folder).marker.unlink(missing_ok=True)  # first: half a draft is no draft
    shutil.rmtree(folder, ignore_errors=True)


def _remove_outdated(store: Path, record: StageRecord) -> None:
    """Remove what the stage published the last time and does not publish any more."""
    old = read_record(store, record.stage)
    for output in set(old.outputs) - set(record.outputs) if old is not None else ():
        target = store / output
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    trash = target.with_name(f".{target.name}.old")
    if target.is_dir():
        shutil.rmtree(trash, ignore_errors=True)
        target.rename(trash)
    source.replace(target)
    shutil.rmtree(trash, ignore_errors=True)  # an interrupted attempt may have left one, too


def _list_members(store: Path) -> None:
    """Have the groups of labels and of tables list what is in them."""
    for group, attributes_of in _LISTS:
        if not (store / group).is_dir():
            continue
        with exclusive(store / FOLDER / f"{group}.lock", lambda: None):
            names = [path.parent.name for path in (store / group).glob("[!.]*/zarr.json")]
            write_group_attributes(store / group, attributes_of(names))


def _list_members_of_bucket(store: BucketPath) -> None:
    there = [PurePosixPath(name).parts for name in store.files()]
    for group, attributes_of in _LISTS:
        inside = [parts[1:] for parts in there if parts[0] == group]
        names = [parts[0] for parts in inside if parts[1:] == ("zarr.json",)]
        if inside:
            write_text_durably(store / group / "zarr.json", group_json(attributes_of(names)))
