"""What a checkpoint of PyTorch holds, read without PyTorch and without running anything in it.

A checkpoint is a zip of raw numbers and of a pickle that says how to put them together. The pickle
is replayed with stand-ins: whatever it names and is known to be harmless becomes an object that
does nothing; a tensor becomes its name, shape and place in the zip. Everything else is refused, as
the segmentation service refuses it.
"""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from respan_common.errors import ModelError

_LARGEST_PICKLE = 64 * 2**20
"""Bytes; those of nnU-Net's largest networks have less than one million."""
_NUMBERS: dict[str, np.dtype[Any]] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype("V2"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}
_NUMPY = ("numpy.core.multiarray.", "numpy._core.multiarray.")
_HARMLESS = {
    "torch.Size",
    "torch.device",
    "torch.float32",
    "torch.float64",
    "torch.float16",
    "torch.bfloat16",
    "torch.serialization._get_layout",
    "_codecs.encode",
    "__builtin__.set",
    "builtins.set",
    "builtins.complex",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"{place}{name}" for place in _NUMPY for name in ("scalar", "_reconstruct")),
}
# What a pickle from anywhere can make Python raise, once it can run nothing.
_BROKEN = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,  # also NotImplementedError and RecursionError
    MemoryError,
    OverflowError,
)


@dataclass(frozen=True)
class Checkpoint:
    """Names of what a checkpoint holds."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each of the network's weights."""
    not_finite: tuple[str, ...]
    """Weights of which some are not a number, or infinite: the training went astray."""
    configuration: str
    """nnU-Net's name of what was trained; empty if it does not say."""
    trainer: str
    """Name of the trainer's class; empty if it does not say."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of nnU-Net v2: all of its bytes, and no code.

    Raises
    ------
    ModelError
        If it is damaged, something else, or would have to run code to be read.
    """
    with _complaining(path), zipfile.ZipFile(path) as archive:
        content, prefix = _content(archive, path.stat().st_size)
        weights = content.get("network_weights") if isinstance(content, dict) else None
        if not isinstance(weights, dict):
            raise ModelError(f"{path} is no checkpoint of nnU-Net v2: it has no 'network_weights'")
        tensors = {str(name): one for name, one in weights.items() if isinstance(one, _Tensor)}
        # Several names may share one storage: each is read once.
        finite = {one.storage: one.storage.is_finite(archive, prefix) for one in tensors.values()}
        damaged = archive.testzip()
        if damaged is not None:
            raise ModelError(f"{path} is damaged ({damaged}): copy it again")
        return Checkpoint(
            shapes={name: one.shape for name, one in tensors.items()},
            not_finite=tuple(name for name, one in tensors.items() if not finite[one.storage]),
            configuration=_said(content.get("init_args"), "configuration"),
            trainer=_said(content, "trainer_name"),
        )


@contextmanager
def _complaining(path: Path) -> Iterator[None]:
    try:
        yield
    except _ForbiddenError as error:
        raise ModelError(
            f"{path} is refused: reading it would run code from the file ({error}). If you trust "
            "its origin, save its weights again with torch.save({'network_weights': ..., "
            "'init_args': {'configuration': ...}}, path)"
        ) from error
    except _BROKEN as error:
        raise ModelError(
            f"{path} is not a readable checkpoint ({error or type(error).__name__}): copy it again"
        ) from error


def _content(archive: zipfile.ZipFile, size: int) -> tuple[Any, str]:
    """The pickle's content, and the folder in the zip where the numbers lie."""
    entries = archive.infolist()
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("not a file that torch.save wrote")
    # torch.save does not compress, so nothing can be larger unpacked.
    if sum(entry.file_size for entry in entries) > size or pickles[0].file_size > _LARGEST_PICKLE:
        raise ValueError("it is larger unpacked than torch.save would make it")
    content = _Replay(io.BytesIO(archive.read(pickles[0]))).load()
    return content, pickles[0].filename.removesuffix("data.pkl")


def _said(content: Any, key: str) -> str:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, str) else ""


class _ForbiddenError(pickle.UnpicklingError):
    """A pickle names what could run code."""


class _Replay(pickle.Unpickler):
    """An unpickler to which all names mean stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _STAND_INS:
            return _STAND_INS[full]
        if full in _NUMBERS:
            return full
        if full in _HARMLESS or (module == "numpy.dtypes" and name.endswith("DType")):
            return _Nothing
        raise _ForbiddenError(f"GLOBAL {full}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, numbers, key, _, count = pid
        if kind != "storage":
            raise _ForbiddenError(f"persistent id {kind!r}")
        return _Storage(_NUMBERS[numbers], str(key), int(count))


# Every stand-in is a class with __setstate__: a pickle's BUILD can then neither fill one with
# attributes nor change the class itself.


class _Nothing:
    """Anything that is harmless and of no interest."""

    def __new__(cls, *_: object) -> _Nothing:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Stay as it is."""


class _Dict(OrderedDict[Any, Any]):
    """A state dict; torch attaches metadata to it."""

    def __setstate__(self, state: object) -> None:
        """Stay as it is."""


@dataclass(frozen=True)
class _Storage:
    """Numbers in the zip."""

    dtype: np.dtype[Any]
    key: str
    count: int

    def __setstate__(self, state: object) -> None:
        """Stay as it is."""

    def is_finite(self, archive: zipfile.ZipFile, prefix: str) -> bool:
        """Whether there is no infinity and no NaN; true where numpy cannot tell."""
        raw = archive.read(f"{prefix}data/{self.key}")
        if len(raw) != self.dtype.itemsize * self.count:
            raise ValueError(f"its numbers {self.key} are not as many as they should be")
        return self.dtype.kind != "f" or bool(np.isfinite(np.frombuffer(raw, self.dtype)).all())


class _Tensor:
    """A tensor by its storage and shape; the arguments are those of torch's _rebuild_tensor_v2."""

    def __init__(self, storage: _Storage, offset: int, shape: Any, stride: Any, *_: object) -> None:
        self.storage, self.shape = storage, tuple(int(size) for size in shape)

    def __setstate__(self, state: object) -> None:
        """Stay as it is."""


class _Parameter:
    """A parameter is its tensor."""

    def __new__(cls, data: Any, *_: object) -> Any:
        return data

    def __setstate__(self, state: object) -> None:
        """Stay as it is."""


_STAND_INS: dict[str, type] = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    "torch._utils._rebuild_parameter": _Parameter,
}
