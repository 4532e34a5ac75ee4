"""Checkpoints are read without PyTorch, and nothing in them is run."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from respan_common.checkpoints import read_checkpoint as services_read_checkpoint
from respan_common.errors import ModelError
from respan_orchestrator.checkpoints import read_checkpoint

WEIGHTS = {"conv.weight": torch.randn(4, 2, 3), "conv.bias": torch.zeros(4)}
HARMLESS = {
    "plain": {},
    "what nnU-Net saves": {
        "init_args": {"configuration": "2d", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "optimizer_state": {"state": {0: {"momentum": torch.ones(3)}}, "param_groups": [{}]},
        "grad_scaler_state": None,
        "logging": {"ema": [np.float64(0.5), np.float32(1)], "losses": np.arange(3.0)},
        "_best_ema": np.float64(0.25),
        "inference_allowed_mirroring_axes": (0, 1, 2),
    },
    "other tensors": {
        "more": [
            torch.nn.Parameter(torch.ones(2)),
            torch.ones(2, dtype=torch.float16),
            torch.ones(2, dtype=torch.bfloat16),
            torch.ones(2, dtype=torch.int64),
            torch.ones(2, dtype=torch.bool),
            torch.ones(2).size(),
            {1, 2},
        ]
    },
}


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def traps(canary):
    touch = f"open({str(canary)!r}, 'w').close()"
    return {
        "a command": Trap(os.system, f"touch {canary}"),
        "an expression": Trap(eval, touch),
        "a statement": Trap(exec, touch),
        "an attribute": Trap(getattr, "text", "upper"),
        "a file": Trap(open, str(canary), "w"),
    }


def saved(path, **content):
    torch.save({"network_weights": WEIGHTS, **content}, path)
    return path


@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS)
def test_what_the_service_reads_is_read_here(tmp_path, content):
    path = saved(tmp_path / "c.pth", **content)
    theirs = services_read_checkpoint(path)["network_weights"]
    found = read_checkpoint(path)
    assert found.shapes == {name: tuple(one.shape) for name, one in theirs.items()}
    assert found.not_finite == ()


def test_what_was_trained_is_told(tmp_path):
    found = read_checkpoint(saved(tmp_path / "c.pth", **HARMLESS["what nnU-Net saves"]))
    assert (found.configuration, found.trainer) == ("2d", "nnUNetTrainer")


@pytest.mark.parametrize("reader", [read_checkpoint, services_read_checkpoint])
@pytest.mark.parametrize("kind", traps(""))
def test_a_trap_does_not_go_off(tmp_path, kind, reader):
    canary = tmp_path / "canary"
    path = saved(tmp_path / "c.pth", trap=traps(canary)[kind])
    with pytest.raises(ModelError, match=r"refused: reading it would run code"):
        reader(path)
    assert not canary.exists()


def test_stand_ins_cannot_be_turned_into_something_else(tmp_path):
    """A pickle may try to fill or to change the objects that it is given."""
    path = saved(tmp_path / "c.pth")
    before = read_checkpoint(path).shapes
    # The class itself, two dicts of what to set on it, BUILD.
    evil = b"\x80\x02ccollections\nOrderedDict\n}U\x04evilK\x01s}U\x04evilK\x01s\x86b."
    rewritten(path, tmp_path / "evil.pth", evil)
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "evil.pth")
    assert read_checkpoint(path).shapes == before


def rewritten(path, target, content):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("data.pkl") else old.read(name))
    return target


def test_weights_that_are_no_numbers_are_named(tmp_path):
    weights = {**WEIGHTS, "bad.weight": torch.tensor([1.0, float("nan")])}
    found = read_checkpoint(saved(tmp_path / "c.pth", network_weights=weights))
    assert found.not_finite == ("bad.weight",)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path):
    content = bytearray(path.read_bytes())
    where = content.index(WEIGHTS["conv.weight"].numpy().tobytes()[:8])
    content[where] ^= 1
    path.write_bytes(content)


def bomb(path):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data/9", bytes(2**20))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (cut, "copy it again"),
        (flipped, "copy it again"),
        (bomb, "larger unpacked"),
        (lambda path: path.write_bytes(b""), "copy it again"),
        (lambda path: path.write_bytes(pickle.dumps({})), "copy it again"),
        (lambda path: torch.save([1], path), "no 'network_weights'"),
        (lambda path: rewritten(path, path.with_name("x"), b"\x80\x02.").replace(path), "copy it"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, fault, message):
    path = saved(tmp_path / "c.pth")
    fault(path)
    with pytest.raises(ModelError, match=message) as refused:
        read_checkpoint(path)
    assert str(path) in str(refused.value)
