"""Training data in nnU-Net's layout: cases, label names, voxel sizes. Reads, never writes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.errors import InputError, VolumeFormatError
from respan_common.geometry import VoxelSpacing
from respan_common.schemes import SCHEMES
from respan_training.tiffs import read_spacing, read_volume

UNKNOWN = VoxelSpacing(1.0, 1.0, 1.0)
"""Voxel size of data that says nothing about it: what nnU-Net assumes, too."""

Check = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """One volume with its truth, as files."""

    name: str
    images: tuple[Path, ...]
    """One file per channel."""
    labels: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that belongs to the case."""
        return (*self.images, self.labels)


@dataclass(frozen=True)
class LabeledVolume:
    """One case in memory."""

    image: NDArray[np.float32]
    """(c, z, y, x)"""
    labels: NDArray[np.float32]
    """(z, y, x); class values, float as nnU-Net's own readers give them."""
    spacing: VoxelSpacing


@dataclass(frozen=True)
class TrainingSet:
    """A folder of cases, understood."""

    cases: tuple[Case, ...]
    description: dict[str, Any]
    """dataset.json as nnU-Net wants it."""
    digest: str
    """sha256 of every file's name and content and of the description."""
    has_spacing: bool
    """Whether the files say how large a voxel is."""
    warnings: tuple[str, ...] = ()


def read_training_set(folder: Path, check: Check = lambda: None) -> TrainingSet:
    """Understand a folder with `imagesTr`, `labelsTr` and perhaps `dataset.json`.

    Without `dataset.json` the label names follow from the values that occur in all label files.

    Parameters
    ----------
    check
        Called between files; may raise to stop.

    Raises
    ------
    InputError
        If files are missing, or do not fit one another or `dataset.json`.
    """
    given = _given_description(folder)
    cases = _find_cases(folder, given.get("file_ending"))
    values = _values_in(cases, check)
    labels, warnings = _label_names(given.get("labels"), values, folder)
    channels = given.get("channel_names") or given.get("modality") or _channel_names(cases)
    if len(channels) != len(cases[0].images):
        raise InputError(
            f"{folder}/dataset.json names {len(channels)} channels, but {cases[0].name} has "
            f"{len(cases[0].images)} image files"
        )
    description = {
        **{key: given[key] for key in ("regions_class_order",) if key in given},
        "channel_names": channels,
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": cases[0].labels.suffix,
        "overwrite_image_reader_writer": "Tiff3DIO",
    }
    has_spacing = _all_say_spacing(cases)
    if not has_spacing:
        warnings.append(
            "no training file says how large a voxel is: 1 × 1 × 1 is assumed, so the model fits "
            "only images of the same voxel size (add <case>.json with {'spacing': [z, y, x]})"
        )
    return TrainingSet(
        cases, description, _digest(cases, description, check), has_spacing, tuple(warnings)
    )


def read_case(case: Case, has_spacing: bool) -> LabeledVolume:
    """Load one case.

    Raises
    ------
    VolumeFormatError
        If its files differ in shape.
    """
    channels = [read_volume(path)[0] for path in case.images]
    labels, _ = read_volume(case.labels)
    if len({array.shape for array in (*channels, labels)}) != 1:
        shapes = {
            path.name: a.shape for path, a in zip(case.files, (*channels, labels), strict=True)
        }
        raise VolumeFormatError(f"the files of case {case.name} differ in shape: {shapes}")
    spacing = _case_spacing(case) if has_spacing else UNKNOWN
    return LabeledVolume(
        np.stack(channels).astype(np.float32), labels.astype(np.float32), spacing or UNKNOWN
    )


def _given_description(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _find_cases(folder: Path, ending: str | None) -> tuple[Case, ...]:
    labels = sorted(
        path
        for path in (folder / "labelsTr").glob("*")
        if path.suffix in ([ending] if ending else [".tif", ".tiff"]) and path.name[0] != "."
    )
    if not labels:
        raise InputError(f"{folder}/labelsTr has no {ending or '.tif'} files: nothing to train on")
    cases = tuple(Case(path.stem, _images_of(folder, path), path) for path in labels)
    counts = {case.name: len(case.images) for case in cases}
    if len(set(counts.values())) != 1:
        raise InputError(f"the cases have different numbers of channels: {counts}")
    return cases


def _images_of(folder: Path, label: Path) -> tuple[Path, ...]:
    pattern = re.compile(rf"{re.escape(label.stem)}_\d{{4}}{re.escape(label.suffix)}")
    images = sorted(p for p in (folder / "imagesTr").glob("*") if pattern.fullmatch(p.name))
    if not images:
        raise InputError(
            f"{label} has no image: {folder}/imagesTr/{label.stem}_0000{label.suffix} is missing"
        )
    return tuple(images)


def _channel_names(cases: tuple[Case, ...]) -> dict[str, str]:
    return {str(index): f"channel{index + 1}" for index in range(len(cases[0].images))}


def _values_in(cases: Iterable[Case], check: Check) -> set[int]:
    values: set[int] = set()
    for case in cases:
        check()
        labels, _ = read_volume(case.labels)
        if labels.dtype.kind not in "ui" or labels.min() < 0:
            raise InputError(
                f"{case.labels} holds {labels.dtype}; class values are whole numbers ≥ 0"
            )
        # Plane by plane: bincount widens to 64 bits.
        for plane in labels:
            values.update(np.flatnonzero(np.bincount(plane.ravel())).tolist())
    return values


def _label_names(
    given: dict[str, Any] | None, values: set[int], folder: Path
) -> tuple[dict[str, Any], list[str]]:
    if given is None:
        return _guessed_names(values, folder)
    declared = set(np.hstack([np.ravel(value) for value in given.values()]).astype(int).tolist())
    if values - declared:
        raise InputError(
            f"{folder}/labelsTr holds class values {sorted(values - declared)} that "
            f"{folder}/dataset.json does not name; it names {given}"
        )
    return given, []


def _guessed_names(values: set[int], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Names from the smallest of RESPAN's model types that has all values."""
    highest = max(values)
    number = next((n for n, top in ((2, 1), (1, 3), (3, 4), (4, 6)) if highest <= top), None)
    if highest < 1 or number is None:
        raise InputError(
            f"{folder}/labelsTr holds class values {sorted(values)}, which no model type of RESPAN "
            "has: name them in dataset.json ({'labels': {'background': 0, 'dendrite': 1, ...}})"
        )
    # nnU-Net wants values without gaps, so a class that never occurs keeps its place.
    scheme = {role: value for role, value in SCHEMES[number].items() if value <= highest}
    warning = (
        f"label names follow RESPAN's model type {number}: {scheme}; dataset.json can say otherwise"
    )
    return {"background": 0, **scheme}, [warning]


def _all_say_spacing(cases: tuple[Case, ...]) -> bool:
    silent = [case.name for case in cases if _case_spacing(case) is None]
    if silent and len(silent) < len(cases):
        raise InputError(
            f"the voxel size of {', '.join(silent[:5])} is unknown while other cases have one: add "
            "<case>.json with {'spacing': [z, y, x]} in µm beside the images"
        )
    return not silent


def _case_spacing(case: Case) -> VoxelSpacing | None:
    """Voxel size from nnU-Net's sidecar, which goes first, or from the first image itself."""
    sidecar = case.images[0].with_name(f"{case.name}.json")
    if sidecar.exists():
        return VoxelSpacing(*map(float, json.loads(sidecar.read_text())["spacing"]))
    return read_spacing(case.images[0])


def _digest(cases: Iterable[Case], description: dict[str, Any], check: Check) -> str:
    total = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for case in cases:
        total.update(repr(_case_spacing(case)).encode())
        for path in case.files:
            check()
            with path.open("rb") as file:
                total.update(
                    f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
                )
    return total.hexdigest()
