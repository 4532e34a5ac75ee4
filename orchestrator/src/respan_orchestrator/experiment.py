"""Which folders and images an experiment has. Looks at names only; images are opened by `tiff`.

MyExperiment/                 the experiment: a parent folder, or one sub-folder itself
  Animal_A/                   a sub-folder: images, settings, and RESPAN's output folders
    Analysis_Settings.yaml
    dendrite0.tif
    Zarr/dendrite0.ome.zarr
"""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from respan_common.buckets import Location
from respan_common.errors import InputError
from respan_common.settings import StoreSettings
from respan_orchestrator.analysis_settings import AnalysisSettings, load_settings
from respan_orchestrator.settings_file import NAMES

OUTPUT_FOLDERS = (
    "Tables",
    "Validation_Data",
    "Spine_Arrays",
    "SWC_files",
    "Zarr",
    "nnUnet_input",
    "nnUnet_2nd_pass",
    "Plots",
    "Registered",
    "selfnet",
    "Report",
)
"""Folders that RESPAN or this project writes into a sub-folder; never searched for images."""

_OUTPUT_NAMES = {name.lower() for name in OUTPUT_FOLDERS}
_EXTENSION = re.compile(r"(\.ome)?\.tiff?$", re.IGNORECASE)


@dataclass(frozen=True)
class ImageFile:
    """One image of a sub-folder."""

    path: Path
    problem: str = ""
    """Why it cannot be analyzed; empty: nothing is known against it."""

    @property
    def name(self) -> str:
        """File name without its extension: what every output is named after."""
        return stem_of(self.path)

    @property
    def store(self) -> Location:
        """The image's OME-Zarr."""
        return store_at(self.path.parent, self.name)


@dataclass(frozen=True)
class SubFolder:
    """One sub-folder of an experiment, such as an animal or a condition."""

    path: Path
    images: tuple[ImageFile, ...]
    parent: Path | None = None
    """Folder whose settings stand in if the sub-folder has none."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.name

    def settings(self) -> AnalysisSettings:
        """Settings of this sub-folder; SettingsError if there are none or they are wrong."""
        return load_settings(self.path, self.parent)


@dataclass(frozen=True)
class Experiment:
    """What is to be analyzed."""

    path: Path
    sub_folders: tuple[SubFolder, ...]
    warnings: tuple[str, ...] = ()


def scan_experiment(folder: Path) -> Experiment:
    """Find sub-folders and images.

    Every child folder with images or settings is a sub-folder. Without such children, the folder
    itself is the only one.

    Raises
    ------
    InputError
        If there is no such folder, it cannot be read, or there is no image in it.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise InputError(f"{folder} is {what}; give the folder of an experiment")
    children = [child for child in _listed(folder) if _may_be_sub_folder(child)]
    children = [child for child in children if image_paths(child) or has_settings(child)]
    if not children:
        return _single(folder)
    found = tuple(SubFolder(child, images_of(child), parent=folder) for child in children)
    if not any(sub_folder.images for sub_folder in found):
        raise InputError(f"no sub-folder of {folder} has images (.tif or .tiff)")
    return Experiment(folder, found, tuple(_warnings(folder, found)))


def store_at(folder: Path, name: str) -> Location:
    """OME-Zarr of an image whose results lie in a folder: in Zarr/ there, or in the bucket."""
    volumes = StoreSettings().volumes
    if volumes is None:
        return folder / "Zarr" / f"{name}.ome.zarr"
    # Under its whole path: two experiments may have folders and images of the same names.
    place = volumes
    for part in folder.resolve().parts[1:]:
        place /= part
    return place / f"{name}.ome.zarr"


def check_writable(folder: Path) -> None:
    """Raise InputError if nothing can be written to a folder; better now than after hours."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}); results lie beside the images, so "
            f"change its permissions or copy the experiment to another place"
        ) from error


def image_paths(folder: Path) -> list[Path]:
    """Image files of a folder in natural order: dendrite2 before dendrite10."""
    return [
        path
        for path in _listed(folder)
        if _EXTENSION.search(path.name) and not path.name.startswith(".") and path.is_file()
    ]


def images_of(folder: Path) -> tuple[ImageFile, ...]:
    """Images of a folder; those whose outputs would have the same name carry that problem."""
    paths = image_paths(folder)
    same: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        same[_same_name(path)].append(path)
    return tuple(ImageFile(path, _name_clash(same[_same_name(path)])) for path in paths)


def has_settings(folder: Path) -> bool:
    """Whether a folder has a settings file of either name."""
    return any((folder / name).is_file() for name in NAMES)


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorting key under which 2 comes before 10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def stem_of(path: Path) -> str:
    """File name without .tif, .tiff, .ome.tif or .ome.tiff, in whatever case."""
    return _EXTENSION.sub("", path.name)


def _single(folder: Path) -> Experiment:
    images = images_of(folder)
    if not images:
        raise InputError(f"{folder} has no images (.tif or .tiff), and no sub-folder with images")
    return Experiment(folder, (SubFolder(folder, images),))


def _same_name(path: Path) -> str:
    # On Windows and macOS, A and a are one file, and so are two spellings of é.
    return unicodedata.normalize("NFC", stem_of(path)).casefold()


def _name_clash(paths: list[Path]) -> str:
    if len(paths) == 1:
        return ""
    names = " and ".join(path.name for path in paths)
    return f"{names} would write the same outputs; rename all but one of them"


def _warnings(folder: Path, found: tuple[SubFolder, ...]) -> list[str]:
    loose = image_paths(folder)
    warnings = [
        f"{sub_folder.path} has settings, but no images"
        for sub_folder in found
        if not sub_folder.images
    ]
    if loose:
        warnings.append(
            f"{len(loose)} image{'s' if len(loose) > 1 else ''} directly in {folder} "
            f"({loose[0].name}{', ...' if len(loose) > 1 else ''}) ignored, because it has "
            f"sub-folders; move them into one"
        )
    return warnings


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: natural_order(path.name))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _may_be_sub_folder(path: Path) -> bool:
    is_output = path.name.lower() in _OUTPUT_NAMES or path.suffix.lower() == ".zarr"
    return path.is_dir() and not is_output and not path.name.startswith(".")
