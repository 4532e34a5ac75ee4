"""Which network a model's plans describe, in both of nnU-Net's notations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from respan_common.errors import ModelError
from respan_common.model_folders import ModelFolder

NETWORKS = "dynamic_network_architectures.architectures."
"""Where nnU-Net's networks are."""


def architecture(model: ModelFolder) -> tuple[str, Mapping[str, Any], Sequence[str]]:
    """Class, arguments, and names of those arguments that are imported; old plans as well.

    Raises
    ------
    ModelError
        If the plans lack them.
    """
    described = model.settings.get("architecture")
    try:
        if described is not None:
            imported = described["_kw_requires_import"]
            return described["network_class_name"], described["arch_kwargs"], imported
        return _old_architecture(model.settings)
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{model.path / 'plans.json'} describes no network that is known: {error} is missing"
        ) from error


def _old_architecture(
    settings: Mapping[str, Any],
) -> tuple[str, Mapping[str, Any], Sequence[str]]:
    """The same, as nnU-Net wrote it up to version 2.1."""
    blocks = settings["n_conv_per_stage_encoder"]
    first, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    arguments = {
        "n_stages": len(blocks),
        "features_per_stage": [min(first * 2**stage, most) for stage in range(len(blocks))],
        "kernel_sizes": settings["conv_kernel_sizes"],
        "strides": settings["pool_op_kernel_sizes"],
        "n_conv_per_stage": blocks,
        "n_blocks_per_stage": blocks,
        "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
    }
    return (
        f"{NETWORKS}unet.{settings['UNet_class_name']}",
        arguments,
        (),
    )
