"""CARE: restores one channel with a csbdeep model, block by block. Arrays in, arrays out.

csbdeep brings TensorFlow, which costs seconds and half a gigabyte: both are imported only by those
functions that need them, never by importing this module.

A block is predicted together with everything its voxels can see, normalized by the percentiles of
the whole channel and padded where csbdeep would pad the whole volume. So the grey values are those
of `CARE.predict` on the whole volume, however the volume is cut.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from respan_common.errors import CapacityError, InputError, ModelError
from respan_common.geometry import Box, Zyx, shape_of

logger = logging.getLogger(__name__)

Reader = Callable[[Box], NDArray[Any]]
"""Gives the voxels of a box of one channel, shape (z, y, x)."""

# csbdeep's defaults, and RESPAN's.
LOW_PERCENTILE, HIGH_PERCENTILE = 2.0, 99.8

# With csbdeep's usual 32 feature maps, 2 million voxels are 268 MB per layer, and the U-Net's
# skips keep about eight layers alive.
VOXELS_PER_TILE = 2**21

# The edge at which a tile that exceeds the memory is given up: its halo is all there is to it.
SMALLEST_TILE_VOXELS = 8


@dataclass(frozen=True)
class CareFolder:
    """A model folder that can restore a 3D channel, as far as one sees without TensorFlow."""

    path: Path
    config: dict[str, Any]
    weights: Path

    @property
    def files(self) -> list[Path]:
        """Everything that the result depends on."""
        return [self.path / "config.json", self.weights]


@dataclass(frozen=True)
class CareModel:
    """A loaded model."""

    folder: CareFolder
    network: Any
    """Keras model."""
    divisor: int
    """Sizes that the network takes are multiples of this: 2 to the power of its depth."""
    overlap: int
    """How far an output voxel sees, at most."""


@dataclass(frozen=True)
class Limits:
    """Grey values that the network sees as 0 and 1; equal for a channel of one grey value."""

    low: np.float32
    high: np.float32


@dataclass(frozen=True)
class Channel:
    """What is to be restored."""

    read: Reader
    shape_zyx: Zyx
    limits: Limits
    """Of the whole channel."""


def open_folder(path: Path) -> CareFolder:
    """Check a csbdeep model folder.

    Raises
    ------
    ModelError
        If something is missing, or the model does not map one 3D channel to one 3D channel.
    """
    config = _read_config(path)
    axes = str(config.get("axes", ""))
    if sorted(axes) != sorted("ZYXC"):
        kind = "a 2D model" if sorted(axes) == sorted("YXC") else "not a model of single volumes"
        raise ModelError(
            f"{path} is {kind}: its config.json says axes '{axes}', and restoration needs 'ZYXC'; "
            "train a 3D CARE model"
        )
    for key in ("n_channel_in", "n_channel_out"):
        if config.get(key, 1) != 1:
            raise ModelError(
                f"{path} has {key} {config[key]} in its config.json, and restoration needs 1: "
                "channels are restored one by one; train a model of a single channel"
            )
    return CareFolder(path, config, _weights_of(path))


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not path.is_dir():
        raise ModelError(f"there is no CARE model folder at {path}")
    if not file.is_file():
        raise ModelError(
            f"{path} has no config.json, so it is not a CARE model folder; name the folder that "
            "csbdeep wrote, with config.json and weights_best.h5 in it"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not JSON ({error}); copy it anew from the training") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} holds no settings; copy it anew from the training")
    return config


def _weights_of(path: Path) -> Path:
    """The best weights, else the last ones; without any, csbdeep would predict with random ones."""
    for name in ("weights_best.h5", "weights_last.h5"):
        if (path / name).is_file():
            return path / name
    others = sorted(file.name for file in path.glob("*.h*5"))
    hint = f"; it has {', '.join(others)}: rename the one to use" if others else ""
    raise ModelError(
        f"{path} has no weights: weights_best.h5 or weights_last.h5 must lie beside config.json, "
        f"as csbdeep writes them at the end of training{hint}"
    )


def load(folder: CareFolder, device: str = "auto", threads: int = 0) -> CareModel:
    """Build the network and read its weights; nothing is written to the folder."""
    _prepare_tensorflow(device, threads)
    from csbdeep.internals.predict import tile_overlap
    from csbdeep.models import CARE, Config

    try:
        config = Config(**folder.config)
        model = CARE(config, name=folder.path.name, basedir=None)
        model.keras_model.load_weights(str(folder.weights))
        overlap = int(tile_overlap(config.unet_n_depth, config.unet_kern_size))
    except (ValueError, AttributeError, TypeError, OSError, LookupError) as error:
        raise ModelError(
            f"{folder.path} cannot be loaded as a CARE model with {folder.weights.name}: {error}"
        ) from error
    return CareModel(folder, model.keras_model, 2**config.unet_n_depth, overlap)


@cache
def _prepare_tensorflow(device: str, threads: int) -> None:
    """Choose devices and threads; TensorFlow allows it only before its first computation."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    try:
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        for gpu in tf.config.get_visible_devices("GPU"):
            # Else TensorFlow takes all of the GPU's memory, and Self-Net finds none.
            tf.config.experimental.set_memory_growth(gpu, True)
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        logger.warning("TensorFlow runs already and keeps its devices and threads: %s", error)


def may_use_gpu() -> bool:
    """Whether TensorFlow is made for GPUs; asked without touching one."""
    import tensorflow as tf

    return bool(tf.test.is_built_with_cuda())


def runs_on_gpu() -> bool:
    """Whether TensorFlow would use a GPU; tensorflow-cpu never does."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def limits(read: Reader, boxes: Iterable[Box], dtype: DTypeLike) -> Limits:
    """Percentiles 2 and 99.8 of a channel, read box by box.

    Exact for 8 and 16 bits, by counting; other types are held in memory.

    Raises
    ------
    InputError
        If the channel has values that are not finite, or so few bright voxels that both
        percentiles are equal and CARE would divide by zero.
    """
    exact = np.issubdtype(dtype, np.unsignedinteger) and np.dtype(dtype).itemsize <= 2
    percentiles = _counted(read, boxes) if exact else _sorted(read, boxes)
    low, high, least, most = (np.float32(value) for value in percentiles)
    if not np.isfinite([low, high]).all():
        raise InputError("some values are not finite (NaN or infinite): CARE cannot normalize them")
    if low == high and least != most:
        raise InputError(
            f"percentiles {LOW_PERCENTILE} and {HIGH_PERCENTILE} are both {low:g}: almost all "
            "voxels are equal, and CARE cannot normalize them; crop the image, or restore it "
            "before its background is removed"
        )
    return Limits(low, high)


def _counted(read: Reader, boxes: Iterable[Box]) -> list[float]:
    """Percentiles, least and greatest value of up to 16 bits; as `numpy.percentile`."""
    counts = np.zeros(2**16, np.int64)
    for box in boxes:
        counts += np.bincount(read(box).ravel(), minlength=2**16)
    up_to = np.cumsum(counts)
    last = int(up_to[-1]) - 1
    places = [last * LOW_PERCENTILE / 100, last * HIGH_PERCENTILE / 100, 0, last]
    below, above = (
        np.searchsorted(up_to, rounded(places), side="right") for rounded in (np.floor, np.ceil)
    )
    return [float(value) for value in below + (above - below) * (places - np.floor(places))]


def _sorted(read: Reader, boxes: Iterable[Box]) -> list[float]:
    values = np.concatenate([read(box).ravel() for box in boxes])
    percentiles = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return [*map(float, percentiles), float(values.min()), float(values.max())]


def restore(
    model: CareModel,
    channel: Channel,
    box: Box,
    most: Zyx | None = None,
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Restore a box of a channel.

    Parameters
    ----------
    most
        Largest tile, without what it sees beyond itself; absent: what memory allows.
    check
        Called before every tile; may raise to give up.

    Returns
    -------
    float32 array, shape of `box`
        Grey values; may lie below 0 or above every grey value of the channel. The mean, if the
        model predicts a distribution. A channel of one grey value is its own restoration.

    Raises
    ------
    CapacityError
        If even the smallest tile exceeds the memory.
    """
    low, high = channel.limits.low, channel.limits.high
    if low == high:
        return channel.read(box).astype(np.float32)
    predicted = None
    if not _is_too_large(model, channel, box, most):
        check()
        predicted = _predict(model, (_padded(model, channel, box) - low) / (high - low))
        if predicted is None and max(shape_of(box)) <= SMALLEST_TILE_VOXELS:
            raise CapacityError(
                f"{model.folder.path} needs more memory than there is, even for a tile of "
                f"{shape_of(box)} voxels; use a machine with more memory or a smaller model"
            )
    if predicted is None:
        axis, halves = _halves(box, most)
        parts = [restore(model, channel, half, most, check) for half in halves]
        return np.concatenate(parts, axis=axis)
    z, y, x = (
        slice(part.start - start, part.stop - start)
        for part, (start, _) in zip(box, _window(model, channel.shape_zyx, box), strict=True)
    )
    return predicted[z, y, x] * (high - low) + low


def _is_too_large(model: CareModel, channel: Channel, box: Box, most: Zyx | None) -> bool:
    shape = shape_of(box)
    if most is not None and any(size > edge for size, edge in zip(shape, most, strict=True)):
        return True
    window = _window(model, channel.shape_zyx, box)
    seen = int(np.prod([stop - start for start, stop in window]))
    # A tile smaller than its halo costs much time and saves little memory.
    return seen > VOXELS_PER_TILE and max(shape) > max(model.overlap, SMALLEST_TILE_VOXELS)


def _halves(box: Box, most: Zyx | None) -> tuple[int, list[Box]]:
    """Cut a box across the axis that exceeds `most` by the largest factor, else the longest."""
    shape = shape_of(box)
    excess = [size / edge for size, edge in zip(shape, most or shape, strict=True)]
    axis = int(np.argmax(excess if max(excess) > 1 else shape))
    middle = (box[axis].start + box[axis].stop) // 2
    halves: list[Box] = []
    for half in (slice(box[axis].start, middle), slice(middle, box[axis].stop)):
        z, y, x = (half if n == axis else part for n, part in enumerate(box))
        halves.append((z, y, x))
    return axis, halves


def _window(model: CareModel, shape_zyx: Zyx, box: Box) -> list[tuple[int, int]]:
    """Start and stop along each axis of what a box can see, as the network takes it.

    In voxels of the image; may reach beyond it, by what csbdeep pads. Starts on the network's
    pooling grid, which begins where csbdeep's padding begins.
    """
    divisor, window = model.divisor, []
    for part, size in zip(box, shape_zyx, strict=True):
        missing = -size % divisor
        first = missing // 2
        start = (part.start + first - model.overlap) // divisor * divisor
        stop = -(-(part.stop + first + model.overlap) // divisor) * divisor
        window.append((max(start, 0) - first, min(stop, size + missing) - first))
    return window


def _padded(model: CareModel, channel: Channel, box: Box) -> NDArray[np.float32]:
    """Voxels of a box's window, reflected where it reaches beyond the image."""
    window, shape_zyx = _window(model, channel.shape_zyx, box), channel.shape_zyx
    z, y, x = (
        slice(max(start, 0), min(stop, size))
        for (start, stop), size in zip(window, shape_zyx, strict=True)
    )
    beyond = [
        (max(-start, 0), max(stop - size, 0))
        for (start, stop), size in zip(window, shape_zyx, strict=True)
    ]
    return np.pad(channel.read((z, y, x)).astype(np.float32), beyond, mode="reflect")


def _predict(model: CareModel, values: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Prediction for one tile; None if the memory does not suffice."""
    import tensorflow as tf
    from csbdeep.internals.predict import predict_direct

    order = str(model.folder.config["axes"])
    to_model = ["ZYXC".index(axis) for axis in order]
    tile = values[..., None].transpose(to_model)
    try:
        predicted = predict_direct(model.network, tile, axes_in=order)
    except tf.errors.ResourceExhaustedError:
        return None
    # A probabilistic model's second output is the width of its distribution.
    mean: NDArray[np.float32] = predicted.transpose(np.argsort(to_model))[..., 0]
    if not np.isfinite(mean).all():
        raise ModelError(
            f"{model.folder.path} predicts values that are not finite; its weights are broken: "
            "train it again with a smaller learning rate"
        )
    return mean
