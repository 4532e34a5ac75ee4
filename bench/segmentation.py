"""Speed and memory of segmentation, against nnU-Net's own, side by side in one run.

    python -m bench.segmentation speed      a phantom: nnU-Net's command as RESPAN calls it, its
                                            predictor with equal steps, and ours
    python -m bench.segmentation steps      what wide steps, half precision, skipping cost in Dice
    python -m bench.segmentation overhead   wall time over (windows x time of one window), 0.5 GB
    python -m bench.segmentation memory     peak memory of the stage for 0.1, 1 and 4 GB, with a
                                            network that is small, so that it takes minutes
        [--model models/two-photon] [--shape 24,384,384] [--gb 0.1,1,4] [--work FOLDER]

Ratios count, not seconds: every row of a table is measured in the same minutes on the same cores,
and a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from tests.nnunet_models import write_random_model

from bench.stores import publish_image
from respan_common.events import SilentReporter
from respan_common.geometry import Box, VoxelSpacing, Zyx, shape_of
from respan_common.model_folders import ModelFolder, describe
from respan_common.params import SegmentationParams, SynthesisParams
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.model import load
from respan_segmentation.stage import run as segment

THREADS = torch.get_num_threads()
NOISE = (100.0, 10.0)


@dataclass(frozen=True)
class Row:
    """One way to segment an image."""

    name: str
    seconds: float
    classes: NDArray[np.uint8]
    note: str = ""


def phantom(model: ModelFolder, shape: Zyx, seed: int = 77) -> tuple[NDArray[Any], Row]:
    """An image at the model's own voxel size, and what is to be seen in it."""
    from respan_training.phantoms import make_phantom

    kind = "confocal" if (model.spacing_um or (1,))[0] < 0.5 else "two-photon"
    params = SynthesisParams(
        kind=kind, shape=list(shape), spacing_um=list(_spacing(model).zyx), seed=seed
    )
    made = make_phantom(params, 0)
    return np.asarray(made.image[0]), Row("what is to be seen", 0, made.labels)


def _spacing(model: ModelFolder) -> VoxelSpacing:
    return VoxelSpacing(*(model.spacing_um or (1.0, 1.0, 1.0)))


def ours(name: str, image: NDArray[Any], model: ModelFolder, **params: Any) -> Row:
    """Our stage in this process, with a model that is loaded, from store to store."""
    with scratch_store(image, model) as store:
        job = _job(store, model, SegmentationParams(model=str(model.path), **params))
        started = time.perf_counter()
        record = segment(job, SilentReporter())
        seconds = time.perf_counter() - started
        skipped = f"{record.numbers['skipped_share']:.0%} of the windows skipped"
        return Row(name, seconds, open_volume(store, "labels/classes").read(), skipped)


def our_command(name: str, image: NDArray[Any], model: ModelFolder) -> Row:
    """Our stage in a process of its own: start and loading count, as in nnU-Net's command."""
    with scratch_store(image, model) as store:
        started = time.perf_counter()
        _child(store, model.path, {})
        seconds = time.perf_counter() - started
        return Row(name, seconds, open_volume(store, "labels/classes").read())


def nnunets_command(name: str, image: NDArray[Any], model: ModelFolder) -> Row:
    """nnUNetv2_predict as RESPAN calls it: step 0.5, mirroring, a process for each call."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in", Path(scratch) / "out"
        source.mkdir()
        tifffile.imwrite(source / "image_0000.tif", image)
        (source / "image.json").write_text(json.dumps({"spacing": list(_spacing(model).zyx)}))
        command = [
            str(Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder")),
            *("-i", str(source), "-o", str(target), "-m", str(model.path), "-f", "all"),
            *("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"),
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        return Row(name, seconds, tifffile.imread(target / "image.tif").astype(np.uint8))


def nnunets_predictor(name: str, image: NDArray[Any], model: ModelFolder, step: float) -> Row:
    """nnU-Net's predictor in this process, loaded, without mirroring."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(THREADS)
    predictor = nnUNetPredictor(
        tile_step_size=step, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(
        str(model.path), ("all",), "checkpoint_final.pth"
    )
    started = time.perf_counter()
    classes = predictor.predict_single_npy_array(
        image[None].astype(np.float32), {"spacing": list(_spacing(model).zyx)}
    )
    return Row(name, time.perf_counter() - started, np.asarray(classes, np.uint8))


def dice(one: NDArray[np.uint8], other: NDArray[np.uint8], value: int) -> float:
    """Agreement on one class, 1 where neither has it."""
    a, b = one == value, other == value
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def speed(model: ModelFolder, shape: Zyx) -> None:
    """Print the comparison with nnU-Net."""
    image, truth = phantom(model, shape)
    exactly = {"precision": "full", "skip_empty": False, "step_size": 0.5, "mirroring": False}
    ours("warm-up", image[:, :64, :64], model, **exactly)  # translates the network, once
    ours("warm-up", image[:, :64, :64], model)
    table(
        [
            nnunets_command("nnUNetv2_predict as RESPAN calls it", image, model),
            our_command("ours, fast, a process of its own", image, model),
            ours("ours, fast, loaded", image, model),
            ours("ours, exact, loaded", image, model, preset="exact"),
            ours("ours, exact but half precision", image, model, preset="exact", precision="half"),
        ],
        model,
        truth,
    )
    table(
        [
            nnunets_predictor("nnU-Net's predictor, step 0.5, no mirroring", image, model, 0.5),
            ours("ours, the same, single precision, nothing skipped", image, model, **exactly),
            ours(
                "ours, the same, half precision, nothing skipped",
                image,
                model,
                **{**exactly, "precision": "half"},
            ),
            ours(
                "ours, the same, empty windows skipped",
                image,
                model,
                **exactly | {"skip_empty": True},
            ),
        ],
        model,
        truth,
    )


def steps(model: ModelFolder, shape: Zyx) -> None:
    """Print what the fast preset's liberties cost, against nnU-Net's default and the truth."""
    image, truth = phantom(model, shape)
    rows = [ours("exact: step 0.5, mirroring, single precision", image, model, preset="exact")]
    rows.append(ours("exact, but half precision", image, model, preset="exact", precision="half"))
    rows.append(ours("fast: step 0.75, half precision, skipping", image, model))
    rows.append(ours("fast, single precision", image, model, precision="full"))
    rows.append(ours("fast, nothing skipped", image, model, skip_empty=False))
    for step in (0.5, 0.625, 0.875, 1.0):
        rows.append(ours(f"fast, step {step}", image, model, step_size=step))
    table(rows, model, truth)


def table(rows: list[Row], model: ModelFolder, truth: Row) -> None:
    """Print rows; times are against the first, Dice against the first and against the truth."""
    names = [name for name, value in model.labels.items() if (truth.classes == value).any()]
    names.remove("background")
    heads = [f"{n}: Dice, with the truth" for n in names]
    print("| way | s | times as fast | " + " | ".join(heads) + " | |")
    print("|---" * (len(names) + 4) + "|")
    for row in rows:
        print(
            f"| {row.name} | {row.seconds:.1f} | {rows[0].seconds / row.seconds:.1f} | "
            + " | ".join(
                f"{dice(rows[0].classes, row.classes, model.labels[n]):.3f}, "
                f"{dice(truth.classes, row.classes, model.labels[n]):.3f}"
                for n in names
            )
            + f" | {row.note} |",
        )
    print(flush=True)


def overhead(model: ModelFolder, gigabytes: float) -> None:
    """Print the share of time that is not the network's own.

    Processor time says the same on a busy machine; wall time needs a quiet one.
    """
    shape = _shape_of_size(gigabytes)
    with scratch_store(noise, model, shape) as store:
        params = SegmentationParams(model=str(model.path), skip_empty=False)
        own = load(model, [torch.device("cpu")], THREADS).predictor(mirrors=False, precision="half")
        before = _per_window(own, model)
        started = _now()
        record = segment(_job(store, model, params), SilentReporter())
        took = _now() - started
        forward = (before + _per_window(own, model)) / 2
    windows = record.numbers["windows"]
    print("| time | GB | windows | s per window, network alone | s | s / (windows x network) |")
    print("|---|---|---|---|---|---|")
    for name, alone, whole in zip(("wall", "processor"), forward, took, strict=True):
        ratio = whole / (windows * alone)
        print(
            f"| {name} | {gigabytes:g} | {windows:.0f} | {alone:.4f} | {whole:.1f} | {ratio:.3f} |"
        )


def _now() -> NDArray[np.float64]:
    """Wall time and this process's processor time, s."""
    return np.array([time.perf_counter(), time.process_time()])


def _per_window(predict: Callable[..., Iterator[Any]], model: ModelFolder) -> NDArray[np.float64]:
    windows = torch.randn(1, *model.patch).expand(60, 1, *model.patch)
    started = _now()
    for _ in predict(windows):
        pass
    return (_now() - started) / len(windows)


def memory(model: ModelFolder, sizes: list[float]) -> None:
    """Print the stage's peak memory for images of several sizes, with windows as the model's.

    The network has two feature maps: what is measured is what surrounds a network.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = write_random_model(
            Path(scratch) / "small", spacing=_spacing(model).zyx, patch=model.patch, labels=LABELS
        )
        _memory(describe(folder), sizes)


LABELS = {"background": 0, "spine": 1, "dendrite": 2, "soma": 3, "neck": 4}


def _memory(model: ModelFolder, sizes: list[float]) -> None:
    print("| GB of grey values | shape | s | peak MB | against the first |\n|---|---|---|---|---|")
    first = None
    for gigabytes in sizes:
        shape = _shape_of_size(gigabytes)
        with scratch_store(noise, model, shape) as store:
            said = _child(store, model.path, {"skip_empty": False})
        first = first or said["peak_mb"]
        print(
            f"| {gigabytes:g} | {shape} | {said['seconds']:.0f} | {said['peak_mb']:.0f} "
            f"| {said['peak_mb'] / first:.3f} |",
            flush=True,
        )


def _shape_of_size(gigabytes: float) -> Zyx:
    """A stack of 16-bit voxels that is 16 times as wide as deep, as stacks of dendrites are."""
    depth = round((gigabytes * 1e9 / 2 / 256) ** (1 / 3))
    return (depth, 16 * depth, 16 * depth)


def noise(box: Box) -> NDArray[np.uint16]:
    """Grey values without any structure."""
    seed = [part.start for part in box]
    return np.random.default_rng(seed).normal(*NOISE, shape_of(box)).astype(np.uint16)


@contextmanager
def scratch_store(
    image: NDArray[Any] | Callable[[Box], NDArray[Any]],
    model: ModelFolder,
    shape: Zyx | None = None,
) -> Iterator[Path]:
    """A store with one image, for as long as it is needed."""
    read = image if callable(image) else lambda box: image[box]
    size = shape or image.shape  # type: ignore[union-attr]
    dtype = np.uint16 if callable(image) else image.dtype
    with tempfile.TemporaryDirectory() as scratch:
        yield publish_image(Path(scratch) / "image.ome.zarr", size, _spacing(model), read, dtype)


def _job(store: Path, model: ModelFolder, params: SegmentationParams) -> SegmentationJob:
    return SegmentationJob(store, "", model.path, params, Runtime("cpu", THREADS))


def _child(store: Path, model: Path, params: dict[str, Any]) -> dict[str, float]:
    """Segment a store in a fresh process."""
    command = [sys.executable, "-m", "bench.segmentation", "child", "--model", str(model)]
    command += ["--store", str(store), "--params", json.dumps(params)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(answer.stdout))


def child(model: ModelFolder, store: Path, params: dict[str, Any]) -> None:
    """Segment a store and print what it took."""
    started = time.perf_counter()
    segment(
        _job(store, model, SegmentationParams(model=str(model.path), **params)), SilentReporter()
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak}))


@contextmanager
def without_card(model: ModelFolder) -> Iterator[ModelFolder]:
    """A model whose most probable class wins, as nnU-Net has it: a card may name a threshold."""
    with tempfile.TemporaryDirectory() as scratch:
        ignored = shutil.ignore_patterns("card.json")
        copy = shutil.copytree(model.path, Path(scratch) / model.name, ignore=ignored)
        yield describe(copy)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("series", choices=("speed", "steps", "overhead", "memory", "child"))
    parser.add_argument("--model", type=Path, default=Path("models/two-photon"))
    parser.add_argument("--shape", default="24,384,384")
    parser.add_argument("--gb", default="")
    parser.add_argument("--store", type=Path, help="segment this one (series: child)")
    parser.add_argument("--params", default="{}", help="likewise, as JSON")
    arguments = parser.parse_args()
    model = describe(arguments.model)
    z, y, x = (int(size) for size in arguments.shape.split(","))
    if arguments.series == "child":
        child(model, arguments.store, json.loads(arguments.params))
    elif arguments.series == "overhead":
        overhead(model, float(arguments.gb or 0.5))
    elif arguments.series == "memory":
        memory(model, [float(size) for size in (arguments.gb or "0.1,1,4").split(",")])
    else:
        with without_card(model) as plain:
            {"speed": speed, "steps": steps}[arguments.series](plain, (z, y, x))


if __name__ == "__main__":
    main()
