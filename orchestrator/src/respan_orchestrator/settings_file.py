"""Read a YAML settings file with the line of every key; `analysis_settings` says what keys mean."""

from __future__ import annotations

import ast
import difflib
import math
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from respan_common.errors import SettingsError

NAMES = ("Analysis_Settings.yaml", "Analysis_Settings.yml")
"""Names of a settings file: RESPAN's program wants the first, its guide says the second."""

_LARGEST_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class Entry:
    """One key of one section, as the file has it."""

    section: str
    key: str
    value: Any
    line: int

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.section}: {self.key}" if self.key else self.section


@dataclass(frozen=True)
class Problem:
    """Something wrong at a place of a settings file or a command line."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


class BadValueError(ValueError):
    """A value that a key does not allow; its text says what is allowed."""


def raise_problems(problems: Iterable[Problem], source: str) -> None:
    """Raise one error that lists all problems, in the order of their lines; none: return."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    if len(ordered) == 1:
        raise SettingsError(f"{source}: {ordered[0]}")
    if ordered:
        listed = "\n".join(f"  {problem}" for problem in ordered)
        raise SettingsError(f"{source} has {len(ordered)} problems:\n{listed}")


def shown(value: Any) -> str:
    """Short text of a value for a message."""
    return reprlib.repr(value)


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Which allowed name was probably meant, else all of them."""
    names = list(allowed)
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    listed = f"allowed: {', '.join(names)}"
    return f"did you mean '{by_lower[close[0]]}'? ({listed})" if close else listed


def find_settings(folder: Path) -> Path | None:
    """Settings file of a folder, None if it has none.

    Raises
    ------
    SettingsError
        If both names are there with different content.
    """
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) == 2 and found[0].read_bytes() != found[1].read_bytes():
        raise SettingsError(
            f"{folder} holds both {NAMES[0]} and {NAMES[1]}, and they differ: delete or rename one"
        )
    return found[0] if found else None


def read_entries(path: Path) -> list[Entry]:
    """All keys of a settings file, in its order; an empty file has none.

    A section without a mapping (``Parameters: 3``) is one entry with an empty key.

    Raises
    ------
    SettingsError
        If the file cannot be read, is no YAML mapping, or has a key twice.
    """
    text = text_of(path)
    problems: list[Problem] = []
    try:
        loader = yaml.SafeLoader(text)
        entries = list(_entries(loader, loader.get_single_node(), problems))
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: {_yaml_problem(error)}") from error
    except (RecursionError, ValueError) as error:
        raise SettingsError(f"{path} cannot be understood as settings: {error}") from error
    raise_problems(problems, str(path))
    return entries


def text_of(path: Path) -> str:
    """Content of a small text file that people wrote, in whatever encoding their editor chose."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > _LARGEST_FILE_BYTES:
        raise SettingsError(f"{path} is larger than 1 MB: that is no file written by hand")
    # RESPAN's users edit on Windows, where editors still write these.
    for encoding in (
        ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    ):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise SettingsError(f"{path} is not a text file; save it as UTF-8")


def plain(value: Any) -> Any:
    """Value with RESPAN's texts understood: "(2,3,3)" is a list, "None" and "" are None.

    Raises
    ------
    BadValueError
        If a text starts like a tuple, but is none.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in ("", "None", "none", "null"):
        return None
    if not text.startswith(("(", "[")):
        return text
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise BadValueError("a list like (2,3,3)") from error
    return list(found) if isinstance(found, (tuple, list)) else found


def finite(value: Any) -> bool:
    """Whether a value holds no NaN or infinity, at any depth."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(finite(part) for part in value.values())
    return all(finite(part) for part in value) if isinstance(value, (list, tuple)) else True


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return f"{where}not valid YAML: {what}{_yaml_hint(str(error))}"


def _yaml_hint(text: str) -> str:
    if "\\t" in text:
        return "; indent with spaces, not with tabs"
    if "escape" in text:
        return "; write Windows paths in 'single quotes' or with forward slashes"
    if "special characters are not allowed" in text:
        return "; that is not a text file"
    return ""


def _entries(
    loader: yaml.SafeLoader, root: yaml.Node | None, problems: list[Problem]
) -> Iterator[Entry]:
    if root is None or _is_null(root):
        return
    for section, node in _pairs(loader, root, "the file", problems):
        if isinstance(node, yaml.MappingNode):
            for key, child in _pairs(loader, node, section.value, problems):
                value = loader.construct_object(child, deep=True)
                yield Entry(section.value, key.value, value, key.start_mark.line + 1)
        elif not _is_null(node):
            value = loader.construct_object(node, deep=True)
            yield Entry(section.value, "", value, section.start_mark.line + 1)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null" or node.value == "None"


def _pairs(
    loader: yaml.SafeLoader, node: yaml.Node, name: str, problems: list[Problem]
) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        problems.append(Problem(line, f"{name} must consist of 'key: value' lines"))
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            problems.append(Problem(line, f"a key of {name} must be a word"))
        elif key.value in seen:
            first = seen[key.value]
            problems.append(
                Problem(line, f"'{key.value}' of {name} is already set in line {first}")
            )
        else:
            seen[key.value] = line
            yield key, value
