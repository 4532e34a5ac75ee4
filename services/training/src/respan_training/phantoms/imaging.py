"""Light to grey values, plane by plane: blur, background, photons, detector, digitization."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from respan_training.phantoms.field import Field
from respan_training.phantoms.raster import Image
from respan_training.phantoms.recipe import Detector

GRAIN_UM = (0.9, 0.3, 0.3)
"""Size (z, y, x) of the background's grain, about that of a spine: standard deviation of the
Gaussian that would give it its correlation."""


def blur_laterally(plane: Image, sigma_um: float, field: Field) -> Image:
    """Gaussian blur of a plane."""
    sigma = (sigma_um / field.spacing.y_um, sigma_um / field.spacing.x_um)
    return np.asarray(ndi.gaussian_filter(plane, sigma, mode="nearest", truncate=3.0))


def patches_light(patches_um: NDArray[np.float64], field: Field, z_um: float) -> Image:
    """Dim round bodies in one plane: sums of 3D Gaussians.

    Rows are center (z, y, x), sigma, brightness.
    """
    light = np.zeros(field.shape_zyx[1:], dtype=np.float32)
    for *center_um, sigma_um, brightness in patches_um:
        positions_um = (z_um, field.axis_um(1), field.axis_um(2))
        z, y, x = (
            np.exp(-0.5 * ((at_um - middle_um) / sigma_um) ** 2)
            for at_um, middle_um in zip(positions_um, center_um, strict=True)
        )
        light += (brightness * z * y[:, None] * x).astype(np.float32)
    return light


def background_planes(
    field: Field, detector: Detector, rng: np.random.Generator
) -> Iterator[Image]:
    """Photons of a background that changes linearly across the field and is grainy."""
    slope = rng.normal(size=3)
    slope *= detector.gradient / max(float(np.abs(slope).sum()), 1e-9)
    z, y, x = (
        np.linspace(-1, 1, size) * part for size, part in zip(field.shape_zyx, slope, strict=True)
    )
    grain = _grain(field, rng) if detector.texture > 0 else None
    for offset in z:
        plane = detector.background * (1 + offset + y[:, None] + x)
        if grain is not None:
            plane = plane * np.maximum(1 + detector.texture * next(grain), 0)
        yield plane.astype(np.float32)


def _grain(field: Field, rng: np.random.Generator) -> Iterator[Image]:
    """Planes of smooth noise of mean 0 and standard deviation 1, each like the one before."""
    along_um, *across_um = GRAIN_UM
    spacing = field.spacing
    sigma = [max(um / edge, 0.5) for um, edge in zip(across_um, spacing.zyx[1:], strict=True)]
    # Gaussian noise smoothed by s is alike by 1/e at 2 s; so is one that forgets at this rate.
    kept = np.exp(-spacing.z_um / (2 * along_um))
    fresh = np.sqrt(1 - kept**2)
    before = None
    while True:
        noise = rng.standard_normal(field.shape_zyx[1:], dtype=np.float32)
        smooth = ndi.gaussian_filter(noise, sigma, mode="wrap", truncate=2.5)
        smooth /= max(float(smooth.std()), 1e-9)
        before = smooth if before is None else kept * before + fresh * smooth
        yield before


def expose(
    light: Iterable[Image],
    field: Field,
    detector: Detector,
    rng: np.random.Generator,
    into: NDArray[Any],
) -> None:
    """Write the grey values of the planes of a field.

    Parameters
    ----------
    light
        Expected photons in each plane, but for the background's.
    into : uint8 or uint16, shape (z, y, x)
    """
    stripes = draw_stripes(field, detector.stripes, rng)
    background = background_planes(field, detector, rng)
    for z, (own, around) in enumerate(zip(light, background, strict=True)):
        photons = shift_plane(own + around, detector.motion_voxels, rng)
        photons = shift_lines(photons, detector.jitter_voxels, rng)
        for lines, left in stripes.get(z, []):
            photons[lines] *= np.float32(left)
        into[z] = detect(np.maximum(photons, 0), detector, rng)


def draw_stripes(
    field: Field, bands: int, rng: np.random.Generator
) -> dict[int, list[tuple[slice, float]]]:
    """Bands of one to three lines in which most light is lost, and what is left; by plane."""
    found: dict[int, list[tuple[slice, float]]] = {}
    for _ in range(bands):
        plane, line = (int(rng.integers(size)) for size in field.shape_zyx[:2])
        lines = slice(line, line + int(rng.integers(1, 4)))
        found.setdefault(plane, []).append((lines, float(rng.uniform(0, 0.3))))
    return found


def shift_lines(plane: Image, sigma_voxels: float, rng: np.random.Generator) -> Image:
    """Shift every scan line along x by its own fraction of a voxel."""
    if sigma_voxels == 0:
        return plane
    shift = np.clip(rng.normal(0, sigma_voxels, (len(plane), 1)), -1, 1).astype(np.float32)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    shifted = (1 - left - right) * plane
    shifted[:, 1:] += left * plane[:, :-1]
    shifted[:, :-1] += right * plane[:, 1:]
    shifted[:, :1] += left * plane[:, :1]
    shifted[:, -1:] += right * plane[:, -1:]
    return np.asarray(shifted, dtype=np.float32)


def shift_plane(plane: Image, sigma_voxels: float, rng: np.random.Generator) -> Image:
    """Shift a plane in y and x by up to 1.5 voxels: the specimen moves between planes."""
    if sigma_voxels == 0:
        return plane
    shift = np.clip(rng.normal(0, sigma_voxels, 2), -1.5, 1.5)
    return np.asarray(ndi.shift(plane, shift, order=1, mode="nearest"), dtype=np.float32)


def detect(photons: Image, detector: Detector, rng: np.random.Generator) -> NDArray[Any]:
    """Grey values for an expected number of photons in a plane.

    Poisson counts; pulses of varying height, gamma-distributed with variance F - 1; gain;
    electronics; smoothing; clipping at both ends, as instruments do. Where nothing is clipped or
    smoothed, the mean is gain x photons + offset and the variance gain² x F x photons + read².

    Returns
    -------
    uint8 or uint16, same shape
    """
    counts = rng.poisson(photons).astype(np.float32)
    if detector.excess > 1:
        spread = np.float32(detector.excess - 1)
        counts = spread * rng.standard_gamma(counts / spread, dtype=np.float32)
    grey = detector.gain * counts + detector.offset
    grey += detector.read * rng.standard_normal(photons.shape, dtype=np.float32)
    sigma = (detector.smoothing_y_voxels, detector.smoothing_x_voxels)
    if any(sigma):
        grey = ndi.gaussian_filter(grey, sigma, truncate=3.0)
    return np.asarray(np.clip(np.rint(grey), 0, detector.white), dtype=detector.dtype)
