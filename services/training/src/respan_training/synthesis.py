"""Phantom volumes as files: images, labels, instances and truth, each volume once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from respan_common.params import SynthesisParams
from respan_common.schemes import SCHEMES
from respan_training.phantoms import Phantom, make_phantom, swc_text
from respan_training.tiffs import write_volume

Writer = Callable[[Path, str, Phantom], list[Path]]
"""Writes one phantom below a folder under a name; returns its files."""


def write_phantoms(
    folder: Path, params: SynthesisParams, write: Writer
) -> Iterator[tuple[str, list[str], bool]]:
    """Make every phantom that is not there yet.

    A small record per volume, written last, says that its files are complete and which
    parameters made them; a volume with another record, or none, is made anew.

    Yields
    ------
    tuple
        Name of a finished volume, its files relative to `folder`, and whether it was there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(params.images):
        name = volume_name(params, number)
        record = folder / ".records" / f"{name}.json"
        made_by = {"params": _content(params), "number": number, "writer": write.__name__}
        if (files := _recorded(folder, record, made_by)) is not None:
            yield name, files, True
            continue
        record.unlink(missing_ok=True)
        written = write(folder, name, make_phantom(params, number, folder))
        files = [str(path.relative_to(folder)) for path in written]
        write_text(record, json.dumps({**made_by, "files": files}, indent=2))
        yield name, files, False


def volume_name(params: SynthesisParams, number: int) -> str:
    """File name of a volume, without ending."""
    return f"{params.kind}_{params.seed}_{number:03d}"


def write_truth(folder: Path, name: str, phantom: Phantom) -> list[Path]:
    """Write a phantom with everything that is known about it.

    `images`, `labels` (classes), `instances` (spine numbers) and `truth` (tables, centerlines and,
    if there are any, surfaces), as Fiji opens them.
    """
    files = {part: folder / part / f"{name}.tif" for part in ("images", "labels", "instances")}
    write_volume(files["images"], _fiji(phantom.image), phantom.spacing)
    write_volume(files["labels"], phantom.labels, phantom.spacing)
    write_volume(files["instances"], phantom.instances, phantom.spacing)
    truth = folder / "truth"
    texts = {
        truth / f"{name}_spines.csv": phantom.spines.to_csv(index=False),
        truth / f"{name}_dendrites.csv": phantom.dendrites.to_csv(index=False),
        truth / f"{name}.swc": swc_text(phantom),
    }
    for path, text in texts.items():
        write_text(path, text)
    meshes = []
    for number, surface in enumerate(phantom.surfaces, start=1):
        meshes.append(truth / f"{name}_meshes" / f"{number}.ply")
        surface.write(meshes[-1])
    return [*files.values(), *texts, *meshes]


def write_case(folder: Path, name: str, phantom: Phantom) -> list[Path]:
    """Write a phantom as a training case of nnU-Net: one image per channel, and labels."""
    images = [
        (folder / "imagesTr" / f"{name}_{index:04d}.tif", channel)
        for index, channel in enumerate(phantom.image)
    ]
    labels = folder / "labelsTr" / f"{name}.tif"
    for path, array in [*images, (labels, phantom.labels)]:
        write_volume(path, array, phantom.spacing)
    return [*(path for path, _ in images), labels]


def write_training_data(
    folder: Path, params: SynthesisParams, tell: Callable[[str], None] = lambda name: None
) -> None:
    """Write phantoms as a data set that `run_training` understands."""
    for name, _, _ in write_phantoms(folder, params, write_case):
        tell(name)
    write_text(folder / "dataset.json", json.dumps(_description(params), indent=2))


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def _description(params: SynthesisParams) -> dict[str, Any]:
    names = ["neuron", *(f"channel{number}" for number in range(2, params.channels + 1))]
    return {
        "channel_names": {str(index): name for index, name in enumerate(names)},
        "labels": {"background": 0, **SCHEMES[params.label_scheme]},
        "numTraining": params.images,
        "file_ending": ".tif",
    }


def _fiji(image: NDArray[Any]) -> NDArray[Any]:
    """(c, z, y, x) as ImageJ orders it: (z, c, y, x), or (z, y, x) for one channel."""
    return image[0] if len(image) == 1 else image.swapaxes(0, 1)


def _content(params: SynthesisParams) -> dict[str, Any]:
    """Parameters that one volume depends on: not how many there are."""
    return params.model_dump(mode="json", exclude={"images"})


def _recorded(folder: Path, record: Path, made_by: dict[str, Any]) -> list[str] | None:
    if not record.exists():
        return None
    known = json.loads(record.read_text())
    files: list[str] = known.pop("files")
    complete = known == made_by and all((folder / file).exists() for file in files)
    return files if complete else None
