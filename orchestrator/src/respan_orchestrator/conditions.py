"""What people say about sub-folders and images: animal, group, treatment, in a CSV file of theirs.

sub_folder,image,condition,animal
Animal_A,,control,A
Animal_B,,treated,B
Animal_B,dendrite7,treated,B2

A row without an image is about all images of the sub-folder; a row with one wins over it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from respan_common.errors import SettingsError
from respan_orchestrator.experiment import Experiment, stem_of
from respan_orchestrator.settings_file import Problem, raise_problems, suggestion, text_of

NAME = "conditions.csv"
SUB_FOLDER, IMAGE, CONDITION = "sub_folder", "image", "condition"

Labels = dict[str, str]


@dataclass(frozen=True)
class Conditions:
    """Labels of sub-folders and images."""

    columns: tuple[str, ...] = (CONDITION,)
    """Names of the labels, in the file's order; every image has a condition."""
    of_sub_folder: Mapping[str, Labels] = field(default_factory=dict)
    of_image: Mapping[tuple[str, str], Labels] = field(default_factory=dict)

    def labels(self, sub_folder: str, image: str) -> Labels:
        """Labels of an image. Without a condition in the file, it is the sub-folder's name."""
        found = dict.fromkeys(self.columns, "") | {CONDITION: sub_folder}
        for said in (self.of_sub_folder.get(sub_folder), self.of_image.get((sub_folder, image))):
            found |= {name: value for name, value in (said or {}).items() if value}
        return found


@dataclass(frozen=True)
class _Row:
    line: int
    cells: Labels

    @property
    def place(self) -> tuple[str, str]:
        """Sub-folder, and image without its extension; an empty image is all of them."""
        image = self.cells.get(IMAGE, "")
        return self.cells.get(SUB_FOLDER, ""), stem_of(Path(image)) if image else ""


def read_conditions(experiment: Experiment, reserved: Iterable[str] = ()) -> Conditions:
    """Labels from the experiment's conditions.csv; without the file, the folders' names.

    Parameters
    ----------
    reserved
        Columns of our own tables, which the file's columns may not be called.

    Raises
    ------
    SettingsError
        Lists every line that names an unknown folder or image, or one that was named before.
    """
    path = find_conditions(experiment.path)
    if path is None:
        return Conditions()
    header, rows = _table(path)
    _check_header(path, header, set(reserved))
    raise_problems(_problems(rows, experiment), str(path))
    labels = tuple(name for name in header if name not in (SUB_FOLDER, IMAGE))
    columns = labels if CONDITION in labels else (CONDITION, *labels)
    said = {row.place: {name: row.cells[name] for name in labels} for row in rows}
    return Conditions(
        columns,
        {folder: cells for (folder, image), cells in said.items() if not image},
        {place: cells for place, cells in said.items() if place[1]},
    )


def find_conditions(folder: Path) -> Path | None:
    """The metadata file of an experiment, however its name is written."""
    found = [path for path in sorted(folder.glob("*.[cC][sS][vV]")) if path.name.lower() == NAME]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise SettingsError(f"{folder} holds {names}: delete or rename all but one")
    return found[0] if found else None


def _table(path: Path) -> tuple[list[str], list[_Row]]:
    """Header and rows, without empty lines; cells are stripped of blanks."""
    text = text_of(path)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        every = [(lines.line_num, [cell.strip() for cell in cells]) for cells in lines]
    except csv.Error as error:
        raise SettingsError(f"{path}: line {lines.line_num}: not valid CSV: {error}") from error
    every = [(line, cells) for line, cells in every if any(cells)]
    if not every:
        raise SettingsError(f"{path} is empty: it needs a header with the column {SUB_FOLDER}")
    header = [name.lower() if name.lower() in _OWN else name for name in every[0][1]]
    while header and not header[-1]:
        header.pop()  # spreadsheets leave commas behind
    return header, list(_rows(path, header, every[1:]))


_OWN = (SUB_FOLDER, IMAGE, CONDITION)


def _delimiter(text: str) -> str:
    """Comma, or what a spreadsheet program with another decimal point writes instead."""
    first = text.lstrip().partition("\n")[0]
    return max(",;\t", key=first.count)


def _rows(path: Path, header: list[str], lines: list[tuple[int, list[str]]]) -> Iterator[_Row]:
    problems = []
    for line, cells in lines:
        if any(cells[len(header) :]):
            text = f"'{cells[len(header)]}' is beyond the {len(header)} columns of the header"
            problems.append(Problem(line, text))
        filled = [*cells, *[""] * len(header)][: len(header)]
        yield _Row(line, dict(zip(header, filled, strict=True)))
    raise_problems(problems, str(path))


def _check_header(path: Path, header: list[str], reserved: set[str]) -> None:
    problems = []
    if SUB_FOLDER not in header:
        text = f"the header has no column {SUB_FOLDER}; it has {', '.join(header)}"
        problems.append(Problem(1, text))
    for number, name in enumerate(header):
        if not name:
            problems.append(Problem(1, f"column {number + 1} has no name"))
        elif name in header[:number]:
            problems.append(Problem(1, f"the column '{name}' is there twice"))
        elif name in reserved - set(_OWN):
            text = f"a column may not be called '{name}': the tables have one of that name"
            problems.append(Problem(1, text))
    raise_problems(problems, str(path))


def _problems(rows: Iterable[_Row], experiment: Experiment) -> Iterator[Problem]:
    """Rows about nothing, and about what a row before them is about."""
    images = {
        folder.name: [image.name for image in folder.images] for folder in experiment.sub_folders
    }
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        folder, image = row.place
        if folder not in images:
            yield Problem(row.line, f"sub_folder '{folder}': {_unknown(folder, images)}")
        elif image and image not in images[folder]:
            told = _unknown(image, images[folder])
            yield Problem(row.line, f"image '{image}' of {folder}: {told}")
        elif row.place in seen:
            about = f"image '{image}' of {folder}" if image else f"sub_folder '{folder}'"
            yield Problem(row.line, f"{about} is already in line {seen[row.place]}")
        seen.setdefault(row.place, row.line)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"there is none of that name; {suggestion(name, known)}" if name else "it is empty"
