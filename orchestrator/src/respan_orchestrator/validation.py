"""RESPAN's validation pictures: everything that was found, on top of the image, for Fiji.

Channels keep their places: neuron, putative spines, spine ids (heads), neck ids, dendrite ids,
skeleton; and, if the distances were kept, to the dendrite and along it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.buckets import Location
from respan_common.errors import VolumeFormatError
from respan_common.events import Reporter
from respan_common.volumes import Volume, exists, open_volume
from respan_orchestrator.fiji import write_fiji_tiff
from respan_orchestrator.planes import planes

DISTANCES = "distances"
"""Image of the store with the channels "to dendrite" and "along dendrite"."""

_LARGEST_EXACT_ID = 2**24
_PUTATIVE_SPINE_ROLES = ("spine", "spine_core", "spine_shell")
_LABELS = (
    ("spine ids", "heads"),
    ("neck ids", "necks"),
    ("dendrite ids", "dendrites"),
    ("skeleton", "skeleton"),
)


@dataclass(frozen=True)
class _Layer:
    """One channel of the pictures."""

    name: str
    volume: Volume
    channel: int = 1
    values: tuple[int, ...] | None = None
    """Class values that count as 1; None: the values themselves."""
    nearest: bool = False
    """Projected by its smallest value: of distances, the largest say nothing."""

    def planes(self, report: Reporter, readers: int = 1) -> Iterator[NDArray[np.generic]]:
        """Planes (y, x) in order."""
        for plane in planes(self.volume, report, self.channel, readers):
            values = plane if self.values is None else np.isin(plane, self.values)
            self._refuse_large_ids(values)
            yield values

    def _refuse_large_ids(self, values: NDArray[np.generic]) -> None:
        if values.dtype == np.uint32 and values.max(initial=0) >= _LARGEST_EXACT_ID:
            raise VolumeFormatError(
                f"{self.name} of {self.volume.store} reach {values.max()}; a TIFF for Fiji tells "
                f"numbers apart up to {_LARGEST_EXACT_ID - 1}"
            )


def write_mips(store: Location, path: Path, channel: int, report: Reporter) -> Path:
    """Projections along z, float32 (c, y, x): maxima, but minima of the distance to the dendrite.

    Parameters
    ----------
    channel
        The neuron's channel, counted from 1.
    """
    layers = _layers(store, channel)
    _, height, width = layers[0].volume.shape_zyx

    def projections() -> Iterator[NDArray[np.float32]]:
        for done, layer in enumerate(layers):
            report.progress(done, len(layers), "writing Validation_MIPs")
            yield _projection(layer, report)

    shape = (len(layers), height, width)
    names = [layer.name for layer in layers]
    spacing = layers[0].volume.spacing
    return write_fiji_tiff(path, projections(), "CYX", shape, np.dtype(np.float32), spacing, names)


def write_volumes(store: Location, path: Path, channel: int, report: Reporter) -> Path:
    """The same channels in 3D (z, c, y, x): uint16 if that holds all values, else float32."""
    layers = _layers(store, channel)
    depth, height, width = layers[0].volume.shape_zyx
    dtype = _dtype(layers, report)
    every = zip(*(layer.planes(report, len(layers)) for layer in layers), strict=True)

    def counted() -> Iterator[NDArray[np.generic]]:
        for z, together in enumerate(every):
            report.progress(z, depth, "writing Validation_Vols")
            yield from together

    shape = (depth, len(layers), height, width)
    names = [layer.name for layer in layers]
    spacing = layers[0].volume.spacing
    return write_fiji_tiff(path, counted(), "ZCYX", shape, dtype, spacing, names)


def _layers(store: Location, channel: int) -> list[_Layer]:
    classes = open_volume(store, "labels/classes")
    image = open_volume(store, "restored" if exists(store, "restored") else "")
    roles: dict[str, int] = classes.attributes.get("roles", {})
    putative = tuple(int(roles[role]) for role in _PUTATIVE_SPINE_ROLES if role in roles)
    layers = [
        _Layer("neuron", image, min(channel, image.channels)),
        _Layer("putative spines", classes, values=putative),
    ]
    for name, group in _LABELS:
        if exists(store, f"labels/{group}"):
            layers.append(_Layer(name, open_volume(store, f"labels/{group}")))
    if exists(store, DISTANCES):
        distances = open_volume(store, DISTANCES)
        layers.append(_Layer("to dendrite (µm)", distances, 1, nearest=True))
        layers.append(_Layer("along dendrite (µm)", distances, 2))
    sizes = {layer.volume.shape_zyx for layer in layers}
    if len(sizes) > 1:
        raise VolumeFormatError(f"image and labels of {store} differ in size: {sorted(sizes)}")
    return layers


def _projection(layer: _Layer, report: Reporter) -> NDArray[np.float32]:
    """One value per column of voxels, shape (y, x); voxels without a value (NaN) do not count."""
    together = np.fmin if layer.nearest else np.fmax
    projected: NDArray[np.float32] | None = None
    for plane in layer.planes(report):
        values = plane.astype(np.float32)
        projected = values if projected is None else together(projected, values, out=projected)
    assert projected is not None, f"{layer.volume.store} has no planes"
    return projected


def _dtype(layers: list[_Layer], report: Reporter) -> np.dtype[Any]:
    """Type of the volumes: ids above 65,535 must not wrap, and distances have decimals."""
    ids = [layer for layer in layers if layer.volume.dtype == np.uint32]
    grey = [layer for layer in layers if layer.volume.dtype != np.uint32]
    fits = all(layer.volume.dtype.name in ("uint8", "uint16") for layer in grey) and all(
        plane.max(initial=0) < 2**16 for layer in ids for plane in layer.planes(report)
    )
    return np.dtype(np.uint16 if fits else np.float32)
