"""Unpack a zip from anywhere: only a model's files, only where they belong, only so many bytes."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from respan_common.errors import ModelError
from respan_common.model_files import CHECKPOINTS

_MOST_ENTRIES = 10_000
"""A training with five folds and its validation images has hundreds."""
_MOST_BYTES = 64 * 2**30
"""Five folds of nnU-Net's largest network have 8 GB."""
_MOST_RATIO = 50
"""Weights shrink by a tenth and JSON to a tenth; more than this is a bomb ..."""
_SMALL_BYTES = 100 * 2**20
"""... unless it is so small that it does not matter."""
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz")
_JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
_WEIGHTS = set(CHECKPOINTS)
_TEXTS = (".json", ".yaml", ".md", ".txt", ".npy", ".png")


def unpack(archive: Path, target: Path) -> Path:
    """Unpack what may belong to a model into a new folder, which is returned.

    Raises
    ------
    ModelError
        If the file is no zip, is damaged, or holds what no model has: paths that lead elsewhere,
        links, devices, other archives, passwords, names that differ in case alone, or far more
        bytes than it seems.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = _checked(archive, content.infolist())
            _check_size(archive, content.infolist(), target.parent)
            for path, entry in entries:
                if _is_of_use(path):
                    _extract(content, entry, target / path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ModelError(
            f"{archive} cannot be unpacked ({error}): copy it again, or unpack it yourself and "
            "import the folder"
        ) from error
    target.mkdir(exist_ok=True)
    return target


def _checked(
    archive: Path, entries: list[zipfile.ZipInfo]
) -> list[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """Files with their paths, after a look at every entry."""
    if len(entries) > _MOST_ENTRIES:
        raise ModelError(f"{archive} holds {len(entries)} files, too many for a model")
    spellings: dict[str, str] = {}
    files = []
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        problem = _problem(path, entry) or _clash(path, spellings)
        if problem:
            raise ModelError(
                f"{archive} is refused: '{entry.filename}' {problem}. Unpack it with care, and "
                "import the folder"
            )
        if not entry.is_dir():
            files.append((path, entry))
    _check_nesting(archive, [path for path, _ in files])
    return files


def _problem(path: PurePosixPath, entry: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in str(path):
        return "would be written outside of the folder"
    if not str(path).isprintable():
        return "has a name with control characters"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if entry.flag_bits & 1:
        return "is protected by a password"
    if path.suffix.lower() in _ARCHIVES and not _is_junk(path):
        return "is an archive inside the archive"
    return ""


def _clash(path: PurePosixPath, spellings: dict[str, str]) -> str:
    """Whether a path or a folder above it is there already, in another spelling."""
    for part in (path, *path.parents):
        known = spellings.setdefault(str(part).casefold(), str(part))
        if known != str(part):
            return f"and '{known}' differ in upper and lower case alone"
    return ""


def _check_nesting(archive: Path, files: list[PurePosixPath]) -> None:
    taken = set(files)
    folders = {folder for path in files for folder in path.parents}
    if len(taken) < len(files) or taken & folders:
        raise ModelError(f"{archive} is refused: it has two entries of one name")


def _check_size(archive: Path, entries: list[zipfile.ZipInfo], folder: Path) -> None:
    size = sum(entry.file_size for entry in entries)
    packed = max(archive.stat().st_size, 1)
    if size > _MOST_BYTES or (size > _SMALL_BYTES and size / packed > _MOST_RATIO):
        raise ModelError(
            f"{archive} is refused: its {packed / 2**20:.1f} MB would become {size / 2**30:.1f} GB"
        )
    free = shutil.disk_usage(folder).free
    if 2 * size > free:  # once unpacked, once copied
        raise ModelError(
            f"{archive} needs {2 * size / 2**30:.1f} GB to be imported, but {folder.parent} has "
            f"{free / 2**30:.1f} GB left: free some space"
        )


def _is_junk(path: PurePosixPath) -> bool:
    """What operating systems add."""
    return path.parts[0] in _JUNK or path.name in _JUNK or path.name.startswith("._")


def _is_of_use(path: PurePosixPath) -> bool:
    known = path.name in _WEIGHTS or path.suffix in _TEXTS or path.name == "LICENSE"
    return known and not _is_junk(path)


def _extract(content: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write one file; the reader stops at the size that `_check_size` has seen."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with content.open(entry) as source, target.open("xb") as file:
        shutil.copyfileobj(source, file, 2**20)
