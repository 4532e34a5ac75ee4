"""Shapes of a network's convolutions by its plans, to tell whether a checkpoint belongs to them.

Known are the two U-Nets that nnU-Net plans. Loading settles it for every network; this needs
neither PyTorch nor a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from respan_common.errors import ModelError
from respan_common.model_folders import ModelFolder
from respan_common.model_networks import architecture

Shapes = dict[str, tuple[int, ...]]
_CONVOLUTION = re.compile(
    r"encoder\.stages\.\d+\.(0\.convs\.\d+\.conv|blocks\.\d+\.conv1\.conv)\.weight"
    r"|decoder\.(transpconvs\.\d+|seg_layers\.\d+|stages\.\d+\.convs\.\d+\.conv)\.weight"
)


def misfit(expected: Shapes, found: Mapping[str, tuple[int, ...]]) -> str:
    """The first difference in words; empty if there is none, or nothing is expected."""
    for name, shape in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != shape:
            return f"{name} has the shape {found[name]}, not {shape}"
    for name in found if expected else ():
        if _CONVOLUTION.fullmatch(name) and name not in expected:
            return f"{name} is one too many"
    return ""


def expected_shapes(model: ModelFolder) -> Shapes:
    """Shapes of the convolutions of one of nnU-Net's U-Nets; empty for other networks.

    Raises
    ------
    ModelError
        If the plans contradict themselves.
    """
    name, arguments, _ = architecture(model)
    network = name.rpartition(".")[2]
    if network not in _BLOCKS:
        return {}
    try:
        plan = _Plan(model, network, arguments)
        return {**plan.encoder(), **plan.decoder()}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{model.path / 'plans.json'} describes no network that can be built ({error})"
        ) from error


_BLOCKS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}


class _Plan:
    """One value per resolution stage, finest first."""

    def __init__(self, model: ModelFolder, network: str, arguments: Mapping[str, Any]) -> None:
        self.count = int(arguments["n_stages"])
        self.dimensions = 2 if model.is_2d else 3
        self.inputs, self.outputs = model.inputs, model.outputs
        self.network = network
        self.features = self._each(arguments["features_per_stage"], self.count)
        self.blocks = self._each(arguments[_BLOCKS[network]], self.count)
        self.decoding = self._each(arguments["n_conv_per_stage_decoder"], self.count - 1)
        self.kernels = self._edges(arguments["kernel_sizes"])
        self.strides = self._edges(arguments["strides"])

    def encoder(self) -> Shapes:
        residual = self.network == "ResidualEncoderUNet"
        block = "blocks.{}.conv1" if residual else "0.convs.{}"
        shapes: Shapes = {}
        seen = self.inputs
        if residual:
            shapes["encoder.stem.convs.0.conv.weight"] = (self.features[0], seen, *self.kernels[0])
            seen = self.features[0]
        for stage, (features, kernel) in enumerate(zip(self.features, self.kernels, strict=True)):
            for number in range(self.blocks[stage]):
                name = f"encoder.stages.{stage}.{block.format(number)}.conv.weight"
                shapes[name] = (features, seen, *kernel)
                seen = features
        return shapes

    def decoder(self) -> Shapes:
        shapes: Shapes = {}
        for step, deep in enumerate(range(self.count - 1, 0, -1)):
            wide, narrow = self.features[deep], self.features[deep - 1]
            shapes[f"decoder.transpconvs.{step}.weight"] = (wide, narrow, *self.strides[deep])
            ones = (1,) * self.dimensions
            shapes[f"decoder.seg_layers.{step}.weight"] = (self.outputs, narrow, *ones)
            for number in range(self.decoding[step]):
                name = f"decoder.stages.{step}.convs.{number}.conv.weight"
                shapes[name] = (narrow, narrow if number else 2 * narrow, *self.kernels[deep - 1])
        return shapes

    def _edges(self, given: Any) -> list[tuple[int, ...]]:
        """Edges of kernels or strides; a number alone holds for every axis."""
        each = given if isinstance(given, list) else [given] * self.count
        edges = [one if isinstance(one, list) else [one] * self.dimensions for one in each]
        return [tuple(int(edge) for edge in one) for one in edges]

    @staticmethod
    def _each(given: Any, count: int) -> list[int]:
        """A number per stage; a number alone holds for all."""
        each = [int(one) for one in (given if isinstance(given, list) else [given] * count)]
        if len(each) != count:
            raise ValueError(f"{len(each)} values for {count} stages")
        return each
