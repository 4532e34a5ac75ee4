"""The same array work on the processor or on a GPU; callers have one code path.

A process says once where it computes, and then works on NumPy arrays as if there were nothing else:

    warning = compute_on(runtime.device)
    inside_um = inside_distance(classes == 2, spacing)

Work on many steps keeps its arrays where they are:

    arrays = arrays_for(classes.size)
    mask = arrays.from_host(classes == 2)
    inside_um = arrays.to_host(arrays.inside_distance(mask, spacing))

Arrays stay where they are until `to_host`; between the calls, plain operators and `arrays.xp` (the
module NumPy or CuPy) work on them alike. Ids agree exactly, distances to the rounding of single
precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing

WORTHWHILE = 2**18
"""Voxels below which a GPU's start and transfers take longer than the work itself."""

Array = Any
"""An array of the module in use: numpy.ndarray or cupy.ndarray."""


class Arrays(ABC):
    """What blocks of voxels go through. Masks are boolean, labels uint32 with 0 as background."""

    xp: Any
    """The array module: `numpy` or `cupy`."""

    @abstractmethod
    def from_host(self, values: NDArray[Any]) -> Array:
        """An array of this module with these values."""

    @abstractmethod
    def to_host(self, values: Array) -> NDArray[Any]:
        """A NumPy array with these values."""

    @abstractmethod
    def components26(self, mask: Array) -> Array:
        """26-connected components as uint32 labels, 1..N in the raster order of first voxels."""

    def inside_distance(self, mask: Array, spacing: VoxelSpacing) -> Array:
        """µm (float32) from each voxel's center to the nearest center outside the mask.

        0 outside. The array's faces are no surface; infinite if nothing is outside at all.
        """
        if not mask.size or bool(mask.all()):
            return self.xp.where(mask, self.xp.float32(np.inf), self.xp.float32(0))
        return self._inside_distance(mask, spacing)

    @abstractmethod
    def _inside_distance(self, mask: Array, spacing: VoxelSpacing) -> Array: ...


def _components26(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    return np.asarray(cc3d.connected_components(mask, connectivity=26, out_dtype=np.uint32))


class NumpyArrays(Arrays):
    """On the processor."""

    def __init__(self, threads: int = 1) -> None:
        self.xp = np
        self._threads = threads

    def from_host(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values themselves."""
        return values

    def to_host(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values themselves."""
        return values

    def components26(self, mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """26-connected components as uint32 labels, 1..N in the raster order of first voxels."""
        whole = np.ascontiguousarray(mask)
        if not whole.size:
            return np.zeros(whole.shape, np.uint32)
        try:
            return _components26(whole)
        except RuntimeError:  # cc3d 4.1 reserves too few numbers for a lattice of dots in one plane
            return _components26(np.pad(whole, (0, 1)))[tuple(slice(n) for n in whole.shape)]

    def _inside_distance(
        self, mask: NDArray[np.bool_], spacing: VoxelSpacing
    ) -> NDArray[np.float32]:
        return np.asarray(
            edt.edt(
                # Three times as fast for bytes as for the same memory called bool.
                np.ascontiguousarray(mask).view(np.uint8),
                anisotropy=spacing.zyx,
                black_border=False,
                parallel=self._threads,
            )
        )


class CupyArrays(Arrays):
    """On the GPU that is current in this process."""

    def __init__(self) -> None:
        # Optional, and seconds to load: only who computes on a GPU has it and pays for it.
        import cupy
        from cupyx.scipy import ndimage

        self.xp, self._ndi = cupy, ndimage

    def from_host(self, values: NDArray[Any]) -> Array:
        """A copy on the GPU."""
        return self.xp.asarray(values)

    def to_host(self, values: Array) -> NDArray[Any]:
        """A copy in the processor's memory."""
        return np.asarray(self.xp.asnumpy(values))

    def components26(self, mask: Array) -> Array:
        """26-connected components as uint32 labels, 1..N in the raster order of first voxels."""
        # CuPy's root of a component is its smallest raster number, and roots are sorted.
        return self._ndi.label(mask, structure=np.ones((3, 3, 3)))[0].astype(np.uint32)

    def _inside_distance(self, mask: Array, spacing: VoxelSpacing) -> Array:
        return self._ndi.distance_transform_edt(mask, sampling=spacing.zyx, float64_distances=False)


def choose_arrays(device: str, threads: int = 1) -> tuple[Arrays, str]:
    """Arrays for a runtime's device ("auto", "cpu", "cuda"), and a warning or "".

    The processor does the same work, so a GPU that was asked for and cannot be used is worth a
    warning, not a refusal.
    """
    if device == "cpu":
        return NumpyArrays(threads), ""
    missing = _why_no_gpu()
    if not missing:
        return CupyArrays(), ""
    warning = f"quantified on the CPU although a GPU was asked for: {missing}"
    return NumpyArrays(threads), warning if device == "cuda" else ""


def _why_no_gpu() -> str:
    """What keeps CuPy from computing here; empty if nothing does."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed (pip install 'respan-quantification[gpu]')"
    try:
        return "" if cupy.cuda.is_available() else "CuPy sees no CUDA device (try `nvidia-smi`)"
    except Exception as error:  # a broken driver raises CuPy's own errors, of several kinds
        return f"CuPy cannot use the CUDA device: {error}"


_ON_CPU = NumpyArrays()
_here: Arrays = _ON_CPU


def compute_on(device: str, threads: int = 1) -> str:
    """Have this process compute on a device from now on; a warning or ""."""
    global _here
    _here, warning = choose_arrays(device, threads)
    return warning


def arrays_for(voxels: int) -> Arrays:
    """What this process computes with on so many voxels: small ones stay on the processor."""
    return _here if voxels >= WORTHWHILE else _ON_CPU


def components26(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """26-connected components of a NumPy array, 1..N in the raster order of first voxels."""
    arrays = arrays_for(mask.size)
    return arrays.to_host(arrays.components26(arrays.from_host(mask)))


def inside_distance(mask: NDArray[np.bool_], spacing: VoxelSpacing) -> NDArray[np.float32]:
    """µm from each voxel of a NumPy array to the nearest one outside the mask."""
    arrays = arrays_for(mask.size)
    return arrays.to_host(arrays.inside_distance(arrays.from_host(mask), spacing))
