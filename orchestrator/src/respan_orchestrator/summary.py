"""Tables over many images: rows of images in a sub-folder, and of everything in the experiment.

They are made anew from the images' own tables every time, so that no order of runs loses a row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from respan_common.buckets import Location
from respan_common.errors import VolumeFormatError
from respan_common.records import StageRecord, record_of
from respan_orchestrator.conditions import CONDITION, Conditions
from respan_orchestrator.experiment import (
    ImageFile,
    image_paths,
    images_of,
    natural_order,
    stem_of,
)
from respan_orchestrator.ingest import STAGE as INGEST
from respan_orchestrator.pooling import pooled, ratio
from respan_orchestrator.rule_sets import RuleSet
from respan_orchestrator.table_export import (
    SPINES,
    ImageTables,
    image_tables,
    measured_spacing,
    published_name,
    write_csv,
)

logger = logging.getLogger(__name__)

Row = dict[str, Any]
RulesOf = Callable[[str], RuleSet | None]
"""Rules of spine shapes that hold in the sub-folder of that name."""

RESPANS = (
    "Filename",
    "res_XY",
    "res_Z",
    "dendrite_length",
    "dendrite_vol",
    "total_spines",
    "spines_per_um",
    "spines_per_um3",
)
"""First columns of a sub-folder's table."""

BASE = (
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
"""First columns of the experiment's table."""

RESERVED = (*RESPANS, *BASE, "experiment", "images", "images_failed", "shape_rules")
"""Columns of these tables that labels of conditions may not be called."""

_WORDS = BASE[:4]
_COUNTS = ("total_spines", "total_dendrites")
_SUMMED = ("branches", "tips", "forks", "usable_length_um", "usable_spines")
_KINDS = "spines_"
"""How the names of columns begin that count a kind of spines."""


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


def write_sub_folder_summary(folder: Path, rules: RuleSet | None = None) -> Path:
    """Write Tables/Detected_spines_summary.csv: every quantified image of a sub-folder.

    Lengths and volumes cover all dendrites, with and without spines. Means leave out what is
    missing; a mean over nothing is missing. A damaged result leaves its image's row empty.
    """
    rows = [_row(image, rules) for image in images_of(folder) if not image.problem]
    table = pd.DataFrame([row for row in rows if row is not None])
    table = table.reindex(columns=_in_order(table.columns, RESPANS))
    return write_csv(_counted(table), folder / "Tables" / "Detected_spines_summary.csv")


def image_summary(image: ImageFile, rules: RuleSet | None = None) -> Row | None:
    """Totals, means with n and missing counts of one image; None if its result is not of now."""
    if not _is_current(image.store, record_of(image.store, published_name(image.store, SPINES))):
        return None
    tables = image_tables(image.store, rules)
    if tables is None:
        return None
    spacing = measured_spacing(image.store)
    length_um = float(tables.dendrites["dendrite_length"].sum())
    volume_um3 = float(tables.dendrites["dendrite_volume"].sum())
    return {
        "Filename": image.name,
        "res_XY": spacing.x_um,
        "res_Z": spacing.z_um,
        "dendrite_length": length_um,
        "dendrite_vol": volume_um3,
        "total_spines": len(tables.spines),
        "spines_per_um": ratio(len(tables.spines), length_um),
        "spines_per_um3": ratio(len(tables.spines), volume_um3),
        **_means(tables),
        "total_dendrites": len(tables.dendrites),
        **_sums(tables.dendrites),
        **_counts(tables),
        **({"shape_rules": rules.name} if rules else {}),
    }


def experiment_rows(
    folder: Path,
    images: Iterable[ImageResult],
    conditions: Conditions | None = None,
    rules_of: RulesOf = lambda sub_folder: None,
) -> list[Row]:
    """One row per image: what became of it, its labels, its totals and means.

    Images that are not given keep what an earlier Experiment_summary.csv says became of them, as
    long as they are there.
    """
    rows = [outcome_row(image) for image in images]
    given = {(row["sub_folder"], row["image"]) for row in rows}
    rows = [*_rows_of_others(folder / "Experiment_summary.csv", given), *rows]
    rows.sort(key=lambda row: (natural_order(row["sub_folder"]), natural_order(row["image"])))
    labels = conditions or Conditions()
    return [
        {
            **row,
            **labels.labels(row["sub_folder"], row["image"]),
            **_measured(folder, row, rules_of),
        }
        for row in rows
    ]


def outcome_row(image: ImageResult) -> Row:
    """First columns of an image's row in the experiment's table."""
    numbers = image.numbers
    return {
        "sub_folder": image.sub_folder,
        "image": image.name,
        "status": image.status,
        "error": image.error,
        "total_spines": numbers.get("spines"),
        "total_dendrites": numbers.get("dendrites"),
        "dendrite_length_um": numbers.get("dendrite_length_um"),
        "dendrite_volume_um3": numbers.get("dendrite_volume_um3"),
        "spines_per_um": ratio(numbers.get("spines"), numbers.get("dendrite_length_um")),
    }


def write_experiment_tables(
    folder: Path,
    images: Iterable[ImageResult],
    conditions: Conditions | None = None,
    rules_of: RulesOf = lambda sub_folder: None,
) -> list[Path]:
    """Write Experiment_summary.csv and, from it, tables of sub-folders, conditions and all."""
    conditions = conditions or Conditions()
    rows = experiment_rows(folder, images, conditions, rules_of)
    names = {key: None for row in rows for key in row}
    table = pd.DataFrame(rows).reindex(columns=_in_order(names, [*BASE, *conditions.columns]))
    written = [write_csv(_counted(table), folder / "Experiment_summary.csv")]
    rows = [{"experiment": folder.name, **row} for row in rows]
    for key, name in (
        ("sub_folder", "sub_folders"),
        (CONDITION, "conditions"),
        ("experiment", "total"),
    ):
        others = [label for label in ("sub_folder", *conditions.columns) if label != key]
        grouped = _counted(pooled(rows, key, others))
        written.append(write_csv(grouped, folder / f"Experiment_{name}.csv"))
    return written


def write_experiment_summary(folder: Path, images: Iterable[ImageResult]) -> Path:
    """Write the experiment's tables without labels of conditions; return the one of images."""
    return write_experiment_tables(folder, images)[0]


def _measured(folder: Path, row: Row, rules_of: RulesOf) -> Row:
    """What an image's tables add to its row; nothing for images without a result of now."""
    sub_folder = _sub_folder(folder, row["sub_folder"])
    paths = image_paths(sub_folder) if sub_folder.is_dir() else []
    path = next((path for path in paths if stem_of(path) == row["image"]), None)
    if path is None or row["status"] == "failed":
        return {}
    found = _row(ImageFile(path), rules_of(row["sub_folder"])) or {}
    return {name: value for name, value in found.items() if name not in (*RESPANS[:7], *BASE)}


def _rows_of_others(path: Path, done: set[tuple[str, str]]) -> list[Row]:
    try:
        # An image may be named NA: only an empty field is missing.
        words = dict.fromkeys(_WORDS, str)
        table = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=[""])
    except (FileNotFoundError, ValueError):
        return []  # no earlier run, or not a table of ours
    if tuple(table.columns[: len(BASE)]) != BASE:
        return []
    return [
        {str(key): value for key, value in row.items()}
        for row in table[list(BASE)].to_dict("records")
        if (row["sub_folder"], row["image"]) not in done
        and _has_image(path.parent, str(row["sub_folder"]), str(row["image"]))
    ]


def _has_image(experiment: Path, sub_folder: str, name: str) -> bool:
    folder = _sub_folder(experiment, sub_folder)
    return folder.is_dir() and any(stem_of(path) == name for path in image_paths(folder))


def _sub_folder(experiment: Path, name: str) -> Path:
    folder = experiment / name
    return experiment if not folder.is_dir() and name == experiment.name else folder


def _row(image: ImageFile, rules: RuleSet | None) -> Row | None:
    try:
        return image_summary(image, rules)
    except VolumeFormatError as error:
        logger.warning("no summary of %s: %s", image.path, error)
        return {"Filename": image.name}
    except FileNotFoundError:  # it is being published: a summary follows when that is done
        return None


def _means(tables: ImageTables) -> Row:
    measured = tables.spines[list(tables.averaged)]
    return {f"avg_{name}": mean for name, mean in measured.mean().items()}


def _counts(tables: ImageTables) -> Row:
    """How many spines the means cover and leave out; only where some can lack the value."""
    found: Row = {}
    for name in tables.averaged:
        if name in tables.may_be_missing:
            count = int(tables.spines[name].count())
            found |= {f"n_{name}": count, f"missing_{name}": len(tables.spines) - count}
    return found


def _sums(dendrites: pd.DataFrame) -> Row:
    """Totals over an image's dendrites, of what their table has."""
    whole = dendrites.select_dtypes("integer").columns
    kinds = [name for name in whole if name.startswith(_KINDS)]
    present = [name for name in (*_SUMMED, *kinds) if name in dendrites]
    found: Row = {name: dendrites[name].sum() for name in present}
    if "usable_spines" in found:
        usable = ratio(found["usable_spines"], found["usable_length_um"])
        found["usable_spines_per_um"] = usable
    return found


def _in_order(names: Iterable[str], first: Sequence[str]) -> list[str]:
    return [*first, *(name for name in names if name not in first)]


def _counted(table: pd.DataFrame) -> pd.DataFrame:
    """Table whose counts are whole numbers, also where some are missing."""
    beginnings = ("n_", "missing_", "images")
    whole = {"usable_spines", "branches", "tips", "forks", *_COUNTS}
    names = [
        name
        for name in table.columns
        if name in whole
        or name.startswith(beginnings)
        or (name.startswith(_KINDS) and "_per_" not in name)
    ]
    return table.astype(dict.fromkeys(names, "Int64"))


def _is_current(store: Location, record: StageRecord | None) -> bool:
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
