"""Which network a model's plans describe, in both of nnU-Net's notations.

Plans name Python objects that are looked up and called. A name is followed from attribute to
attribute, so `torch.nn.functional.torch.os.system` is a name, too: only the very places of
networks and layers are allowed, never what begins with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from respan_common.errors import ModelError
from respan_common.model_folders import ModelFolder

_NETWORK = re.compile(
    r"dynamic_network_architectures\.architectures\.[a-z0-9_]+\.[A-Z]\w*", re.ASCII
)
_LAYER = re.compile(r"torch\.nn\.(modules\.[a-z_]+\.)?[A-Z]\w*", re.ASCII)
_LAYERS = ("conv_op", "norm_op", "dropout_op", "nonlin")


def architecture(model: ModelFolder) -> tuple[str, Mapping[str, Any], Sequence[str]]:
    """Class of the network, its arguments, and which of them are names of layers.

    As nnU-Net's `get_network_from_plans` takes them; plans of nnU-Net up to 2.1 are translated.

    Raises
    ------
    ModelError
        If the plans lack them, or name anything but networks and layers.
    """
    where = model.path / "plans.json"
    described = model.settings.get("architecture")
    try:
        network, arguments, imported = (
            _old_architecture(model.settings)
            if described is None
            else (
                described["network_class_name"],
                dict(described["arch_kwargs"]),
                list(described["_kw_requires_import"]),
            )
        )
        layers = [arguments[key] for key in imported]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"{where} describes no network that is known ({error})") from error
    strange = [name for name in layers if name is not None and not _LAYER.fullmatch(str(name))]
    if not _NETWORK.fullmatch(str(network)):
        strange.append(network)
    if strange:
        raise ModelError(
            f"{where} is refused: it names {', '.join(map(str, strange))}, which is neither one of "
            "nnU-Net's networks (dynamic_network_architectures) nor a layer of torch.nn"
        )
    return network, arguments, imported


def _old_architecture(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    """What nnU-Net makes of plans that it wrote up to version 2.1."""
    network = settings["UNet_class_name"]
    blocks = settings["n_conv_per_stage_encoder"]
    first, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    dimensions = len(settings["patch_size"])
    residual = network == "ResidualEncoderUNet"
    arguments = {
        "n_stages": len(blocks),
        "features_per_stage": [min(first * 2**stage, most) for stage in range(len(blocks))],
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "kernel_sizes": settings["conv_kernel_sizes"],
        "strides": settings["pool_op_kernel_sizes"],
        "n_blocks_per_stage" if residual else "n_conv_per_stage": blocks,
        "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return f"dynamic_network_architectures.architectures.unet.{network}", arguments, [*_LAYERS]
