"""Hold every measurement to geometry that is known by construction; print truth, ours, RESPAN's.

    python -m bench.truth [GROUP ...] [--draws 24] [--json FILE] [--markdown]

Groups: table (the scenes on which RESPAN was tried), lengths, balls, spines, ways, diameters,
touching, owners, invariance; all by default. `--draws` is how many orientations and sub-voxel
places are tried per row. "RESPAN" is what the original gives on the same scene, where that is
known. Exit code 1 if a row fails.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import truth_bounds, truth_invariance, truth_table
from bench.rows import FAILS, Row

GROUPS: dict[str, Callable[[int], Iterator[Row]]] = {
    "table": truth_table.rows,
    "lengths": truth_bounds.lengths,
    "balls": truth_bounds.balls,
    "spines": truth_bounds.spine_lengths,
    "ways": truth_bounds.ways,
    "diameters": truth_bounds.diameters,
    "touching": truth_bounds.touching,
    "owners": truth_bounds.owners,
    "invariance": truth_invariance.rows,
}


def as_text(row: Row, *, markdown: bool) -> str:
    """A line of the table."""
    cells = (row.scene, row.truth, row.ours, row.original, row.bound, row.verdict)
    if markdown:
        return "| " + " | ".join(cells) + " |"
    widths = (72, 22, 28, 22, 10, 6)
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help="absent: all")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--markdown", action="store_true", help="as the documentation has it")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"there is no group {min(unknown)}, only {', '.join(GROUPS)}")
    heading = Row("scene", "truth", "ours", "bound", None, "RESPAN")
    print(as_text(heading, markdown=arguments.markdown).replace(" -", " verdict"))
    if arguments.markdown:
        print("|---" * 6 + "|")
    rows = []
    for row in itertools.chain.from_iterable(
        GROUPS[g](arguments.draws) for g in arguments.groups or GROUPS
    ):
        rows.append(row)
        print(as_text(row, markdown=arguments.markdown), flush=True)
    failed = sum(row.verdict == FAILS for row in rows)
    print(f"\n{len(rows)} rows, {failed} fail")
    if arguments.json:
        content = [row.as_json() for row in rows]
        arguments.json.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
