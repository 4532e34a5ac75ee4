"""What a table's column means: name, unit, definition. Travels with the table and into the docs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NEVER = "never"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    meaning: str
    """One sentence: what the value is."""
    unit: str = ""
    """Empty: it has none."""
    missing: str = NEVER
    """When there is no value."""
    dtype: str = "float64"
    """Pandas type. Measurements are float64, so that NaN can say "missing"."""
    averaged: bool = False
    """Whether tables of larger things (dendrites, images) have its mean."""

    @property
    def may_be_missing(self) -> bool:
        """Whether some rows can lack it."""
        return self.missing != NEVER

    def metadata(self) -> dict[str, str]:
        """Key-value pairs that a file format stores with the column."""
        return {
            "unit": self.unit,
            "description": self.meaning,
            "missing": self.missing,
            "averaged": "yes" if self.averaged else "no",
        }


def measured(name: str, unit: str, meaning: str, missing: str = NEVER) -> Column:
    """A measurement whose mean larger things have."""
    return Column(name, meaning, unit, missing, averaged=True)


def number(name: str, unit: str, meaning: str, missing: str = NEVER) -> Column:
    """A number whose mean says nothing."""
    return Column(name, meaning, unit, missing)


def count(name: str, meaning: str, missing: str = NEVER) -> Column:
    """A whole number that may be missing."""
    return Column(name, meaning, "", missing, "Int64")


def flag(name: str, meaning: str, missing: str = NEVER) -> Column:
    """Whether something is so."""
    return Column(name, meaning, "true/false", missing, "boolean")


def word(name: str, meaning: str) -> Column:
    """One of a few words."""
    return Column(name, meaning, dtype="str")


def identity(name: str, meaning: str) -> Column:
    """A whole number that is never missing."""
    return Column(name, meaning, dtype="int64")


def from_metadata(name: str, metadata: Mapping[str, str], dtype: str = "float64") -> Column:
    """The column that was stored with `Column.metadata`; what is not said stays empty."""
    return Column(
        name,
        metadata.get("description", ""),
        metadata.get("unit", ""),
        metadata.get("missing", ""),
        dtype,
        # A table of an unknown origin says nothing, and its numbers can be averaged all the same.
        metadata.get("averaged", "yes" if dtype == "float64" else "no") == "yes",
    )


def markdown(columns: Iterable[Column]) -> list[str]:
    """Lines of a table for the documentation."""
    lines = ["| column | unit | meaning | missing |", "|---|---|---|---|"]
    for column in columns:
        missing = column.missing if column.may_be_missing else ""
        lines.append(f"| `{column.name}` | {column.unit} | {column.meaning} | {missing} |")
    return lines
