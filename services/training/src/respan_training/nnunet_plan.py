"""From cases to what nnU-Net trains on: fingerprint, plan, preprocessed arrays.

nnU-Net's own classes do the work, case after case in this process: its process pools can be
neither cancelled nor run inside a worker of ours.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import write_pickle
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from respan_common.errors import InputError
from respan_common.params import NnunetTrainingParams
from respan_training.nnunet_dataset import LabeledVolume

CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"

# nnU-Net collects this many foreground voxels over the whole dataset for its statistics.
_STATISTICS_VOXELS = 10**7


@dataclass(frozen=True)
class NnunetFolders:
    """nnU-Net's three folders for one dataset, below our work folder."""

    work: Path
    name: str

    @property
    def dataset(self) -> str:
        """Name that nnU-Net takes as it is, without looking for a number."""
        return f"Dataset001_{self.name}"

    @property
    def raw(self) -> Path:
        """Holds dataset.json only; voxels are read from where they are."""
        return self.work / "raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        """Fingerprint, plan, and below it the arrays."""
        return self.work / "preprocessed" / self.dataset

    @property
    def arrays(self) -> Path:
        """Preprocessed cases."""
        return self.preprocessed / f"{PLANS}_{CONFIGURATION}"

    @contextlib.contextmanager
    def active(self, loaders: int = 0) -> Iterator[None]:
        """Let nnU-Net see these folders, and take its settings back afterwards.

        Parameters
        ----------
        loaders
            Processes that load patches; the planner, which starts none, refuses 0.
        """
        settings = {
            "nnUNet_raw": str(self.work / "raw"),
            "nnUNet_preprocessed": str(self.work / "preprocessed"),
            "nnUNet_results": str(self.work / "results"),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": str(loaders),
            "nnUNet_compile": "f",
        }
        before = {key: os.environ.get(key) for key in settings}
        os.environ.update(settings)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value


def fingerprint(volumes: Iterable[LabeledVolume], count: int) -> dict[str, Any]:
    """nnU-Net's dataset fingerprint: spacings, shapes, foreground grey values of each channel.

    Parameters
    ----------
    count
        Number of volumes, which decides how many voxels each contributes.

    Raises
    ------
    InputError
        If no volume has a labeled voxel.
    """
    shapes, spacings, kept = [], [], []
    grey_values: list[list[Any]] = []
    for volume in volumes:
        image, labels, _ = crop_to_nonzero(volume.image, volume.labels[None].copy())
        samples, _ = DatasetFingerprintExtractor.collect_foreground_intensities(
            labels, image, num_samples=max(_STATISTICS_VOXELS // count, 1)
        )
        shapes.append([int(size) for size in image.shape[1:]])
        spacings.append(list(volume.spacing.zyx))
        kept.append(image[0].size / volume.image[0].size)
        grey_values.append(samples)
    channels = [np.concatenate(parts) for parts in zip(*grey_values, strict=True)]
    if not channels[0].size:
        raise InputError("no label file has a single labeled voxel: nothing to learn")
    return {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {
            str(index): _grey_statistics(values) for index, values in enumerate(channels)
        },
        "median_relative_size_after_cropping": float(np.median(kept)),
    }


def _grey_statistics(values: Any) -> dict[str, float]:
    low, median, high = (float(v) for v in np.percentile(values, (0.5, 50.0, 99.5)))
    return {
        "mean": float(np.mean(values)),
        "median": median,
        "std": float(np.std(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
        "percentile_99_5": high,
        "percentile_00_5": low,
    }


class _Planner(ExperimentPlanner):  # type: ignore[misc]
    """nnU-Net's planner for one full-resolution 3D network of the size that the params ask for."""

    def __init__(
        self, dataset: str, params: NnunetTrainingParams, start: dict[str, Any] | None
    ) -> None:
        spacing = _spacing_to_keep(start)
        super().__init__(dataset, plans_name=PLANS, overwrite_target_spacing=spacing)
        self.params = params
        self.start = start
        # No cascade: a low-resolution stage would lose the necks.
        self.lowres_creation_threshold = 0.0

    def get_plans_for_configuration(
        self, spacing: Any, median_shape: Any, data_identifier: str, *rest: Any
    ) -> dict[str, Any]:
        """nnU-Net's plan for this voxel size, with our sizes in it; empty for the 2D network."""
        if len(spacing) != 3:
            return {}
        plan: dict[str, Any] = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, *rest
        )
        if self.start is not None:
            plan.update({key: self.start[key] for key in ("patch_size", "architecture")})
        elif self.params.patch_size or self.params.features_per_stage:
            _resize(plan, spacing, self.params, self.UNet_featuremap_min_edge_length)
        kwargs = plan["architecture"]["arch_kwargs"]
        if self.start is None:
            count = self.params.convolutions_per_stage
            kwargs["n_conv_per_stage"] = [count] * kwargs["n_stages"]
            kwargs["n_conv_per_stage_decoder"] = [count] * (kwargs["n_stages"] - 1)
        plan["batch_size"] = self.params.batch_size
        return plan

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Keep only the network that is trained."""
        plans["configurations"] = {CONFIGURATION: plans["configurations"][CONFIGURATION]}
        super().save_plans(plans)


def _spacing_to_keep(start: dict[str, Any] | None) -> list[float] | None:
    """Voxel size of the model to start from; None where it says 1, 1, 1, that is: unknown."""
    if start is None or np.allclose(start["spacing"], 1.0):
        return None
    return [float(edge) for edge in start["spacing"]]


def _resize(
    plan: dict[str, Any], spacing: Sequence[float], params: NnunetTrainingParams, least_edge: int
) -> None:
    """Give a plan another patch and other feature maps, with the kernels nnU-Net derives for them.

    Kernels and strides follow from spacing and patch: an axis with coarse voxels is neither
    convolved nor halved until the others have caught up with it. `flat_stages` lets kernels span
    it sooner: what is a spine, and what the blurred rim of a shaft, shows in the next slice.
    """
    patch = params.patch_size or plan["patch_size"]
    _, strides, kernels, patch, _ = get_pool_and_conv_props(spacing, patch, least_edge, 999_999)
    features = params.features_per_stage or _default_features(len(strides))
    if len(features) < 2:
        raise InputError("features_per_stage needs at least two stages, such as [16, 32]")
    if len(features) > len(strides):
        raise InputError(
            f"features_per_stage has {len(features)} stages, but a patch of "
            f"{' × '.join(map(str, patch))} voxels can be halved only {len(strides) - 1} times: "
            f"give at most {len(strides)} numbers or a larger patch_size"
        )
    stages = len(features)
    strides, kernels = strides[:stages], [*kernels[: stages - 1], (3, 3, 3)]
    if params.flat_stages is not None:
        kernels = [k if n < params.flat_stages else (3, 3, 3) for n, k in enumerate(kernels)]
    asked = params.patch_size or patch
    whole = np.prod(strides, axis=0)
    plan["patch_size"] = [
        int(-(-size // part) * part) for size, part in zip(asked, whole, strict=True)
    ]
    plan["architecture"]["arch_kwargs"].update(
        n_stages=stages,
        features_per_stage=[int(count) for count in features],
        strides=[[int(step) for step in stride] for stride in strides],
        kernel_sizes=[[int(size) for size in kernel] for kernel in kernels],
    )


def _default_features(stages: int) -> list[int]:
    # nnU-Net's own: 32 maps, doubled with every halving, at most 320.
    return [min(32 * 2**stage, 320) for stage in range(stages)]


def plan(
    folders: NnunetFolders,
    description: dict[str, Any],
    prints: dict[str, Any],
    params: NnunetTrainingParams,
    start: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Plan the network and write dataset.json, fingerprint and plan where nnU-Net looks for them.

    Parameters
    ----------
    start
        3d configuration of the model to start from; its network, patch and voxel size are kept.
    """
    for folder in (folders.raw, folders.preprocessed):
        folder.mkdir(parents=True, exist_ok=True)
    # With a "dataset" entry nnU-Net lists no files, which it would do with twelve processes.
    nominal = {
        **description,
        "dataset": {"case": {"images": ["case_0000.tif"], "label": "case.tif"}},
    }
    (folders.raw / "dataset.json").write_text(json.dumps(nominal))
    (folders.preprocessed / "dataset_fingerprint.json").write_text(json.dumps(prints))
    # Plans of an earlier attempt would be merged into the new ones.
    (folders.preprocessed / f"{PLANS}.json").unlink(missing_ok=True)
    with folders.active(loaders=1), contextlib.redirect_stdout(io.StringIO()):
        _Planner(folders.dataset, params, start).plan_experiment()
    (folders.preprocessed / "dataset.json").write_text(json.dumps(description, indent=2))
    return dict(json.loads((folders.preprocessed / f"{PLANS}.json").read_text()))


def is_preprocessed(folders: NnunetFolders, case: str) -> bool:
    """Whether a case's arrays are complete: its properties are renamed into place last."""
    return (folders.arrays / f"{case}.pkl").exists()


def preprocess(
    folders: NnunetFolders,
    case: str,
    volume: LabeledVolume,
    plans: dict[str, Any],
    description: dict[str, Any],
) -> None:
    """Normalize and resample one case as nnU-Net does, and store it for its loaders."""
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    image, labels, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        volume.image,
        volume.labels[None],
        {"spacing": list(volume.spacing.zyx)},
        manager,
        configuration,
        description,
    )
    _store(folders, case, image, labels.astype(np.int16), properties, configuration.patch_size)


def _store(
    folders: NnunetFolders, case: str, image: Any, labels: Any, properties: Any, patch: Any
) -> None:
    partial = folders.work / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    folders.arrays.mkdir(parents=True, exist_ok=True)
    for name in (f"{case}.b2nd", f"{case}_seg.b2nd"):
        (partial / name).unlink(missing_ok=True)
    blocks, chunks = comp_blosc2_params(image.shape, tuple(patch), image.itemsize)
    seg_blocks, seg_chunks = comp_blosc2_params(labels.shape, tuple(patch), labels.itemsize)
    nnUNetDatasetBlosc2.save_case(
        image,
        labels,
        properties,
        str(partial / case),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=seg_chunks,
        blocks_seg=seg_blocks,
    )
    write_pickle(properties, str(partial / f"{case}.pkl"))
    for name in (f"{case}.b2nd", f"{case}_seg.b2nd", f"{case}.pkl"):
        os.replace(partial / name, folders.arrays / name)
