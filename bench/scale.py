"""Throughput of one replica of a stage against several, each with a processor core of its own.

    python -m bench.scale images     small images, as many at once as there are replicas
    python -m bench.scale regions    one large image, shared by all replicas
        [--stage segmentation|quantification] [--replicas 2] [--images 6] [--work FOLDER]
        [--containers]

Replicas are real services, bound to one core each and told to use one thread; they are asked as the
orchestrator does it, without Prefect. Models are loaded before the clock starts. With --containers
they are those of compose.yaml, `up --scale`, from images that have been built; `docker` and
COMPOSE_FILE are taken from the environment (deploy/container_engine.sh).

A ratio of wall times means something only where every replica had its core for itself: the column
"had its core" says how much of the time it did. The last column is what the work as it was divided
would allow if each had: the processor time of one replica over that of the busiest of several.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.e2e.containers import Stack
from tests.e2e.replicas import running_services
from tests.hand_model import SPACING_UM, draw, write_hand_model

from bench.processes import family
from bench.stores import publish
from respan_common.geometry import Box, VoxelSpacing, shape_of
from respan_common.params import QuantificationParams, SegmentationParams
from respan_common.schemes import SCHEMES
from respan_orchestrator import clients, sharing
from respan_orchestrator.clients import Request
from respan_orchestrator.services import ServicePool
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.side_by_side import each

SPACING = VoxelSpacing(*SPACING_UM)
TILE = (32, 384, 384)
LARGE = (64, 1536, 512)
"""Three shards."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Replica:
    """One service of several."""

    pid: int
    address: str


@dataclass(frozen=True)
class Row:
    """One run over all images."""

    replicas: int
    seconds: float
    cpu_s: list[float]
    """Of each replica."""

    @property
    def had_their_core(self) -> float:
        """Processor time of the busiest over the wall's."""
        return max(self.cpu_s) / self.seconds


def main() -> None:
    """Measure and print."""
    options = _options()
    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = write_hand_model(work / "models" / "by_hand")
        load = os.getloadavg()[0]
        rows = [
            _measured(options, work, model, count) for count in dict.fromkeys((1, options.replicas))
        ]
    places = "containers" if options.containers else "processes"
    print(f"{options.what} of {options.stage} in {places}; load before: {load:.1f}\n")
    _print(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["images", "regions"])
    parser.add_argument(
        "--stage", choices=["segmentation", "quantification"], default="segmentation"
    )
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--containers", action="store_true")
    return parser.parse_args()


def _measured(options: argparse.Namespace, work: Path, model: Path, count: int) -> Row:
    folder = work / f"{count} replicas"
    many = options.what == "images"
    shape = TILE if many else LARGE
    stores = [
        _store(folder / f"{number}.ome.zarr", shape)
        for number in range(options.images if many else 1)
    ]
    warm_up = [_store(folder / f"warm{number}.ome.zarr", (16, 64, 96)) for number in range(count)]
    replicas = _containers if options.containers else _processes
    with replicas(options.stage, count, work) as services:
        for service, store in zip(services, warm_up, strict=True):
            _ask(options.stage, [store], model, [service])
        before = [_cpu_s(service) for service in services]
        started = time.monotonic()
        _ask(options.stage, stores, model, services, is_shared=not many)
        seconds = time.monotonic() - started
        cpu_s = [_cpu_s(service) - at for service, at in zip(services, before, strict=True)]
    return Row(count, seconds, cpu_s)


@contextmanager
def _processes(stage: str, count: int, work: Path) -> Iterator[list[Replica]]:
    """Replicas, each bound to a core: what they start inherits it."""
    settings = {"RESPAN_MODEL_ROOTS": str(work / "models")}
    with running_services(stage, count, work / "logs", [work], **settings) as services:
        for number, service in enumerate(services):
            for thread in Path(f"/proc/{service.process.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {_core(number)})
        yield [Replica(service.process.pid, service.address) for service in services]


@contextmanager
def _containers(stage: str, count: int, work: Path) -> Iterator[list[Replica]]:
    """Likewise, as containers that see `work` under its own name."""
    folder = work / f"compose{count}"
    folder.mkdir()
    mount = {"type": "bind", "source": str(work), "target": str(work)}
    roots = {"RESPAN_DATA_ROOTS": str(work), "RESPAN_MODEL_ROOTS": str(work / "models")}
    mine = folder / "compose.work.json"
    mine.write_text(json.dumps({"services": {stage: {"volumes": [mount], "environment": roots}}}))
    stack = Stack(folder, "respan-bench")
    stack = stack.seen_by(
        COMPOSE_FILE=stack.files(str(mine)),
        RESPAN_USER=f"{os.getuid()}:{os.getgid()}",
        RESPAN_TOKEN="",
    )
    try:
        stack.up("--no-deps", "--scale", f"{stage}={count}", stage)
        names = stack.compose("ps", "--quiet", stage).split()
        for number, name in enumerate(names):
            stack.docker("update", "--cpuset-cpus", str(_core(number)), name)
        yield [_container(one) for one in json.loads(stack.docker("inspect", *names))]
    finally:
        stack.compose("down", "--volumes")


def _container(known: dict[str, Any]) -> Replica:
    (network,) = known["NetworkSettings"]["Networks"].values()
    return Replica(known["State"]["Pid"], f"{network['IPAddress']}:50051")


def _core(number: int) -> int:
    cores = sorted(os.sched_getaffinity(0))
    return cores[number % len(cores)]


def _ask(
    stage: str,
    stores: list[Path],
    model: Path,
    services: list[Replica],
    *,
    is_shared: bool = False,
) -> None:
    addresses = ",".join(service.address for service in services)
    settings = OrchestratorSettings(
        **{f"{stage}_address": addresses}, share_from_voxels=int(is_shared)
    )
    with ServicePool(settings, []) as pool:

        def work(store: Path) -> None:
            with pool.working_on_image():
                sharing.follow(_request(stage, store, model), pool, lambda event: None)

        for _ in each(work, stores, len(services)):
            pass


def _request(stage: str, store: Path, model: Path) -> Request:
    if stage == "quantification":
        return clients.quantify(
            store, QuantificationParams(min_dendrite_volume_um3=1.0), math.prod(LARGE)
        )
    return clients.segment(store, "", SegmentationParams(model=str(model)), math.prod(LARGE))


def _store(path: Path, shape: tuple[int, int, int]) -> Path:
    """An image full of short dendrites with spines, and its true classes."""
    tile = draw()
    roles = SCHEMES[3]
    classes = np.zeros(tile.shape, np.uint8)
    classes[tile > 200] = roles["spine"]
    classes[tile > 450] = roles["dendrite"]

    def tiled(values: NDArray[np.generic], box: Box) -> NDArray[np.generic]:
        axes = [
            np.arange(part.start, part.stop) % size
            for part, size in zip(box, tile.shape, strict=True)
        ]
        out = values[np.ix_(*axes)]
        assert out.shape == shape_of(box)
        return out

    publish(path, shape, SPACING, lambda box: tiled(classes, box), lambda box: tiled(tile, box))
    return path


def _cpu_s(service: Replica) -> float:
    """Processor time of a service and all that it has started, ended ones included."""
    return sum(_own_cpu_s(pid) for pid in family(service.pid))


def _own_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) * _TICK_S


def _print(rows: list[Row]) -> None:
    print("| replicas | s | processor s of each | had its core | ratio | ratio if all had |")
    print("|---|---|---|---|---|---|")
    first = rows[0]
    for row in rows:
        each_s = " + ".join(f"{value:.1f}" for value in row.cpu_s)
        possible = max(first.cpu_s) / max(row.cpu_s)
        print(
            f"| {row.replicas} | {row.seconds:.1f} | {each_s} | {row.had_their_core:.0%} "
            f"| {first.seconds / row.seconds:.2f} | {possible:.2f} |"
        )


if __name__ == "__main__":
    main()
