"""Average the weights of trainings that went on from one another.

    python models/average.py W/average W/third/model/confocal W/fourth/model/confocal
    python models/publish.py confocal --work W/fourth --model W/average

The mean of several such models errs less on images unlike the training's than the last one alone
(Wortsman et al. 2022, Model soups), and costs nothing when it is used. All else in the new folder
is the last model's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch

from respan_training.nnunet_training import write_torch

WEIGHTS = Path("fold_all/checkpoint_final.pth")


def averaged(models: list[Path]) -> dict[str, Any]:
    """The last model's checkpoint, with the mean of all models' weights.

    Raises
    ------
    ValueError
        If the models' networks are not the same.
    """
    checkpoints = [torch.load(model / WEIGHTS, "cpu", weights_only=False) for model in models]
    weights = [checkpoint["network_weights"] for checkpoint in checkpoints]
    shapes = [{name: tensor.shape for name, tensor in one.items()} for one in weights]
    for model, own in zip(models, shapes, strict=True):
        if own != shapes[-1]:
            raise ValueError(f"{model} has another network than {models[-1]}: train it on from one")
    means: dict[str, torch.Tensor] = {}
    known: dict[int, torch.Tensor] = {}  # a decoder names its encoder's weights again
    for name, last in weights[-1].items():
        if last.data_ptr() not in known:
            mean = torch.stack([one[name].double() for one in weights]).mean(dim=0)
            known[last.data_ptr()] = mean.to(last.dtype)
        means[name] = known[last.data_ptr()]
    return checkpoints[-1] | {"network_weights": means}


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the new model")
    parser.add_argument("models", type=Path, nargs="+", help="model folders, the newest last")
    arguments = parser.parse_args()
    checkpoint = averaged(arguments.models)
    shutil.copytree(arguments.models[-1], arguments.out)
    write_torch(arguments.out / WEIGHTS, checkpoint)
    print(arguments.out)


if __name__ == "__main__":
    main()
