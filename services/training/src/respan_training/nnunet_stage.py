"""Training as a stage: from a folder of cases to a model folder, resumable, published by rename."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from respan_common.devices import torch_device
from respan_common.errors import InputError
from respan_common.events import Accepted, Reporter, StageResult
from respan_common.gpu_lease import hold_gpu
from respan_common.locks import exclusive
from respan_common.params import NnunetTrainingParams
from respan_training import nnunet_plan, nnunet_start
from respan_training.jobs import TrainingJob
from respan_training.nnunet_dataset import LabeledVolume, TrainingSet, read_case, read_training_set
from respan_training.nnunet_plan import NnunetFolders
from respan_training.nnunet_trainer import build_trainer
from respan_training.nnunet_training import Epoch, inference_checkpoint, train, write_torch
from respan_training.synthesis import write_text

RECORD = "training.json"
"""Says in a model folder what it was trained on, and how; nnU-Net ignores it."""


def run(job: TrainingJob, report: Reporter) -> StageResult:
    """Train a model, or go on with a training that was interrupted.

    Everything but the finished model lives in `out/.training`; it may be deleted once the model
    is there, but is what a longer training of the same data continues from.
    """
    model = _model_folder(job)
    work = job.out / ".training" / job.params.dataset_name
    hold_gpu("training", job.runtime, report)
    device = torch_device(job.runtime)
    with exclusive(job.out / ".training" / f"{job.params.dataset_name}.lock", report.check):
        data = read_training_set(job.data, report.check)
        start = None if job.start is None else nnunet_start.read_start(job.start)
        key = _key(job, data, "" if start is None else start.digest)
        total = job.params.epochs * job.params.iterations_per_epoch
        report.accepted(Accepted(device=str(device), blocks=total, model_digest=""))
        if (record := _own_record(model)) and record["key"] == key:
            return _result(job, record, skipped=True)
        folders = NnunetFolders(work, job.params.dataset_name)
        _keep_only(work, {**key, "params": {**key["params"], "epochs": None}})
        plans = _prepare(folders, data, job.params, start, report)
        record = _train(job, folders, data, plans, start, device, report)
        record = {**record, "key": key, "warnings": data.warnings}
        _publish(work / "model", model, record)
    return _result(job, record, skipped=False)


def _model_folder(job: TrainingJob) -> Path:
    name = job.params.dataset_name
    if not name or name != Path(name).name or name.startswith("."):
        raise InputError(f"dataset_name '{name}' must be the name of a folder, without slashes")
    return job.out / name


def _own_record(model: Path) -> dict[str, Any] | None:
    """Record of the model that is there; a folder of anybody else's is not ours to replace."""
    record = _read(model / RECORD)
    if record is None and model.exists():
        raise InputError(
            f"{model} exists and is no model of an earlier training: choose another out folder "
            "or dataset_name"
        )
    return record


def _key(job: TrainingJob, data: TrainingSet, start_digest: str) -> dict[str, Any]:
    """What the weights depend on."""
    params = job.params.model_dump(mode="json", exclude={"initial_model"})
    return {"data": data.digest, "params": params, "start": start_digest}


def _keep_only(work: Path, key: dict[str, Any]) -> None:
    """Wipe what a training of other data or other parameters has left behind."""
    if work.exists() and _read(work / "key.json") != key:
        shutil.rmtree(work)
    write_text(work / "key.json", json.dumps(key))


def _prepare(
    folders: NnunetFolders,
    data: TrainingSet,
    params: NnunetTrainingParams,
    start: nnunet_start.Start | None,
    report: Reporter,
) -> dict[str, Any]:
    """Fingerprint, plan and arrays; what is there already is kept."""
    if (plans := _read(folders.work / "plans.json")) is None:
        report.progress(0, _iterations(params), "reading the training data")
        prints = nnunet_plan.fingerprint(_volumes(data, report), len(data.cases))
        settings = None if start is None else start.settings
        plans = nnunet_plan.plan(folders, data.description, prints, params, settings)
        write_text(folders.work / "plans.json", json.dumps(plans))
    for number, case in enumerate(data.cases, start=1):
        message = f"preparing {case.name} ({number} of {len(data.cases)})"
        report.progress(0, _iterations(params), message)
        if not nnunet_plan.is_preprocessed(folders, case.name):
            volume = read_case(case, data.has_spacing)
            nnunet_plan.preprocess(folders, case.name, volume, plans, data.description)
    return plans


def _class_weights(data: TrainingSet, balance: float, report: Reporter) -> torch.Tensor:
    """(share of the voxels)^-balance of every class; 1 for the background and absent classes."""
    classes = len(set(data.description["labels"]) - {"ignore"})
    counts = np.zeros(classes)
    for case in data.cases:
        report.check()
        labels = read_case(case, data.has_spacing).labels.astype(np.int64).ravel()
        counts += np.bincount(labels[labels < classes], minlength=classes)
    shares = np.where(counts > 0, counts, counts[0]) / counts[0]
    return torch.tensor(shares**-balance, dtype=torch.float32)


def _volumes(data: TrainingSet, report: Reporter) -> Iterator[LabeledVolume]:
    for case in data.cases:
        report.check()
        yield _nonempty(case.name, read_case(case, data.has_spacing))


def _nonempty(name: str, volume: LabeledVolume) -> LabeledVolume:
    if not volume.image.any():
        raise InputError(f"the image of case {name} is all zero: remove it from the training data")
    return volume


def _iterations(params: NnunetTrainingParams) -> int:
    return params.epochs * params.iterations_per_epoch


def _train(
    job: TrainingJob,
    folders: NnunetFolders,
    data: TrainingSet,
    plans: dict[str, Any],
    start: nnunet_start.Start | None,
    device: torch.device,
    report: Reporter,
) -> dict[str, Any]:
    """Train, leave the model in `work/model`, and say how it went."""
    params = job.params

    def tell(done: int, epochs: list[Epoch]) -> None:
        report.progress(done, _iterations(params), _message(epochs, params.epochs))

    with folders.active():
        trainer = build_trainer(plans, data.description, params.augmentation, device)
        trainer.num_epochs = params.epochs
        trainer.num_iterations_per_epoch = params.iterations_per_epoch
        # Watching is not learning: a tenth of the patches, forward only.
        trainer.num_val_iterations_per_epoch = max(1, params.iterations_per_epoch // 10)
        trainer.initial_lr = params.initial_learning_rate
        trainer.optimizer_name = params.optimizer
        trainer.mixed_precision = params.mixed_precision
        trainer.averaging = params.weight_averaging
        if params.class_balance > 0:
            trainer.class_weights = _class_weights(data, params.class_balance, report)
        weights = None if start is None else start.weights
        epochs = train(trainer, folders.work / "checkpoint.pth", params.seed, tell, weights)
    tell(_iterations(params), epochs)
    _write_model(folders, plans, data.description, inference_checkpoint(trainer))
    return {
        "epochs": [vars(epoch) for epoch in epochs],
        "cases": [case.name for case in data.cases],
        "device": str(device),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("respan-training", "nnunetv2", "torch", "numpy")
        },
    }


def _message(epochs: list[Epoch], total: int) -> str:
    if not epochs:
        return f"epoch 1 of {total}"
    last = epochs[-1]
    return (
        f"epoch {min(last.number + 1, total)} of {total}: "
        f"loss {last.loss:.3f}, pseudo Dice {last.mean_dice:.3f}"
    )


def _write_model(
    folders: NnunetFolders, plans: dict[str, Any], description: dict[str, Any], weights: Any
) -> None:
    model = folders.work / "model"
    shutil.rmtree(model, ignore_errors=True)
    (model / "fold_all").mkdir(parents=True)
    write_text(model / "plans.json", json.dumps(plans, indent=2))
    write_text(model / "dataset.json", json.dumps(description, indent=2))
    shutil.copyfile(
        folders.preprocessed / "dataset_fingerprint.json", model / "dataset_fingerprint.json"
    )
    write_torch(model / "fold_all" / "checkpoint_final.pth", weights)


def _publish(finished: Path, model: Path, record: dict[str, Any]) -> None:
    """Put a model folder in place as a whole; an older one of the same name gives way."""
    write_text(finished / RECORD, json.dumps(record, indent=2))
    if _own_record(model):
        old = finished.with_name("replaced")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(model, old)
    os.replace(finished, model)


def _result(job: TrainingJob, record: dict[str, Any], skipped: bool) -> StageResult:
    epochs = [Epoch(**epoch) for epoch in record["epochs"]]
    seconds = sum(epoch.seconds for epoch in epochs)
    numbers = {
        "epochs": float(len(epochs)),
        "loss": epochs[-1].loss,
        "pseudo_dice": epochs[-1].mean_dice,
        "cases": float(len(record["cases"])),
        "seconds_per_iteration": seconds / (len(epochs) * job.params.iterations_per_epoch),
        "loading_share": sum(epoch.loading_seconds for epoch in epochs) / max(seconds, 1e-9),
    }
    return StageResult(
        (job.params.dataset_name,), numbers, skipped, warnings=tuple(record["warnings"])
    )


def _read(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text())) if path.exists() else None
