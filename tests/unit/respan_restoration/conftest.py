import json

import numpy as np
import pytest


def train_care(folder, *, probabilistic=False, depth=1):
    """A real csbdeep model, trained for a few seconds to halve grey values and subtract some."""
    from csbdeep.models import CARE, Config

    config = Config(
        "ZYX",
        probabilistic=probabilistic,
        unet_n_depth=depth,
        unet_n_first=4,
        train_epochs=2,
        train_steps_per_epoch=3,
        train_batch_size=2,
        train_tensorboard=False,
    )
    noisy = np.random.default_rng(0).normal(size=(6, 8, 16, 16, 1)).astype(np.float32)
    target = noisy / 2 - 1
    model = CARE(config, folder.name, basedir=str(folder.parent))
    model.train(noisy[:4], target[:4], validation_data=(noisy[4:], target[4:]))
    return folder


@pytest.fixture(scope="session")
def care_folder(tmp_path_factory):
    return train_care(tmp_path_factory.mktemp("models") / "care", depth=2)


@pytest.fixture(scope="session")
def probabilistic_folder(tmp_path_factory):
    return train_care(tmp_path_factory.mktemp("models") / "probabilistic", probabilistic=True)


@pytest.fixture
def empty_care_folder(tmp_path):
    """A folder with the settings of a 3D model, and a file in place of its weights."""

    def make(**changes):
        settings = {"axes": "ZYXC", "n_channel_in": 1, "n_channel_out": 1} | changes
        (tmp_path / "config.json").write_text(json.dumps(settings))
        (tmp_path / "weights_best.h5").write_bytes(b"no weights")
        return tmp_path

    return make
