"""What people see in the terminal while work goes on, and when it is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from respan_orchestrator.outcomes import ExperimentOutcome, ImageOutcome
from respan_orchestrator.progress import StageNews, listening

console = Console(stderr=True)
"""Standard output is for results; everything that is only looked at goes to standard error."""

_MARKS = {
    "done": "[green]✓[/]",
    "skipped": "[cyan]=[/]",
    "failed": "[red]✗[/]",
    "warned": "[yellow]![/]",
}


class _Board:
    """One line for each running stage; a finished one is printed and scrolls away."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: dict[tuple[str, str], TaskID] = {}
        self._writing = threading.RLock()

    def hear(self, news: StageNews) -> None:
        with self._writing:
            self._write(news)

    def _write(self, news: StageNews) -> None:
        # Images of different sub-folders may have one name, and be in work at the same time.
        image = f"{news.folder}/{news.image}" if news.folder else news.image
        key = (image, news.stage)
        if news.state == "warned":
            self._print(key, news, escape(news.message))
            return
        if news.state in ("done", "skipped", "failed"):
            self._finish(key, news)
            return
        if key not in self._lines:
            text = f"{escape(image)}  {news.stage}"
            self._lines[key] = self._progress.add_task(text, total=None, left="", message="")
        self._progress.update(
            self._lines[key],
            completed=news.done,
            total=news.total or None,
            left=_time_left(news.seconds_left),
            message=escape(news.message),
        )

    def _finish(self, key: tuple[str, str], news: StageNews) -> None:
        line = self._lines.pop(key, None)
        took = ""
        if line is not None:
            took = f"  {self._progress.tasks[self._progress.task_ids.index(line)].elapsed:.1f} s"
            self._progress.remove_task(line)
        note = "already done" if news.state == "skipped" else news.message
        self._print(key, news, f"[dim]{escape(note)}[/]", took)

    def _print(self, key: tuple[str, str], news: StageNews, text: str, took: str = "") -> None:
        image, stage = key
        line = f"{_MARKS[news.state]} {escape(image)}  {stage}{took}  {text}"
        self._progress.console.print(line, highlight=False)


@contextmanager
def live_progress(*, quiet: bool = False) -> Iterator[None]:
    """Show the news of stages as they come; `quiet` shows nothing."""
    if quiet:
        yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("[dim]{task.fields[message]}"),
    )
    with Progress(*columns, console=console) as progress, listening(_Board(progress).hear):
        yield


def print_outcome(outcome: ExperimentOutcome) -> None:
    """Table of what became of each image, and where the results are."""
    table = Table(title=escape(str(outcome.experiment)), title_justify="left")
    for name in ("sub-folder", "image", "status", "spines", "dendrite length"):
        table.add_column(name, justify="right" if name in ("spines", "dendrite length") else "left")
    for image in outcome.images:
        names = escape(image.sub_folder), escape(image.name)
        table.add_row(*names, image.status, *_cells(image))
    console.print(table)
    for image in outcome.images:
        name = escape(f"{image.sub_folder}/{image.name}")
        if image.error:
            console.print(f"[red]{name}[/]: {escape(image.error)}", highlight=False)
        for warning in image.warnings:
            console.print(f"[yellow]{name}[/]: {escape(warning)}", highlight=False)
    for warning in outcome.warnings:
        console.print(f"[yellow]{escape(warning)}[/]", highlight=False)
    for path in (*outcome.tables, *([outcome.report] if outcome.report else [])):
        console.print(f"→ {escape(str(path))}", highlight=False, soft_wrap=True)


def _cells(image: ImageOutcome) -> tuple[str, str]:
    spines, length = (image.numbers.get(name) for name in ("spines", "dendrite_length_um"))
    return (
        "" if spines is None else f"{spines:.0f}",
        "" if length is None else f"{length:.1f} µm",
    )


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} left"
