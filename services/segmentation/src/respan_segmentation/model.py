"""Load an nnU-Net v2 model and run its networks on patches.

Networks are built from plans.json alone, by nnU-Net's own classes: no trainer is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from respan_common.checkpoints import read_checkpoint
from respan_common.errors import ModelError
from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.model_folders import ModelFolder
from respan_common.model_networks import architecture
from respan_segmentation import processor
from respan_segmentation.networks import BatchedNetwork, Network, Predict, averaged
from respan_segmentation.resampling import Regrid, flat_axis_of, regrid

# Larger batches of windows did not pay in nnU-Net's own measurements; smaller ones leave gaps.
_GPU_BATCH_VOXELS = 2**22

_RESAMPLING = {"resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"}


Precision = Literal["nnunet", "half", "full"]


@dataclass(frozen=True)
class Model:
    """Networks of one model folder on one kind of device, one for each fold."""

    folder: ModelFolder
    networks: tuple[nn.Module, ...]
    mirror_axes: tuple[int, ...]
    """Axes (0, 1, 2 of a patch) along which it was trained to be mirrored."""
    devices: tuple[torch.device, ...]
    """Where windows are predicted; more than one share each batch."""
    threads: int = 1
    _runs: dict[bool, tuple[Network, ...]] = field(default_factory=dict)
    """Networks as they are run, in half precision or not; made when first asked for."""

    def predictor(
        self, *, mirrors: bool, precision: Precision = "nnunet", disagreement: bool = False
    ) -> Predict:
        """Function from windows to scores, averaged over folds and mirror images."""
        axes = self.mirror_axes if mirrors else ()
        return averaged(
            self._networks(precision), axes, is_2d=self.folder.is_2d, disagreement=disagreement
        )

    @property
    def least_batch(self) -> int | None:
        """Windows at a time to which memory has forced this model; None if it has not."""
        batches = [
            network.batch
            for run in self._runs.values()
            for network in run
            if isinstance(network, BatchedNetwork)
        ]
        return min(batches) if batches and min(batches) < self._batch else None

    @property
    def _batch(self) -> int:
        """Windows that are worth predicting at once."""
        if self.devices[0].type == "cpu":
            return 2  # PyTorch has its fast convolutions only for batches
        voxels = _GPU_BATCH_VOXELS // max(math.prod(self.folder.patch), 1)
        return min(max(voxels, 1), 8) * len(self.devices)

    def _networks(self, precision: Precision) -> tuple[Network, ...]:
        on_gpu = self.devices[0].type == "cuda"
        half = precision == "half" or (precision == "nnunet" and on_gpu)
        if half not in self._runs:
            self._runs[half] = tuple(
                self._run(number, half=half) for number in range(len(self.networks))
            )
        return self._runs[half]

    def _run(self, number: int, *, half: bool) -> Network:
        network, compiled = self.networks[number], None
        if self.devices[0].type == "cpu":
            shape = (self.folder.inputs, *self.folder.settings["patch_size"])
            digest = f"{number}{self.folder.digest}"
            compiled = processor.compiled(network, digest, shape, self.threads, half=half)
        return compiled or BatchedNetwork(network, self.devices, self._batch, half=half)


_loaded: dict[tuple[str, str], Model] = {}
"""The last models that this process used; loading takes longer than small volumes do."""
_LOADED_AT_MOST = 2
"""A model and the one that refines its result, or both stages of a cascade."""


def load(folder: ModelFolder, devices: Sequence[torch.device], threads: int = 1) -> Model:
    """Networks of a model folder, ready to predict; the last ones stay in memory.

    Raises
    ------
    ModelError
        If the folder's files do not fit one another, or would have to run code to be read.
    """
    key = (folder.digest, f"{[str(device) for device in devices]} {threads}")
    if key not in _loaded:
        while len(_loaded) >= _LOADED_AT_MOST:  # frees memory before the new one needs it
            _loaded.pop(next(iter(_loaded)))
        _loaded[key] = _load(folder, tuple(devices), threads)
    return _loaded[key]


def _load(folder: ModelFolder, devices: tuple[torch.device, ...], threads: int) -> Model:
    checkpoints = [read_checkpoint(path) for path in folder.checkpoints]
    for path, checkpoint in zip(folder.checkpoints, checkpoints, strict=True):
        _check_configuration(folder, path, checkpoint)
    networks = tuple(
        _with_weights(folder, path, checkpoint).eval().requires_grad_(False)
        for path, checkpoint in zip(folder.checkpoints, checkpoints, strict=True)
    )
    shift = 1 if folder.is_2d else 0  # a 2d model's axis 0 is the image's y
    mirrors = checkpoints[0].get("inference_allowed_mirroring_axes") or ()
    axes = tuple(int(axis) + shift for axis in mirrors)
    return Model(folder, networks, axes, devices, threads)


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
    try:
        network: nn.Module = get_network_from_plans(
            *architecture(folder),
            input_channels=folder.inputs,
            output_channels=folder.outputs,
            allow_init=False,
            deep_supervision=False,
        )
    except (ImportError, TypeError, ValueError, KeyError, AssertionError) as error:
        raise ModelError(
            f"{folder.path / 'plans.json'} describes no network that can be built: {error}"
        ) from error
    return network


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
    orders = (_order(*kinds[0], default=3), _order(*kinds[1], default=1))
    return regrid(image_shape, own, wanted, flat_axis_of(forced, own, wanted), orders)


def mask_grids(folder: ModelFolder, regrid: Regrid) -> Regrid:
    """The same two grids for masks, which nnU-Net resamples with an order of their own."""
    order = _order(*_resampling(folder, "resampling_fn_seg"), default=1)
    first, second, third = (
        replace(axis, order_in=min(order, axis.order_in)) for axis in regrid.axes
    )
    return Regrid((first, second, third))


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
