"""What a model was made for: its card as bioimage.io has it, and images that it does not fit.

A model folder may hold a `card.json`. `rdf_of` says the same, and what the folder itself knows, in
the words of bioimage.io's model description (RDF 0.5); what has no place there stands in
`config.respan`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from respan_common.errors import ModelError
from respan_common.geometry import VoxelSpacing
from respan_common.model_files import sha256_of
from respan_common.model_folders import ModelFolder
from respan_common.model_networks import architecture

FAR_IN_PLANE = 2.0
"""Ratio of voxel edges in y or x from which on a model is far from an image.

Training zooms its patches by 0.7 to 1.4, so networks have seen structures up to 1.4 times larger
or smaller. At 2 they are one whole resolution stage of the U-Net away: a spine head has a half or
twice the voxels across.
"""
FAR_ALONG_Z = 3.0
"""The same along z, and for the voxels' proportion (z to x and y).

Optics blur about three times farther along z than across, so the same slices differ less from
one another than their distance suggests.
"""
FORMAT_VERSION = "0.5.14"
"""Of bioimage.io's model description; what the tests validate against."""
_CARRIED = (
    "modality",
    "training_data",
    "training_cases",
    "training_params",
    "metrics",
    "operating_point",
    "limits",
    "label_scheme",
)
"""Entries of card.json that stand in config.respan as they are."""


def misfits(
    folder: ModelFolder,
    image_spacing: VoxelSpacing,
    *,
    modality: str = "",
    trained_um: Sequence[float] | None = None,
) -> list[str]:
    """Reasons why a model is not made for an image, one sentence each; empty if it is.

    Parameters
    ----------
    modality
        How the image was taken, in any words; empty if nobody knows.
    trained_um
        Voxel size (z, y, x) of the training's images, where the user knows better than the model.
    """
    trained = trained_um or folder.trained_um
    far = _far_axis(trained, image_spacing.zyx) if trained else ""
    found = []
    if trained and far:
        found.append(
            f"{folder.name} was trained at {_edges(trained)} µm (z, y, x), this image has "
            f"{_edges(image_spacing.zyx)} µm, {far}: {_WAY_OUT}"
        )
    of_model, of_image = _kinds(str(folder.card.get("modality", ""))), _kinds(modality)
    if of_model and of_image and not of_model & of_image:
        found.append(
            f"{folder.name} was trained for {' or '.join(sorted(of_model))} images, this one is "
            f"{' or '.join(sorted(of_image))}: {_WAY_OUT}"
        )
    return found


_WAY_OUT = (
    "expect poor results. Choose a model that was trained nearer to it (respan models list), or "
    "train one (respan train nnunet)"
)
_MODALITIES = {
    "confocal": ("confocal", "spinning disk", "airyscan"),
    "two-photon": ("two photon", "2 photon", "multi photon", "multiphoton", "2p"),
    "light-sheet": ("light sheet", "lightsheet", "spim"),
    "widefield": ("widefield", "wide field", "epifluorescence"),
    "super-resolution": ("super resolution", "sted", "storm", "palm"),
    "electron": ("electron", "sem", "tem"),
}
"""Words, in lower case and without hyphens, by which a modality is known."""


def _kinds(text: str) -> set[str]:
    words = f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "
    return {
        kind for kind, names in _MODALITIES.items() if any(f" {name} " in words for name in names)
    }


def _far_axis(trained: Sequence[float], image: Sequence[float]) -> str:
    """Which edge is how many times as long, if one is too far; else empty."""
    ratios = [own / wanted for own, wanted in zip(image, trained, strict=True)]
    flat = ratios[0] / (ratios[1] * ratios[2]) ** 0.5
    for name, ratio, limit in (
        ("in y", ratios[1], FAR_IN_PLANE),
        ("in x", ratios[2], FAR_IN_PLANE),
        ("along z", ratios[0], FAR_ALONG_Z),
        ("in the proportion of z to x and y", flat, FAR_ALONG_Z),
    ):
        if max(ratio, 1 / ratio) > limit * (1 + 1e-9):
            return f"{ratio:.3g} times {name}"
    return ""


def _edges(edges: Sequence[float]) -> str:
    return " x ".join(f"{edge:.3g}" for edge in edges)


def rdf_of(folder: ModelFolder) -> dict[str, Any]:
    """A model's description for bioimage.io, as plain values; to be written as rdf.yaml.

    The file belongs beside plans.json: sources are relative to it.

    Raises
    ------
    ModelError
        If the plans describe no network.
    """
    card = folder.card
    described = {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": _name(str(card.get("name") or folder.name)),
        "description": str(card.get("description") or f"nnU-Net model {folder.name}.")[:1024],
        "authors": _authors(card.get("authors")),
        "license": card.get("license"),
        "cite": card.get("cite"),
        "tags": [*_TAGS, "2d" if folder.is_2d else "3d"],
        "documentation": _file(folder.path / "README.md"),
        "covers": [file] if (file := _file(folder.path / "cover.png")) else None,
        "inputs": list(_inputs(folder)),
        "outputs": [_output(folder)],
        "weights": {"pytorch_state_dict": _weights(folder)},
        "config": {"bioimageio": _known_config(folder), "respan": _own_config(folder)},
    }
    return {key: value for key, value in described.items() if value}


_TAGS = ("nnU-Net", "respan", "segmentation", "dendritic spines", "neurons")
_PYTORCH = "2.1.2"
"""The oldest version that nnU-Net v2 runs with; what wrote the weights is not known."""


def _name(text: str) -> str:
    """bioimage.io's names have 5 to 128 letters, digits and few signs."""
    cleaned = re.sub(r"[^\w+\- ()]+", " ", text).strip()[:110]
    return cleaned if len(cleaned) >= 5 else f"RESPAN {cleaned}"


def _authors(given: Any) -> list[dict[str, Any]]:
    listed = given if isinstance(given, list) else [given] if given else []
    return [dict(one) if isinstance(one, dict) else {"name": str(one)} for one in listed]


def _file(path: Path) -> dict[str, str] | None:
    return {"source": path.name, "sha256": sha256_of(path)} if path.is_file() else None


def _inputs(folder: ModelFolder) -> Iterator[dict[str, Any]]:
    """The image, and in a cascade the first stage's classes, in the network's axis order."""
    strides = _total_strides(folder)
    sizes = [
        {"min": size, "step": step} for size, step in zip(_patch(folder), strides, strict=True)
    ]
    image = {
        "id": "image",
        "description": "the neuron's channel",
        "axes": [*_first_axes(["neuron"]), *_space(folder, sizes)],
        "data": {"type": "float32"},
        "preprocessing": _preprocessing(folder),
        "test_tensor": _file(folder.path / "test_input.npy"),
    }
    yield {key: value for key, value in image.items() if value}
    if folder.previous is not None:
        names = [f"class_{value}" for value in folder.foreground]
        references = [{"tensor_id": "image", "axis_id": axis} for axis in _axes(folder)]
        yield {
            "id": "first_stage",
            "description": "masks (0 or 1) of the classes that the cascade's first stage found",
            "axes": [*_first_axes(names), *_space(folder, references)],
            "data": {"type": "float32"},
        }


def _output(folder: ModelFolder) -> dict[str, Any]:
    references = [{"tensor_id": "image", "axis_id": axis} for axis in _axes(folder)]
    sigmoid = {"id": "sigmoid"}
    softmax = {"id": "softmax", "kwargs": {"axis": "channel"}}
    output = {
        "id": "probabilities",
        "description": "of each region" if folder.regions else "of each class",
        "axes": [*_first_axes(list(folder.table.names)), *_space(folder, references)],
        "data": {"type": "float32"},
        "postprocessing": [sigmoid if folder.regions else softmax],
        "test_tensor": _file(folder.path / "test_output.npy"),
    }
    return {key: value for key, value in output.items() if value}


def _first_axes(names: list[str]) -> list[dict[str, Any]]:
    return [{"type": "batch"}, {"type": "channel", "channel_names": names}]


def _axes(folder: ModelFolder) -> list[str]:
    """Spatial axes in the network's order; a 2d network has no first one."""
    names = ["zyx"[axis] for axis in folder.transpose]
    return names[1:] if folder.is_2d else names


def _patch(folder: ModelFolder) -> Sequence[int]:
    return folder.patch[1:] if folder.is_2d else folder.patch


def _space(folder: ModelFolder, sizes: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for axis, size in zip(_axes(folder), sizes, strict=True):
        described: dict[str, Any] = {"type": "space", "id": axis, "size": dict(size)}
        if folder.spacing_um:
            edge = folder.spacing_um["zyx".index(axis)]
            described |= {"unit": "micrometer", "scale": edge}
        yield described


def _preprocessing(folder: ModelFolder) -> list[dict[str, Any]]:
    """nnU-Net's normalization in bioimage.io's words; none where they have none."""
    axes = ["channel", *_axes(folder)]
    scheme = folder.settings["normalization_schemes"][0]
    grey = _grey_values(folder)
    known: dict[str, list[dict[str, Any]]] = {
        "ZScoreNormalization": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": axes}}],
        "RescaleTo01Normalization": [{"id": "scale_range", "kwargs": {"axes": axes}}],
        "RGBTo01Normalization": [{"id": "scale_linear", "kwargs": {"gain": 1 / 255}}],
        "CTNormalization": [
            {
                "id": "clip",
                "kwargs": {"min": grey["percentile_00_5"], "max": grey["percentile_99_5"]},
            },
            {
                "id": "fixed_zero_mean_unit_variance",
                "kwargs": {"mean": grey["mean"], "std": max(grey["std"], 1e-6)},
            },
        ]
        if grey
        else [],
    }
    return known.get(scheme, [])


def _grey_values(folder: ModelFolder) -> Mapping[str, float]:
    """Grey values of the training data's foreground; early plans name them otherwise."""
    for key in ("per_channel", "by_modality"):
        grey: Mapping[str, float] | None
        grey = folder.plans.get(f"foreground_intensity_properties_{key}", {}).get("0")
        if grey:
            return grey
    return {}


def _weights(folder: ModelFolder) -> dict[str, Any]:
    """The first fold; the others stand in config.respan."""
    first = folder.checkpoints[0]
    return {
        "source": first.relative_to(folder.path).as_posix(),
        "sha256": sha256_of(first),
        "pytorch_version": str(folder.card.get("pytorch_version", _PYTORCH)),
        "architecture": _architecture(folder),
        "comment": "An nnU-Net v2 checkpoint: its state dict is under 'network_weights'. Arguments "
        "of the architecture that begin with 'torch.nn.' are classes.",
    }


def _architecture(folder: ModelFolder) -> dict[str, Any]:
    name, arguments, _ = architecture(folder)
    place, _, network = name.rpartition(".")
    ends = {"input_channels": folder.inputs, "num_classes": folder.outputs}
    return {"import_from": place, "callable": network, "kwargs": {**arguments, **ends}}


def _total_strides(folder: ModelFolder) -> list[int]:
    """Voxels per step of allowed sizes: what the network halves, and halves again."""
    strides = architecture(folder)[1].get("strides") or []
    each = [one if isinstance(one, list) else [one] * len(_patch(folder)) for one in strides]
    return [math.prod(int(one[axis]) for one in each) for axis in range(len(_patch(folder)))]


def _known_config(folder: ModelFolder) -> dict[str, Any]:
    """What bioimage.io has a name for outside of the description proper."""
    card = folder.card
    known = {
        "architecture_type": "nnU-Net v2",
        "modality": card.get("modality"),
        "target_structure": [name for name in folder.table.names if name != "background"],
        "task": "semantic segmentation",
        "bias_risks_limitations": {"limitations": card["limits"]} if card.get("limits") else None,
    }
    return {key: value for key, value in known.items() if value}


def _own_config(folder: ModelFolder) -> dict[str, Any]:
    card = folder.card
    own: dict[str, Any] = {
        "kind": "nnunet",
        "configuration": folder.configuration,
        "digest": folder.digest,
        "labels": folder.labels,
        "roles": _roles(folder),
        "regions": [list(values) for values in folder.regions or ()],
        "spacing_um": list(folder.spacing_um or ()),
        "patch": list(folder.patch),
        "normalization": list(folder.settings["normalization_schemes"]),
        "weights": [
            {"source": path.relative_to(folder.path).as_posix(), "sha256": sha256_of(path)}
            for path in folder.checkpoints
        ],
    }
    if folder.previous is not None:
        own["first_stage"] = {"name": folder.previous.path.name, **_own_config(folder.previous)}
    own |= {key: card[key] for key in _CARRIED if key in card}
    return {key: value for key, value in own.items() if value}


def _roles(folder: ModelFolder) -> dict[str, int]:
    """What the labels mean to RESPAN; nothing if their names say nothing."""
    try:
        return folder.roles()
    except ModelError:
        return {}
