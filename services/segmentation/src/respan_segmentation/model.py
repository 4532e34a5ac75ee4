"""Load an nnU-Net v2 model and run its networks on patches.

Checkpoints are pickles, and pickles can run code. They are read with torch's restricted reader,
which knows tensors, plain containers and the numpy scalars below, and refuses everything else.
Networks are built from plans.json alone, by nnU-Net's own classes: no trainer is imported.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from respan_common.errors import ModelError
from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.model_folders import ModelFolder
from respan_segmentation.resampling import Regrid, regrid
from respan_segmentation.tiles import Predict

_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
_ARRAY = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
# What nnU-Net's training log may hold besides tensors; numpy 1 wrote the other path.
_HARMLESS: list[Any] = [
    np.dtype,
    np.ndarray,
    _SCALAR,
    _ARRAY,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_ARRAY, "numpy.core.multiarray._reconstruct"),
    *(type(np.dtype(name)) for name in ("bool", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8")),
]
# plans.json names Python objects to call: only networks and layers may be named.
_NETWORKS = "dynamic_network_architectures.architectures."
_LAYERS = "torch.nn."
_RESAMPLING = {"resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"}


@dataclass(frozen=True)
class Model:
    """Networks of one model folder on one device, one for each fold."""

    folder: ModelFolder
    networks: tuple[nn.Module, ...]
    mirror_axes: tuple[int, ...]
    """Axes (0, 1, 2 of a patch) along which it was trained to be mirrored."""
    device: torch.device

    def predictor(self, *, mirrors: bool) -> Predict:
        """Function from patches to logits, averaged over folds and mirror images."""
        axes = self.mirror_axes if mirrors else ()
        flips = [
            flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)
        ]

        def predict(patches: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), _precision(self.device):
                logits = self._logits(patches)
                for flip in flips[1:]:
                    dims = [axis + 2 for axis in flip]
                    logits += torch.flip(self._logits(torch.flip(patches, dims)), dims)
                return logits.div_(len(flips))

        return predict

    def _logits(self, patches: torch.Tensor) -> torch.Tensor:
        """Mean over folds, float32, shape (n, classes, z, y, x)."""
        seen = patches[:, :, 0] if self.folder.is_2d else patches
        logits: torch.Tensor = self.networks[0](seen).float()
        for network in self.networks[1:]:
            logits += network(seen)
        logits /= len(self.networks)
        return logits[:, :, None] if self.folder.is_2d else logits


def _precision(device: torch.device) -> torch.autocast:
    """Half precision on GPUs, as nnU-Net has it; single precision on processors."""
    return torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda")


_loaded: dict[tuple[str, str], Model] = {}
"""The last model that this process used; loading takes longer than small volumes do."""


def load(folder: ModelFolder, device: torch.device) -> Model:
    """Networks of a model folder, ready to predict; the last one stays in memory.

    Raises
    ------
    ModelError
        If the folder's files do not fit one another, or would have to run code to be read.
    """
    key = (folder.digest, str(device))
    if key not in _loaded:
        _loaded.clear()  # frees the old model's memory before the new one needs it
        _loaded[key] = _load(folder, device)
    return _loaded[key]


def _load(folder: ModelFolder, device: torch.device) -> Model:
    checkpoints = [read_checkpoint(path) for path in folder.checkpoints]
    for path, checkpoint in zip(folder.checkpoints, checkpoints, strict=True):
        _check_configuration(folder, path, checkpoint)
    networks = tuple(
        _with_weights(folder, path, checkpoint).eval().requires_grad_(False).to(device)
        for path, checkpoint in zip(folder.checkpoints, checkpoints, strict=True)
    )
    shift = 1 if folder.is_2d else 0  # a 2d model's axis 0 is the image's y
    mirrors = checkpoints[0].get("inference_allowed_mirroring_axes") or ()
    return Model(folder, networks, tuple(int(axis) + shift for axis in mirrors), device)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, read without running any code in it.

    Raises
    ------
    ModelError
        If it needs more than tensors and numbers, or is not a checkpoint of nnU-Net v2.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ModelError(f"{path} {_complaint(error)}") from error
    if not isinstance(content, dict) or "network_weights" not in content:
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v2: it has no 'network_weights'")
    return content


def _complaint(error: Exception) -> str:
    """What is wrong, without the restricted reader's advice on how to switch it off."""
    forbidden = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
    if not forbidden:
        return f"is not a readable checkpoint ({str(error).splitlines()[0]}): copy it again"
    return (
        "is refused: reading it would run code from the file "
        f"({forbidden[0].split(' was not an allowed')[0]}). If you trust its origin, save its "
        "weights again with torch.save({'network_weights': ..., 'init_args': "
        "{'configuration': ...}}, path)"
    )


def _check_configuration(folder: ModelFolder, path: Path, checkpoint: Mapping[str, Any]) -> None:
    trained = checkpoint.get("init_args", {}).get("configuration", folder.configuration)
    if trained != folder.configuration:
        raise ModelError(
            f"{path} was trained as '{trained}', but {folder.path} is taken for "
            f"'{folder.configuration}': name the folder nnUNetTrainer__nnUNetPlans__{trained}"
        )


def _with_weights(folder: ModelFolder, path: Path, checkpoint: Mapping[str, Any]) -> nn.Module:
    network = build_network(folder)
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError as error:
        trainer = checkpoint.get("trainer_name", "nnUNetTrainer")
        raise ModelError(
            f"the weights of {path} do not fit the network that plans.json describes (trained by "
            f"{trainer}). Either plans.json belongs to another model, or that trainer builds a "
            f"network of its own, which is not supported: {str(error).splitlines()[-1].strip()}"
        ) from error
    return network


def build_network(folder: ModelFolder) -> nn.Module:
    """The network that a model's plans describe, with random weights.

    Raises
    ------
    ModelError
        If the plans name anything but a known network and torch's layers.
    """
    configuration = PlansManager(dict(folder.plans)).get_configuration(folder.configuration)
    arguments = configuration.network_arch_init_kwargs
    imported = configuration.network_arch_init_kwargs_req_import
    _check_names(
        folder, configuration.network_arch_class_name, [arguments[key] for key in imported]
    )
    try:
        network: nn.Module = get_network_from_plans(
            configuration.network_arch_class_name,
            arguments,
            imported,
            input_channels=1,
            output_channels=folder.classes,
            allow_init=False,
            deep_supervision=False,
        )
    except (ImportError, TypeError, ValueError, KeyError, AssertionError) as error:
        raise ModelError(
            f"{folder.path / 'plans.json'} describes no network that can be built: {error}"
        ) from error
    return network


def _check_names(folder: ModelFolder, network: str, layers: Sequence[str | None]) -> None:
    strange = [name for name in layers if name is not None and not name.startswith(_LAYERS)]
    if not network.startswith(_NETWORKS):
        strange.append(network)
    if strange:
        raise ModelError(
            f"{folder.path / 'plans.json'} is refused: it names {', '.join(strange)}, which is "
            f"neither one of nnU-Net's networks ({_NETWORKS}*) nor a layer ({_LAYERS}*)"
        )


def grids(
    folder: ModelFolder,
    image_shape: Zyx,
    image_spacing: VoxelSpacing,
    model_spacing: Sequence[float] | None,
) -> Regrid:
    """How an image's grid meets the model's.

    Parameters
    ----------
    image_shape
        Voxels, in nnU-Net's axis order.
    image_spacing
        Voxel size of the image (z, y, x).
    model_spacing
        Voxel size (z, y, x) that the model wants; None: the image's own.
    """
    own = [image_spacing.zyx[axis] for axis in folder.transpose]
    wanted = [(model_spacing or image_spacing.zyx)[axis] for axis in folder.transpose]
    if folder.is_2d:
        wanted[0] = own[0]  # slices are seen one by one, wherever they are
    kinds = [_resampling(folder, f"resampling_fn_{what}") for what in ("data", "probabilities")]
    if any(name == "no_resampling_hack" for name, _ in kinds):
        wanted = own
    forced = kinds[0][1].get("force_separate_z")
    _, flat_axis = determine_do_sep_z_and_axis(forced, own, wanted)
    orders = (_order(*kinds[0], default=3), _order(*kinds[1], default=1))
    return regrid(image_shape, own, wanted, None if flat_axis is None else int(flat_axis), orders)


def _resampling(folder: ModelFolder, key: str) -> tuple[str, Mapping[str, Any]]:
    name = str(folder.settings.get(key, "resample_data_or_seg_to_shape"))
    if name not in _RESAMPLING:
        raise ModelError(
            f"{folder.path / 'plans.json'} wants '{name}' for {key}, which is not supported; "
            f"known: {', '.join(sorted(_RESAMPLING))}"
        )
    return name, folder.settings.get(f"{key}_kwargs", {})


def _order(name: str, arguments: Mapping[str, Any], default: int) -> int:
    return 1 if name == "resample_torch_fornnunet" else int(arguments.get("order", default))
