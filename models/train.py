"""Train the small models that ship with the project, on phantoms alone.

    python models/train.py confocal --threads 1    # everything, about 70 minutes on one core
    python models/train.py two-photon --epochs 2 --volumes 3 --work /tmp/trial
    python models/train.py two-photon --start work/first/model/two-photon

Run it again after an interruption: volumes that are there stay, and the training goes on from its
last epoch. A smaller or larger --epochs than before continues the same training, with the learning
rate falling towards the new end. `--start` begins with the weights of another model. The model ends
up in WORK/model/NAME. How the shipped models were made, line by line: docs/models.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from respan_common.events import Event, Progress, Reporter
from respan_common.params import NnunetTrainingParams, SynthesisParams
from respan_common.settings import Runtime
from respan_training.jobs import TrainingJob
from respan_training.stage import run_training
from respan_training.synthesis import write_training_data

ITERATIONS_PER_EPOCH = 50


@dataclass(frozen=True)
class Recipe:
    """Data and network of one model."""

    kind: Literal["confocal", "two-photon"]
    spacing_um: list[float]
    shape: list[int]
    patch_size: list[int]
    features: list[int]
    volumes: int
    epochs: int
    seed: int

    def synthesis(self, volumes: int) -> list[SynthesisParams]:
        """Phantoms of every brightness: half at the model's own voxel size, half at others.

        The latter reach the network resampled, as do users' images.
        """
        own = SynthesisParams(
            kind=self.kind,
            images=volumes - volumes // 2,
            shape=self.shape,
            spacing_um=self.spacing_um,
            snr="mixed",
            seed=self.seed,
        )
        other = {"images": volumes // 2, "spacing_um": None, "seed": self.seed + 1}
        return [own, own.model_copy(update=other)]

    def training(self, epochs: int, learning_rate: float) -> NnunetTrainingParams:
        """A network small enough for two processor cores."""
        return NnunetTrainingParams(
            dataset_name=self.kind,
            epochs=epochs,
            iterations_per_epoch=ITERATIONS_PER_EPOCH,
            batch_size=2,
            patch_size=self.patch_size,
            features_per_stage=self.features,
            flat_stages=1,
            optimizer="adamw",
            initial_learning_rate=learning_rate,
            class_balance=0.15,
            augmentation="light",
            mixed_precision=True,
            weight_averaging=0.995,
            seed=self.seed,
        )


RECIPES = {
    "two-photon": Recipe(
        kind="two-photon",
        spacing_um=[1.0, 0.102, 0.102],
        shape=[24, 256, 256],
        patch_size=[12, 128, 128],
        features=[16, 32, 64, 96, 128],
        volumes=300,
        epochs=18,
        seed=1010,
    ),
    "confocal": Recipe(
        kind="confocal",
        spacing_um=[0.15, 0.065, 0.065],
        shape=[40, 256, 256],
        patch_size=[24, 96, 96],
        features=[16, 32, 64, 96],
        volumes=200,
        epochs=24,
        seed=2010,
    ),
}


def main() -> None:
    """Make the data, train, and say where the model is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--work", type=Path, help="default: work/models/NAME")
    parser.add_argument("--epochs", type=int, help="of 50 iterations each")
    parser.add_argument("--volumes", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.002, help="at the start")
    parser.add_argument("--seed", type=int, help="of phantoms and of the training")
    parser.add_argument("--start", type=Path, help="model folder whose weights to begin with")
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.name]
    if arguments.seed is not None:
        recipe = replace(recipe, seed=arguments.seed)
    work = (arguments.work or Path("work/models") / arguments.name).resolve()
    for params in recipe.synthesis(arguments.volumes or recipe.volumes):
        write_training_data(work / "data", params, lambda name: say(f"volume {name}"))
    job = TrainingJob(
        work / "data",
        work / "model",
        recipe.training(arguments.epochs or recipe.epochs, arguments.learning_rate),
        start=arguments.start,
        runtime=Runtime("auto", arguments.threads),
    )
    result = run_training(job, Reporter(Printer(), lambda: False))
    say(f"{work / 'model' / recipe.kind}: {result.numbers}")


class Printer:
    """Prints progress once per epoch, and whenever its message changes."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, event: Event) -> None:
        """Print an event, if it is news."""
        if isinstance(event, Progress) and event.message != self._last:
            self._last = event.message
            left = "" if event.seconds_left is None else f", {event.seconds_left / 60:.0f} min left"
            say(f"{event.done}/{event.total} {event.message}{left}")


def say(text: str) -> None:
    """One line with the time, at once."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    main()
