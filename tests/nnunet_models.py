"""Small nnU-Net v2 model folders with random weights, made by nnU-Net's own classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import LabelManager

LABELS = {"background": 0, "spine": 1, "dendrite": 2, "soma": 3}
REGIONS = {"background": 0, "neuron": [1, 2, 3], "spine": 1, "soma": 3}
"""Painted in this order; what is left of the neuron is dendrite, 2."""
REGIONS_ORDER = (2, 1, 3)

_BLOCKS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}


def write_random_model(
    folder: Path,
    *,
    labels: Mapping[str, int | list[int]] = LABELS,
    regions_class_order: Sequence[int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    patch: Sequence[int] = (16, 32, 32),
    features: Sequence[int] = (2, 4),
    normalization: str = "ZScoreNormalization",
    folds: Sequence[str] = ("all",),
    checkpoint: str = "checkpoint_final.pth",
    mirror_axes: Sequence[int] | None = None,
    mask_zeros: bool = False,
    transpose: Sequence[int] = (0, 1, 2),
    convs: int = 1,
    network: str = "PlainConvUNet",
    configuration: str = "",
    seed: int = 0,
) -> Path:
    """Write dataset.json, plans.json and one checkpoint per fold; the folder itself is returned.

    A patch of two sizes makes a 2d model. `configuration` is nnU-Net's name of it; the second stage
    of a cascade (`3d_cascade_fullres`) sees the classes of the first. Weights are random, decided
    by `seed`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = configuration or ("2d" if len(patch) == 2 else "3d_fullres")
    settings = _configuration(spacing, patch, features, normalization, mask_zeros, convs, network)
    if name == "3d_cascade_fullres":
        settings["previous_stage"] = "3d_lowres"
    dataset = {"channel_names": {"0": "channel1"}, "labels": dict(labels), "numTraining": 1}
    if regions_class_order:
        dataset["regions_class_order"] = list(regions_class_order)
    (folder / "dataset.json").write_text(json.dumps(dataset | {"file_ending": ".tif"}))
    plans = _plans(name, settings, spacing, transpose)
    (folder / "plans.json").write_text(json.dumps(plans))
    for number, fold in enumerate(folds):
        torch.manual_seed(seed + number)
        content = {
            "network_weights": _network(settings, dataset).state_dict(),
            "init_args": {"configuration": name, "fold": fold},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": tuple(mirror_axes or range(len(patch))),
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(content, folder / f"fold_{fold}" / checkpoint)
    return folder


def write_random_cascade(
    folder: Path,
    *,
    low_spacing: Sequence[float] = (2.0, 2.0, 2.0),
    low_patch: Sequence[int] = (8, 16, 16),
    **settings: Any,
) -> Path:
    """Write both stages of a cascade into a dataset folder, which is returned.

    `settings` are those of `write_random_model`, for both stages.
    """
    names = {stage: f"nnUNetTrainer__nnUNetPlans__{stage}" for stage in _STAGES}
    low, full = (folder / names[stage] for stage in _STAGES)
    coarse = settings | {"spacing": low_spacing, "patch": low_patch}
    write_random_model(low, configuration=_STAGES[0], **coarse)
    write_random_model(full, configuration=_STAGES[1], **settings)
    return folder


_STAGES = ("3d_lowres", "3d_cascade_fullres")


def make_plans_old(folder: Path) -> Path:
    """Rewrite a plain model's plans.json as nnU-Net wrote it up to version 2.1."""
    plans = json.loads((folder / "plans.json").read_text())
    for settings in plans["configurations"].values():
        architecture = settings.pop("architecture")
        network = architecture["network_class_name"].rpartition(".")[2]
        arguments = architecture["arch_kwargs"]
        settings |= {
            "UNet_class_name": network,
            "UNet_base_num_features": arguments["features_per_stage"][0],
            "unet_max_num_features": arguments["features_per_stage"][-1],
            "n_conv_per_stage_encoder": arguments[_BLOCKS[network]],
            "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
            "num_pool_per_axis": [len(arguments["strides"]) - 1] * len(settings["patch_size"]),
            "pool_op_kernel_sizes": arguments["strides"],
            "conv_kernel_sizes": arguments["kernel_sizes"],
        }
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


def _configuration(
    spacing: Sequence[float],
    patch: Sequence[int],
    features: Sequence[int],
    normalization: str,
    mask_zeros: bool,
    convs: int,
    network: str,
) -> dict[str, Any]:
    dimensions, stages = len(patch), len(features)
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    flat = dimensions == 3 and spacing[0] > 3 * spacing[2]
    kernel = [1, 3, 3] if flat else [3] * dimensions
    stride = [1, 2, 2] if flat else [2] * dimensions
    return {
        "data_identifier": "nnUNetPlans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "spacing": list(spacing)[-dimensions:],
        "normalization_schemes": [normalization],
        "use_mask_for_norm": [mask_zeros],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{network}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(features),
                "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
                "kernel_sizes": [kernel] * stages,
                "strides": [[1] * dimensions] + [stride] * (stages - 1),
                _BLOCKS[network]: [convs] * stages,
                "n_conv_per_stage_decoder": [convs] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def _plans(
    name: str, settings: dict[str, Any], spacing: Sequence[float], transpose: Sequence[int]
) -> dict[str, Any]:
    return {
        "dataset_name": "Dataset001_random",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": [64, 64, 64],
        "image_reader_writer": "Tiff3DIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [list(transpose).index(axis) for axis in range(3)],
        "configurations": {name: settings},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": 300.0,
                "std": 120.0,
                "percentile_00_5": 40.0,
                "percentile_99_5": 700.0,
            }
        },
    }


def _network(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> torch.nn.Module:
    labels = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
    seen = len(labels.foreground_labels) if "previous_stage" in settings else 0
    architecture = settings["architecture"]
    network: torch.nn.Module = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        input_channels=1 + seen,
        output_channels=labels.num_segmentation_heads,
        allow_init=True,
        deep_supervision=True,
    )
    for name, values in network.named_parameters():
        if "seg_layers" in name and name.endswith("weight"):
            torch.nn.init.normal_(values, std=1.0)
    return network
