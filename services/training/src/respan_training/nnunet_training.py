"""Train a network epoch by epoch, so that it can be watched, stopped, and taken up again."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from respan_common.errors import ModelError
from respan_training.nnunet_trainer import Trainer

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    number: int
    """From 1."""
    loss: float
    """Mean of nnU-Net's Dice and cross-entropy loss; -1 would be perfect."""
    pseudo_dice: list[float | None]
    """Dice of each class over a few training patches; None where a class did not occur."""
    seconds: float
    loading_seconds: float
    """Time spent waiting for patches."""

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that occurred; 0 if none did."""
        seen = [value for value in self.pseudo_dice if value is not None]
        return float(np.mean(seen)) if seen else 0.0


Tell = Callable[[int, list[Epoch]], None]
"""Takes iterations done so far and the epochs finished; may raise to stop the training."""


def train(
    trainer: Trainer, checkpoint: Path, seed: int, tell: Tell, start: Weights | None = None
) -> list[Epoch]:
    """Train until `trainer.num_epochs` are done, going on from `checkpoint` if it exists.

    The checkpoint holds everything that the next epoch depends on. On one processor with the
    same number of threads a training that was killed ends with the same weights as one that
    was not; a GPU repeats it up to rounding.

    Parameters
    ----------
    checkpoint
        Rewritten after every epoch.
    start
        Weights to start from instead of random ones.
    """
    _seed(seed, trainer.device)
    trainer.initialize()
    if start is not None:
        _take_over(trainer.network, start)
    trainer.start_averaging()
    trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
    loaders = trainer.get_dataloaders()
    epochs = _resume(trainer, checkpoint) if checkpoint.exists() else []
    if not epochs:
        # Building the loaders drew random numbers; how many may differ between versions.
        _seed(seed, trainer.device)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        while len(epochs) < trainer.num_epochs:
            epochs = [*epochs, _one_epoch(trainer, loaders, epochs, tell)]
            _save(trainer, checkpoint, epochs)
    return epochs


def _one_epoch(trainer: Trainer, loaders: Any, before: list[Epoch], tell: Tell) -> Epoch:
    started, done = time.perf_counter(), len(before) * trainer.num_iterations_per_epoch
    trainer.current_epoch = len(before)
    trainer.network.train()
    trainer.lr_scheduler.step(trainer.current_epoch)
    losses: list[float] = []
    waited = 0.0
    for batch, seconds in _batches(loaders[0], trainer.num_iterations_per_epoch, trainer.device):
        tell(done + len(losses), before)
        losses.append(float(trainer.train_step(batch)["loss"]))
        waited += seconds
    return Epoch(
        number=len(before) + 1,
        loss=float(np.mean(losses)),
        pseudo_dice=_pseudo_dice(trainer, loaders[1], lambda: tell(done + len(losses), before)),
        seconds=time.perf_counter() - started,
        loading_seconds=waited,
    )


def _pseudo_dice(trainer: Trainer, loader: Any, check: Callable[[], None]) -> list[float | None]:
    trainer.network.eval()
    counts: list[list[Any]] = []
    with torch.no_grad():
        for batch, _ in _batches(loader, trainer.num_val_iterations_per_epoch, trainer.device):
            check()
            outcome = trainer.validation_step(batch)
            counts.append([outcome["tp_hard"], outcome["fp_hard"], outcome["fn_hard"]])
    right, extra, missed = np.array(counts, dtype=np.float64).sum(axis=0)
    size = 2 * right + extra + missed
    return [float(2 * r / s) if s > 0 else None for r, s in zip(right, size, strict=True)]


def _batches(loader: Any, count: int, device: torch.device) -> Iterator[tuple[Any, float]]:
    """`count` batches, each with the seconds it kept us waiting.

    Beside a GPU a thread prepares them ahead. It is the only one that draws random numbers and
    it stops after `count`, so the order stays the same as without it.
    """
    source = (next(loader) for _ in range(count))
    with closing(_ahead(source) if device.type == "cuda" else source) as stream:
        while True:
            started = time.perf_counter()
            batch = next(stream, None)
            if batch is None:
                return
            yield batch, time.perf_counter() - started


def _ahead(source: Generator[Any, None, None], held: int = 3) -> Generator[Any, None, None]:
    """The same items, made in a thread that is at most `held` items ahead."""
    items: queue.Queue[Any] = queue.Queue()
    room = threading.Semaphore(held)
    stop = threading.Event()

    def fill() -> None:
        try:
            while room.acquire() and not stop.is_set():
                items.put((next(source, None), None))
        except BaseException as error:  # handed over to the thread that asked
            items.put((None, error))

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item, error = items.get()
            room.release()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        stop.set()
        room.release()
        thread.join()


def _seed(seed: int, device: torch.device) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nnU-Net draws from the global state
    torch.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _random_state(device: torch.device) -> dict[str, Any]:
    kind, words, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        # As a list, so that the checkpoint holds nothing but tensors and plain values.
        "numpy": (kind, [int(word) for word in words], *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, np.array(words, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])


def _save(trainer: Trainer, checkpoint: Path, epochs: list[Epoch]) -> None:
    scaler = trainer.grad_scaler
    write_torch(
        checkpoint,
        {
            "network": trainer.network.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "average": None if trainer.average is None else trainer.average.state(),
            "epochs": [vars(epoch) for epoch in epochs],
            "random": _random_state(trainer.device),
        },
    )


def _resume(trainer: Trainer, checkpoint: Path) -> list[Epoch]:
    state = torch.load(checkpoint, map_location=trainer.device, weights_only=True)
    trainer.network.load_state_dict(state["network"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.grad_scaler is not None and state["scaler"] is not None:
        trainer.grad_scaler.load_state_dict(state["scaler"])
    if trainer.average is not None and state["average"] is not None:
        trainer.average.resume(**state["average"])
    _set_random_state(state["random"])
    return [Epoch(**epoch) for epoch in state["epochs"]]


def write_torch(path: Path, content: dict[str, Any]) -> None:
    """Save under a temporary name, wait for the disk, rename."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _take_over(network: torch.nn.Module, start: Weights) -> None:
    """Give a network the weights of a trained one, but for outputs of another number of classes."""
    own = network.state_dict()
    if missing := sorted(key for key in own if key not in start):
        raise ModelError(f"the model to start from has another network: it lacks {missing[0]}")
    differing = {key for key, value in own.items() if value.shape != start[key].shape}
    if wrong := sorted(key for key in differing if ".seg_layers." not in key):
        key = wrong[0]
        raise ModelError(
            f"the model to start from has another network: {key} is {tuple(start[key].shape)}, "
            f"not {tuple(own[key].shape)} (other channels?)"
        )
    network.load_state_dict({**own, **{key: start[key] for key in own if key not in differing}})


def inference_checkpoint(trainer: Trainer) -> dict[str, Any]:
    """What nnU-Net needs to predict, and nothing that only a pickle could hold."""
    held: dict[int, torch.Tensor] = {}

    def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
        # The decoder lists the encoder's weights again; saved as one, they take half the space.
        return held.setdefault(tensor.data_ptr(), tensor.detach().cpu())

    arguments = trainer.my_init_kwargs
    return {
        "network_weights": {key: on_cpu(value) for key, value in trainer.final_weights.items()},
        "init_args": {
            key: arguments[key] for key in ("plans", "configuration", "fold", "dataset_json")
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": tuple(trainer.inference_allowed_mirroring_axes),
    }
