"""Time and memory of the quantification stage on sparse volumes.

    python -m bench.quantification goal              100 Mvoxel with 2,000 spines
    python -m bench.quantification volume            1x, 2x, 4x, 8x the volume, as dense
    python -m bench.quantification spines            1x, 2x, 4x, 8x the spines in the same volume
    python -m bench.quantification memory            0.1, 1 and 4 GB of 16-bit grey values
        [--mvoxel 100] [--steps 1,2,4,8] [--cores 2] [--work FOLDER] [--json FILE]

Every volume is quantified by a fresh process on that many cores. "peak" is the largest sum of
resident memory, over that process and its children, that was seen (twice a second); "largest" is
the kernel's own record of the biggest single process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.neuropil import SPACING, publish_volume, sparse_volume
from bench.processes import run
from respan_common.geometry import Zyx

MVOXEL, SPINES = 100, 2000
BASE: Zyx = (200, 707, 707)
"""About 100 Mvoxel."""


@dataclass(frozen=True)
class Case:
    """One volume."""

    name: str
    shape_zyx: Zyx
    spines: int

    @property
    def mvoxel(self) -> float:
        """Its size."""
        z, y, x = self.shape_zyx
        return z * y * x / 1e6


@dataclass(frozen=True)
class Result:
    """What quantifying it took."""

    case: Case
    found: int
    seconds: float
    peak_mb: float
    largest_mb: float


def cases(series: str, mvoxel: float, steps: list[int]) -> list[Case]:
    """Volumes of a series."""
    base = scaled(BASE, mvoxel / MVOXEL)
    spines = round(SPINES * mvoxel / MVOXEL)
    if series == "memory":
        shapes = [scaled(BASE, share * mvoxel / MVOXEL) for share in (0.5, 5, 20)]
        return [
            Case(f"{2e-9 * z * y * x:.2g} GB", (z, y, x), round(SPINES * z * y * x / 100e6))
            for z, y, x in shapes
        ]
    if series == "spines":  # the fewest are a quarter of the usual ones: eight times fit, too
        return [Case(f"spines {k}x", base, spines // 4 * k) for k in steps]
    return [Case(f"volume {k}x", grown(base, k), spines * k) for k in steps]


def scaled(shape_zyx: Zyx, factor: float) -> Zyx:
    """A shape of `factor` times the voxels, cut or grown alike along all axes."""
    z, y, x = (round(size * factor ** (1 / 3)) for size in shape_zyx)
    return (z, y, x)


def grown(shape_zyx: Zyx, factor: int) -> Zyx:
    """Doubled along x, then y, then z, until there are `factor` times the voxels."""
    sizes, axis = list(shape_zyx), 2
    while factor > 1:
        sizes[axis] *= 2
        factor, axis = factor // 2, (axis - 1) % 3
    z, y, x = sizes
    return (z, y, x)


def quantify_store(store: Path, cores: int) -> None:
    """Quantify one store in this process and print what it took; the part that is measured."""
    from respan_common.events import SilentReporter
    from respan_common.params import QuantificationParams
    from respan_common.settings import Runtime
    from respan_quantification import stage

    started = time.monotonic()
    job = stage.QuantificationJob(store, QuantificationParams(), Runtime("cpu", cores))
    record = stage.run(job, SilentReporter())
    most = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - started,
                "spines": record.numbers["spines"],
                "largest_mb": most / 1024,
            }
        )
    )


def measured(case: Case, work: Path, cores: int) -> Result:
    """Draw a volume, and quantify it in a fresh process."""
    store = publish_volume(
        work / f"{case.name.replace(' ', '_')}.ome.zarr",
        sparse_volume(case.shape_zyx, case.spines),
    )
    command = [sys.executable, "-m", "bench.quantification", "store", "--cores", str(cores)]
    answer = run([*command, "--store", str(store)])
    if answer.code:
        raise SystemExit(f"{case.name}: the stage ended with {answer.code}")
    said = json.loads(answer.output)
    largest = float(said["largest_mb"])
    peak = max(answer.peak_rss_mb, largest)  # a short peak may fall between two looks
    return Result(case, int(said["spines"]), said["seconds"], peak, largest)


def line(result: Result, first: Result) -> str:
    """A row of the table; ratios are against the first row."""
    case = result.case
    per_mvoxel = result.seconds / case.mvoxel
    per_spine = 1000 * result.seconds / max(result.found, 1)
    ratio, grew = result.seconds / first.seconds, result.peak_mb / first.peak_mb
    return (
        f"| {case.name} | {case.mvoxel:.1f} | {case.spines} | {result.found} "
        f"| {result.seconds:.1f} | {ratio:.2f} | {per_mvoxel:.3f} | {per_spine:.1f} "
        f"| {result.peak_mb:.0f} | {grew:.2f} | {result.largest_mb:.0f} |"
    )


HEADING = (
    "| volume | Mvoxel | spines | found | s | s, ratio | s/Mvoxel | ms/spine | peak MB "
    "| peak, ratio | largest MB |\n" + "|---" * 11 + "|"
)


def main() -> None:
    """Print a table: one row per volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("series", choices=("goal", "volume", "spines", "memory", "store"))
    parser.add_argument("--mvoxel", type=float, default=MVOXEL, help="of the first volume")
    parser.add_argument("--steps", default="1,2,4,8")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder for the volumes")
    parser.add_argument("--store", type=Path, help="quantify this one (series: store)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    if arguments.series == "store":
        quantify_store(arguments.store, arguments.cores)
        return
    steps = [1] if arguments.series == "goal" else [int(k) for k in arguments.steps.split(",")]
    print(f"voxels {SPACING.zyx} µm, {arguments.cores} cores\n{HEADING}", flush=True)
    results: list[Result] = []
    for case in cases(arguments.series, arguments.mvoxel, steps):
        with tempfile.TemporaryDirectory(dir=arguments.work) as scratch:
            results.append(measured(case, Path(scratch), arguments.cores))
        print(line(results[-1], results[0]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
