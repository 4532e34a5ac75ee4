"""Models as people see them in the terminal. What cards say is shown as it is, never as markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from respan_orchestrator.model_checks import Check
from respan_orchestrator.models import edges_of

_SKIPPED = {"card", "warnings", "regions", "first_stage", "trained_um"}
_KEYS = {"spacing_um": "voxel size (µm)", "bytes": "size", "origin": "from"}


def print_models(models: Sequence[Mapping[str, Any]], broken: Iterable[str]) -> None:
    """One line per model, and why others cannot be used."""
    table = Table(box=None, pad_edge=False)
    for name in ("name", "labels", "voxel size, µm", "modality", "size", "digest", "from"):
        table.add_column(name, overflow="fold", no_wrap=name in ("name", "size", "digest"))
    for model in models:
        cells = (
            model["name"],
            ", ".join(name for name, value in model["labels"].items() if value),
            edges_of(model["spacing_um"]),
            str(model["modality"] or "unknown").partition(",")[0],
            _size(model["bytes"]),
            model["digest"][:12],
            model["origin"],
        )
        table.add_row(*(Text(cell) for cell in cells))
    console = Console()
    console.print(table)
    for problem in broken:
        console.print(Text(f"cannot be used: {problem}", style="yellow"))


def print_model(model: Mapping[str, Any]) -> None:
    """Everything that is known of one model."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in model.items():
        if key not in _SKIPPED and value not in (None, "", {}, []):
            table.add_row(_KEYS.get(key, key.replace("_", " ")), _value(key, value))
    if model["first_stage"]:
        first = model["first_stage"]
        text = f"{first['configuration']}, {edges_of(first['spacing_um'])} µm"
        table.add_row("first stage", Text(text))
    console = Console()
    console.print(table)
    for warning in model["warnings"]:
        console.print(Text(warning, style="yellow"))


def print_checks(checks: Iterable[Check]) -> None:
    """What was looked at, and what is wrong."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        mark = "✓" if check.ok else "✗" if check.matters else "!"
        style = {"✓": "green", "✗": "red", "!": "yellow"}[mark]
        table.add_row(Text(mark, style=style), Text(check.subject), Text(check.text))
    Console().print(table)


def _value(key: str, value: Any) -> Text:
    if key == "spacing_um":
        return Text(f"{edges_of(value)} (z, y, x)")
    if key == "bytes":
        return Text(_size(value))
    if key == "labels":
        return Text(", ".join(f"{number} {name}" for name, number in value.items()))
    if isinstance(value, Mapping):
        return Text("\n".join(f"{name}: {_short(inner)}" for name, inner in value.items()))
    return Text(_short(value))


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MB"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return str(value)
