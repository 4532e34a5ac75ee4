"""Light to grey values: lateral blur, background, photons, photomultiplier, digitization."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from respan_training.phantoms.field import Field
from respan_training.phantoms.raster import Image
from respan_training.phantoms.recipe import Detector


def blur_laterally(image: Image, sigma_um: NDArray[np.float64], field: Field) -> Image:
    """Gaussian blur of every plane, each with its own width."""
    blurred = np.empty_like(image)
    for plane, width_um, into in zip(image, sigma_um, blurred, strict=True):
        sigma = (width_um / field.spacing.y_um, width_um / field.spacing.x_um)
        ndi.gaussian_filter(plane, sigma, output=into, mode="nearest", truncate=3.0)
    return blurred


def patches_light(patches_um: NDArray[np.float64], field: Field) -> Image:
    """Dim round bodies: sums of 3D Gaussians; rows are center (z, y, x), sigma, brightness."""
    light = np.zeros(field.shape_zyx, dtype=np.float32)
    for *center_um, sigma_um, brightness in patches_um:
        z, y, x = (
            np.exp(-0.5 * ((field.axis_um(axis) - center_um[axis]) / sigma_um) ** 2)
            for axis in range(3)
        )
        plane = (y[:, None] * x).astype(np.float32)
        light += (brightness * z).astype(np.float32)[:, None, None] * plane
    return light


def background_photons(field: Field, detector: Detector, rng: np.random.Generator) -> Image:
    """Background that changes linearly across the field, with grain about as large as a spine."""
    slope = rng.normal(size=3)
    slope *= detector.gradient / max(float(np.abs(slope).sum()), 1e-9)
    z, y, x = (
        np.linspace(-1, 1, size) * part for size, part in zip(field.shape_zyx, slope, strict=True)
    )
    ramp = 1 + z[:, None, None] + y[:, None] + x
    if detector.texture == 0:
        return np.asarray(detector.background * ramp, dtype=np.float32)
    sigma = [
        max(0.3 * factor / edge, 0.5)
        for factor, edge in zip((3, 1, 1), field.spacing.zyx, strict=True)
    ]
    grain = rng.standard_normal(field.shape_zyx, dtype=np.float32)
    grain = ndi.gaussian_filter(grain, sigma, truncate=2.5)
    grain *= detector.texture / max(float(grain.std()), 1e-9)
    return np.asarray(detector.background * ramp * np.maximum(1 + grain, 0), dtype=np.float32)


def shift_lines(image: Image, sigma_voxels: float, rng: np.random.Generator) -> Image:
    """Shift every scan line along x by its own fraction of a voxel."""
    if sigma_voxels == 0:
        return image
    shift = np.clip(rng.normal(0, sigma_voxels, (*image.shape[:2], 1)), -1, 1).astype(np.float32)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    shifted = (1 - left - right) * image
    shifted[..., 1:] += left * image[..., :-1]
    shifted[..., :-1] += right * image[..., 1:]
    shifted[..., :1] += left * image[..., :1]
    shifted[..., -1:] += right * image[..., -1:]
    return np.asarray(shifted, dtype=np.float32)


def shift_planes(image: Image, sigma_voxels: float, rng: np.random.Generator) -> Image:
    """Shift every plane in y and x by up to 1.5 voxels: the specimen moves between planes."""
    if sigma_voxels == 0:
        return image
    shifts = np.clip(rng.normal(0, sigma_voxels, (len(image), 2)), -1.5, 1.5)
    moved = [
        ndi.shift(plane, shift, order=1, mode="nearest")
        for plane, shift in zip(image, shifts, strict=True)
    ]
    return np.asarray(moved, dtype=np.float32)


def lose_lines(image: Image, bands: int, rng: np.random.Generator) -> Image:
    """Take most of the light from some bands of one to three lines: stripes."""
    image = image.copy()
    for _ in range(bands):
        plane, line = rng.integers(image.shape[0]), rng.integers(image.shape[1])
        image[plane, line : line + rng.integers(1, 4)] *= np.float32(rng.uniform(0, 0.3))
    return image


def detect(photons: Image, detector: Detector, rng: np.random.Generator) -> NDArray[Any]:
    """Grey values for an expected number of photons.

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
    sigma = (0.0, detector.smoothing_y_voxels, detector.smoothing_x_voxels)
    if any(sigma):
        grey = ndi.gaussian_filter(grey, sigma, truncate=3.0)
    grey = np.clip(np.rint(grey), 0, detector.white)
    return np.asarray(grey, dtype=np.uint8 if detector.bits == 8 else np.uint16)
