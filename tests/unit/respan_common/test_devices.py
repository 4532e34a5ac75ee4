from __future__ import annotations

import logging

import pytest
import torch

from respan_common import gpus
from respan_common.devices import half_precision, torch_device
from respan_common.errors import CapacityError
from respan_common.settings import Runtime


@pytest.fixture
def old_driver(monkeypatch, tmp_path):
    """A machine whose driver is older than what PyTorch's CUDA needs, so that it sees no GPU."""
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05")
    monkeypatch.setattr(gpus, "_PROC", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CapacityError, match="PyTorch sees none"):
        torch_device(Runtime("cuda", 1))


def test_an_old_driver_is_the_reason_that_is_named(old_driver):
    with pytest.raises(CapacityError, match=r"driver 535\.104\.05 is too old.*needs 580 or newer"):
        torch_device(Runtime("cuda", 1))


def test_an_old_driver_is_not_passed_over_in_silence(old_driver, caplog):
    with caplog.at_level(logging.WARNING):
        assert torch_device(Runtime("auto", 1)) == torch.device("cpu")
    assert "535.104.05 is too old" in caplog.text
    caplog.clear()
    assert torch_device(Runtime("cpu", 1)) == torch.device("cpu")
    assert not caplog.text


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False}, None),
        ({"architecture": "aarch64"}, None),
    ],
)
def test_a_processor_multiplies_in_half_precision_only_if_it_gains(
    monkeypatch, instructions, dtype
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert half_precision("cpu") == dtype
    assert half_precision("cuda") == torch.float16
