"""Tables over many images: one row per image of a sub-folder, and of the whole experiment.

They are made anew from the images' own tables every time, so that no order of runs loses a row.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from respan_common.errors import VolumeFormatError
from respan_common.records import StageRecord, record_of
from respan_orchestrator.experiment import (
    ImageFile,
    image_paths,
    images_of,
    natural_order,
    stem_of,
)
from respan_orchestrator.ingest import STAGE as INGEST
from respan_orchestrator.table_export import (
    DENDRITES,
    SPINES,
    measured_spacing,
    read_table,
    write_csv,
)

logger = logging.getLogger(__name__)

_NOT_AVERAGED = (
    "spine_id",
    "x",
    "y",
    "z",
    "dendrite_id",
    "z_um",
    "y_um",
    "x_um",
    "position_on_dendrite_um",
)
_FIRST_COLUMNS = (
    "Filename",
    "res_XY",
    "res_Z",
    "dendrite_length",
    "dendrite_vol",
    "total_spines",
    "spines_per_um",
    "spines_per_um3",
)
_EXPERIMENT_COLUMNS = (
    "sub_folder",
    "image",
    "status",
    "error",
    "total_spines",
    "total_dendrites",
    "dendrite_length_um",
    "dendrite_volume_um3",
    "spines_per_um",
)


class ImageResult(Protocol):
    """What the experiment's table needs to know of an image."""

    @property
    def sub_folder(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def error(self) -> str: ...  # noqa: D102
    @property
    def numbers(self) -> Mapping[str, float]: ...  # noqa: D102


def write_sub_folder_summary(folder: Path) -> Path:
    """Write Tables/Detected_spines_summary.csv: every quantified image of a sub-folder.

    Lengths and volumes cover all dendrites, with and without spines. Means leave out what is
    missing; a mean over nothing is missing. A damaged result leaves its image's row empty.
    """
    rows = [_row(image) for image in images_of(folder) if not image.problem]
    table = pd.DataFrame([row for row in rows if row is not None])
    averages = [name for name in table.columns if name not in _FIRST_COLUMNS]
    table = table.reindex(columns=[*_FIRST_COLUMNS, *averages])
    return write_csv(table, folder / "Tables" / "Detected_spines_summary.csv")


def image_summary(image: ImageFile) -> dict[str, Any] | None:
    """Totals and means of one image; None if it has not been quantified as it is now."""
    if not _is_current(image.store, record_of(image.store, SPINES)):
        return None
    spines, dendrites = read_table(image.store, SPINES), read_table(image.store, DENDRITES)
    if spines is None or dendrites is None:
        return None
    spacing = measured_spacing(image.store)
    length_um = float(dendrites["dendrite_length"].sum())
    volume_um3 = float(dendrites["dendrite_volume"].sum())
    row: dict[str, Any] = {
        "Filename": image.name,
        "res_XY": spacing.x_um,
        "res_Z": spacing.z_um,
        "dendrite_length": length_um,
        "dendrite_vol": volume_um3,
        "total_spines": len(spines),
        "spines_per_um": _per(len(spines), length_um),
        "spines_per_um3": _per(len(spines), volume_um3),
    }
    measured = spines.drop(columns=list(_NOT_AVERAGED), errors="ignore").select_dtypes("float")
    return row | {f"avg_{name}": mean for name, mean in measured.mean().items()}


def write_experiment_summary(folder: Path, images: Iterable[ImageResult]) -> Path:
    """Write Experiment_summary.csv: what became of every image, also of those that failed.

    Images that this run left out keep the row of the run before, as long as they are there.
    """
    rows: list[dict[str, Any]] = [
        {
            "sub_folder": image.sub_folder,
            "image": image.name,
            "status": image.status,
            "error": image.error,
            "total_spines": image.numbers.get("spines"),
            "total_dendrites": image.numbers.get("dendrites"),
            "dendrite_length_um": image.numbers.get("dendrite_length_um"),
            "dendrite_volume_um3": image.numbers.get("dendrite_volume_um3"),
            "spines_per_um": _per(
                image.numbers.get("spines"), image.numbers.get("dendrite_length_um")
            ),
        }
        for image in images
    ]
    path = folder / "Experiment_summary.csv"
    rows = [*_rows_of_others(path, {(row["sub_folder"], row["image"]) for row in rows}), *rows]
    rows.sort(key=lambda row: (natural_order(row["sub_folder"]), natural_order(row["image"])))
    table = pd.DataFrame(rows, columns=list(_EXPERIMENT_COLUMNS))
    counts = {"total_spines": "Int64", "total_dendrites": "Int64"}
    return write_csv(table.astype(counts), path)


def _rows_of_others(path: Path, done: set[tuple[str, str]]) -> list[dict[str, Any]]:
    try:
        # An image may be named NA: only an empty field is missing.
        words = dict.fromkeys(_EXPERIMENT_COLUMNS[:4], str)
        table = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=[""])
    except (FileNotFoundError, ValueError):
        return []  # no earlier run, or not a table of ours
    if list(table.columns) != list(_EXPERIMENT_COLUMNS):
        return []
    return [
        {str(key): value for key, value in row.items()}
        for row in table.to_dict("records")
        if (row["sub_folder"], row["image"]) not in done
        and _has_image(path.parent, str(row["sub_folder"]), str(row["image"]))
    ]


def _has_image(experiment: Path, sub_folder: str, name: str) -> bool:
    folder = experiment / sub_folder
    if not folder.is_dir() and sub_folder == experiment.name:
        folder = experiment
    return folder.is_dir() and any(stem_of(path) == name for path in image_paths(folder))


def _row(image: ImageFile) -> dict[str, Any] | None:
    try:
        return image_summary(image)
    except VolumeFormatError as error:
        logger.warning("no summary of %s: %s", image.path, error)
        return {"Filename": image.name}


def _is_current(store: Path, record: StageRecord | None) -> bool:
    """Whether a result was made from what is in the store now, back to the image file.

    A later stage that failed, or has not run yet, leaves results of an earlier run behind.
    """
    if record is None or record.stage == INGEST:
        return record is not None
    names = {"raw": "", "classes": "labels/classes"}
    for name, digest in record.inputs.items():
        source = record_of(store, names.get(name, name))
        if source is None or source.digest != digest or not _is_current(store, source):
            return False
    return True


def _per(count: float | None, amount: float | None) -> float | None:
    """Density; missing where a part is missing or there is nothing to divide by."""
    return count / amount if count is not None and amount else None
