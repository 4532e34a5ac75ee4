"""nnU-Net's trainer without its surroundings: no log files, no compilation, no processes."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.helpers.scalar_type import RandomScalar
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from respan_common.devices import half_precision
from respan_training.nnunet_plan import CONFIGURATION
from respan_training.weight_average import WeightAverage

logger = logging.getLogger(__name__)

# Open cases: each holds two files and a list of foreground voxels of about a megabyte.
_HELD_CASES = 256


class HeldDataset(nnUNetDatasetBlosc2):  # type: ignore[misc]
    """Preprocessed cases that stay open, instead of being opened anew for every patch."""

    def __init__(self, folder: str, identifiers: Any = None, **kwargs: Any) -> None:
        super().__init__(folder, identifiers, **kwargs)
        self._held: dict[str, Any] = {}

    def load_case(self, identifier: str) -> Any:
        """Image, labels, None, properties; the arrays are read from disk where they are cut."""
        if identifier not in self._held:
            if len(self._held) >= _HELD_CASES:
                self._held.pop(next(iter(self._held)))
            self._held[identifier] = super().load_case(identifier)
        return self._held[identifier]


class Trainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's recipe: network, loss, optimizer, schedule, augmentation."""

    optimizer_name = "sgd"
    class_weights: torch.Tensor | None = None
    """Weight of each class in the cross-entropy; None: the same for all."""
    mixed_precision = False
    """Whether a processor, too, computes in half precision."""
    averaging = 0.0
    """Decay of the average of the weights; 0: none."""
    average: WeightAverage | None = None

    def print_to_log_file(self, *args: Any, **_: Any) -> None:
        """Log instead of print."""
        logger.debug(" ".join(map(str, args)))

    def _do_i_compile(self) -> bool:
        return False

    def initialize(self) -> None:
        """Build network, optimizer and loss, and hold the data."""
        super().initialize()
        self.dataset_class = HeldDataset

    def start_averaging(self) -> None:
        """Begin to average the weights, if that is asked for."""
        if self.averaging > 0:
            self.average = WeightAverage(self.network, self.averaging)

    @property
    def final_weights(self) -> dict[str, torch.Tensor]:
        """What the trained model is: averaged weights, or the last."""
        if self.average is not None:
            return self.average.weights
        return dict(self.network.state_dict())

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of the optimizer."""
        on_processor = self.mixed_precision and self.device.type == "cpu"
        dtype = half_precision("cpu") if on_processor else None
        outcome: dict[str, Any] = (
            super().train_step(batch) if dtype is None else self._mixed_step(batch, dtype)
        )
        if self.average is not None:
            self.average.update(self.network)
        return outcome

    def _mixed_step(self, batch: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
        """nnU-Net's step, in bfloat16 but for the loss; its range needs no scaling of gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype):
            output = self.network(batch["data"])
        whole = [part.float() for part in output] if isinstance(output, list) else output.float()
        loss = self.loss(whole, batch["target"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return {"loss": loss.detach().numpy()}

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule; nnU-Net's own is SGD."""
        if self.optimizer_name == "sgd":
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay
        )
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _build_loss(self) -> Any:
        loss = super()._build_loss()
        compound = loss.loss if self.enable_deep_supervision else loss
        if self.class_weights is not None and isinstance(compound, DC_and_CE_loss):
            compound.ce.weight = self.class_weights.to(self.device)
        return loss

    def get_tr_and_val_datasets(self) -> Any:
        """All cases, for learning and for watching it; held once."""
        every = HeldDataset(self.preprocessed_dataset_folder)
        return every, every

    def get_dataloaders(self) -> Any:
        """nnU-Net's loaders, made reproducible."""
        loaders = super().get_dataloaders()
        for loader in loaders:
            _stop_benchmarks(loader.data_loader.transforms)
        return loaders


def _stop_benchmarks(transform: Any) -> None:
    """Blur always by one method: nnU-Net times two and takes the faster, which changes bits."""
    if isinstance(transform, GaussianBlurTransform):
        transform.benchmark = False
    for part in [*getattr(transform, "transforms", []), getattr(transform, "transform", None)]:
        if isinstance(part, BasicTransform):
            _stop_benchmarks(part)


class LightTrainer(Trainer):
    """Mirroring and grey values only, so that a processor spends its time learning."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        """No rotation: patches are cut at their final size."""
        rotation, _, _, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return rotation, False, np.array(self.configuration_manager.patch_size), axes

    @staticmethod
    def get_training_transforms(
        patch_size: Any,
        rotation_for_DA: RandomScalar,  # noqa: N803
        deep_supervision_scales: Any,
        mirror_axes: tuple[int, ...],
        do_dummy_2d_data_aug: bool,
        regions: Any = None,
        ignore_label: int | None = None,
        **_: Any,
    ) -> BasicTransform:
        """Grey values a little different each time, and mirrored at random."""
        grey = {"synchronize_channels": False, "p_per_channel": 1.0}
        parts = [
            RandomTransform(GaussianNoiseTransform((0, 0.1), 1.0, True), 0.1),
            # Standardized values depend on how empty a field is: a user's is emptier than a patch.
            RandomTransform(MultiplicativeBrightnessTransform(BGContrast((0.5, 2.0)), **grey), 0.3),
            RandomTransform(ContrastTransform(BGContrast((0.65, 1.5)), True, **grey), 0.15),
            RandomTransform(
                GammaTransform(BGContrast((0.6, 1.7)), p_invert_image=0, p_retain_stats=1, **grey),
                0.3,
            ),
            MirrorTransform(allowed_axes=mirror_axes),
            RemoveLabelTansform(-1, 0),
        ]
        if regions is not None:
            ignored = [] if ignore_label is None else [ignore_label]
            parts.append(ConvertSegmentationToRegionsTransform([*regions, *ignored], 0))
        if deep_supervision_scales is not None:
            parts.append(DownsampleSegForDSTransform(ds_scales=deep_supervision_scales))
        return ComposeTransforms(parts)


def build_trainer(
    plans: dict[str, Any],
    description: dict[str, Any],
    augmentation: str,
    device: torch.device,
) -> Trainer:
    """A trainer on all cases, not yet initialized; nnU-Net's folders must be active."""
    kind = {"default": Trainer, "light": LightTrainer}[augmentation]
    # nnU-Net prints its device, and takes the extra entry out again while it builds the trainer.
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = kind(
            {**plans, "continue_training": False}, CONFIGURATION, "all", description, device
        )
    trainer.disable_checkpointing = True
    # Dendrites fill a few percent of a volume: half of a batch's patches show some for sure.
    trainer.oversample_foreground_percent = 0.5
    # nnU-Net ignores the coarsest output; a network of two stages would learn from none at all.
    trainer.enable_deep_supervision = len(trainer.configuration_manager.pool_op_kernel_sizes) > 2
    return trainer
