"""What one phantom is to look like: optics, detector and scenery, drawn once per volume.

Numbers and their sources are in docs/phantoms.md. Anything that a microscope's owner
could change is a field here, so `snr="mixed"` can vary all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common.geometry import VoxelSpacing, Zyx
from respan_common.params import SynthesisParams
from respan_training.phantoms.field import Field

PHOTONS = {"easy": 100.0, "typical": 50.0, "hard": 15.0, "extreme": 5.0}
"""Photons at the middle of a head of `TYPICAL_HEAD_UM3` on a dendrite of brightness 1."""

TYPICAL_HEAD_UM3 = 0.09

OTHER_VOXELS = (0.6, 1.4)
"""Range of the voxels' edges over the kind's own, for `snr="mixed"` without a voxel size."""


@dataclass(frozen=True)
class Optics:
    """Gaussian point spread function, in µm, with a weak wide part for light out of focus."""

    lateral_um: float
    axial_um: float
    halo: float = 0.12
    """Share of the light in the wide part."""
    halo_lateral_um: float = 0.6
    halo_axial_um: float = 2.4
    skew: float = 0.0
    """How much longer the axial tail is on the deeper side: spherical aberration."""
    widening_per_um: float = 0.0
    """Relative growth of the sharp part with depth."""

    def wider(self, z_um: NDArray[np.float64]) -> NDArray[np.float64]:
        """Factor on both widths of the sharp part at a depth; 1 at 0."""
        return np.asarray(np.maximum(1 + self.widening_per_um * z_um, 0.5))

    @property
    def head_response(self) -> float:
        """Value at the middle of a typical head after blurring, for a concentration of 1.

        A ball of radius R under an isotropic Gaussian of the same volume as the real one:
        erf(a) - 2a/sqrt(pi) exp(-a²), a = R / (sqrt(2) sigma).
        """
        radius_um = (3 * TYPICAL_HEAD_UM3 / (4 * math.pi)) ** (1 / 3)
        sigma_um = (self.lateral_um**2 * self.axial_um) ** (1 / 3)
        a = radius_um / (math.sqrt(2) * sigma_um)
        core = math.erf(a) - 2 * a / math.sqrt(math.pi) * math.exp(-(a**2))
        return float((1 - self.halo) * core)


@dataclass(frozen=True)
class Detector:
    """From expected light to grey values."""

    photons: float
    background: float
    """Photons everywhere."""
    gradient: float
    """Relative change of the background across the field."""
    texture: float
    """Relative standard deviation of the background's grain: unresolved neuropil."""
    excess: float
    """Excess-noise factor of the photomultiplier, on the variance."""
    gain: float
    """Grey values per photon."""
    offset: float
    """Grey value of darkness; may be negative: the instrument then cuts dim light off."""
    read: float
    """Standard deviation of the electronics, in grey values."""
    bits: int
    jitter_voxels: float
    """Standard deviation of a scan line's shift along x."""
    smoothing_y_voxels: float = 0.0
    smoothing_x_voxels: float = 0.0
    """Smoothing after detection: slow electronics along a line, averaging, resampling."""
    fading_per_um: float = 0.0
    """Loss of light with depth: bleaching and scattering, as an exponent."""
    motion_voxels: float = 0.0
    """Standard deviation of a plane's shift in y and x: breathing, heartbeat, drift."""
    stripes: int = 0
    """Bands of lines in which most light was lost."""

    def left(self, z_um: NDArray[np.float64]) -> NDArray[np.float32]:
        """Share of the light that is left at a depth; 1 at 0."""
        return np.asarray(np.exp(-self.fading_per_um * z_um), dtype=np.float32)

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Type of its grey values."""
        return np.uint8 if self.bits == 8 else np.uint16

    @property
    def dark_variance(self) -> float:
        """Variance, in photons, of a voxel that holds nothing but background."""
        even = self.excess * self.background + (self.read / self.gain) ** 2
        return even + (self.texture * self.background) ** 2

    def flicker(self, photons: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standard deviation, in photons, of voxels that expect so many beside the background."""
        return np.asarray(np.sqrt(self.excess * photons + self.dark_variance), dtype=np.float32)

    @property
    def white(self) -> int:
        """Greatest grey value."""
        return int(2**self.bits - 1)


@dataclass(frozen=True)
class Scenery:
    """How many of what is in the field, and how it is bent."""

    dendrites: int
    thinnest_um: float
    thickest_um: float
    """Range of shaft radii."""
    dimmest: float
    """Least brightness of a thick dendrite; the first has at least 0.6, and none above 1.4."""
    elevation_deg: float
    """Standard deviation of a dendrite's angle to the image plane."""
    spines_per_um: float
    branch: float
    """Probability that a dendrite forks."""
    neighbor: float
    """Probability that a dendrite runs beside or across an earlier one."""
    soma: float
    axons: int
    puncta_per_um3: float
    patches: int
    """Dim, smooth bodies: other cells, autofluorescence."""
    bumps_per_um: float
    """Low swellings on the shaft that nobody would call spines."""
    membrane: float
    """0: dye fills the inside; 1: it sits in the membrane."""
    bodies: int = 0
    """Hazy bodies of other cells, as bright as a dim dendrite, in which spines seem to lie."""
    ghosts: int = 0
    """Dendrites of another neuron, too dim for anybody to trace."""
    forked: float = 0.03
    """Share of spines with a second head on the same neck."""
    beading: float = 0.14
    """Greatest standard deviation of a shaft's relative radius."""
    unevenness: float = 0.15
    """Standard deviation of the logarithm of a spine's brightness over its dendrite's."""
    dimness: float = 1.0
    """Median of a spine's brightness over its dendrite's."""
    grain: float = 0.0
    """Standard deviation of the logarithm of the dye's concentration within a neurite."""
    grain_um: float = 0.4
    """Length over which the concentration is alike."""


@dataclass(frozen=True)
class Recipe:
    """All of the above, and the voxels."""

    kind: str
    field: Field
    optics: Optics
    detector: Detector
    scenery: Scenery

    @property
    def photons_per_light(self) -> float:
        """Photons for a light of 1."""
        return self.detector.photons / self.optics.head_response


def draw_recipe(params: SynthesisParams, rng: np.random.Generator) -> Recipe:
    """Recipe of one volume: the kind's preset, or a wide draw around it for `snr="mixed"`."""
    wide = params.snr == "mixed"
    two_photon = params.kind == "two-photon"
    shape = _shape(params, two_photon)
    spacing = _spacing(params, two_photon, rng if wide else None)
    field = Field(shape, spacing)
    if not wide:
        recipe = _preset(params.kind, field, PHOTONS[str(params.snr)])
        return replace(recipe, scenery=_lively(recipe.scenery, rng))
    return _wide(params.kind, field, rng)


def _shape(params: SynthesisParams, two_photon: bool) -> Zyx:
    z, y, x = params.shape or ([32, 320, 320] if two_photon else [48, 256, 256])
    return (z, y, x)


def _spacing(
    params: SynthesisParams, two_photon: bool, rng: np.random.Generator | None
) -> VoxelSpacing:
    if params.spacing_um is not None:
        return VoxelSpacing(*params.spacing_um)
    z, y, x = (1.0, 0.102, 0.102) if two_photon else (0.15, 0.065, 0.065)
    if rng is None:
        return VoxelSpacing(z, y, x)
    axial, lateral = (log_uniform(rng, *OTHER_VOXELS) for _ in range(2))
    return VoxelSpacing(z * axial, y * lateral, x * lateral)


def _preset(kind: str, field: Field, photons: float) -> Recipe:
    if kind == "two-photon":
        optics = Optics(0.19, 1.1, 0.5, 0.75, 2.8)
        # 8-bit stretch: a typical head lands at 40 % of white, so shafts clip.
        gain = 0.4 * 255 / photons
        detector = Detector(photons, 0.8, 0.2, 0.3, 1.3, gain, -0.5, 1.5, 8, 0.2)
        scenery = Scenery(2, 0.25, 0.65, 0.35, 8.0, 0.9, 0.3, 0.3, 0.05, 2, 8e-4, 1, 0.35, 0.0)
    else:
        optics = Optics(0.11, 0.32, 0.06, 0.35, 1.0)
        detector = Detector(photons, 1.0, 0.2, 0.1, 1.2, 0.12 * 4095 / photons, 20.0, 6.0, 12, 0.1)
        scenery = Scenery(1, 0.25, 0.9, 0.35, 14.0, 1.6, 0.3, 0.3, 0.05, 1, 2e-3, 0, 0.3, 0.0)
    return Recipe(kind, field, optics, detector, scenery)


def _lively(scenery: Scenery, rng: np.random.Generator) -> Scenery:
    return replace(
        scenery,
        dendrites=scenery.dendrites + int(rng.integers(0, 2)),
        spines_per_um=scenery.spines_per_um * float(np.exp(rng.normal(0, 0.25))),
    )


def _wide(kind: str, field: Field, rng: np.random.Generator) -> Recipe:
    two_photon = kind == "two-photon"
    optics = _wide_two_photon_optics(rng) if two_photon else _wide_confocal_optics(rng)
    return Recipe(
        kind, field, optics, _wide_detector(rng, two_photon), _wide_scenery(rng, field, two_photon)
    )


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is anywhere between those of two bounds."""
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _wide_two_photon_optics(rng: np.random.Generator) -> Optics:
    lateral = log_uniform(rng, 0.13, 0.27)
    axial = log_uniform(rng, 0.6, 1.6)
    return Optics(
        lateral,
        axial,
        skew=float(rng.uniform(0, 0.2)),
        widening_per_um=float(rng.uniform(0, 0.008)),
        # Profiles of shafts in vivo (40, 16 and 5 % of the peak 2, 3 and 5 µm out of focus) fit
        # a core of 1.25 µm axially and 60 % of the light in a part of 0.8 x 3 µm.
        halo=float(rng.uniform(0.1, 0.65)),
        halo_lateral_um=log_uniform(rng, 0.45, 1.1),
        halo_axial_um=float(np.clip(axial * rng.uniform(1.8, 3), 1.2, 3.6)),
    )


def _wide_confocal_optics(rng: np.random.Generator) -> Optics:
    lateral = log_uniform(rng, 0.08, 0.17)
    axial = log_uniform(rng, 0.2, 0.55)
    return Optics(
        lateral,
        axial,
        halo=float(rng.uniform(0, 0.2)),
        halo_lateral_um=lateral * 3,
        halo_axial_um=axial * 3,
        skew=float(rng.uniform(0, 0.25)),
        widening_per_um=float(rng.uniform(0, 0.02)),
    )


def _wide_detector(rng: np.random.Generator, two_photon: bool) -> Detector:
    # rr30a: a head of 100 grey values varies by 30 from pixel to pixel, as 5 to 10 photons would.
    photons = log_uniform(rng, 3, 50) if two_photon else log_uniform(rng, 4, 100)
    bits = int(rng.choice([8, 8, 8, 12, 16] if two_photon else [8, 12, 12, 16, 16]))
    white = 2**bits - 1
    # Share of white that a typical head reaches: above 0.3 bright shafts clip.
    at_head = log_uniform(rng, 0.15, 1.0) if two_photon else log_uniform(rng, 0.1, 0.8)
    gain = at_head * white / photons
    # Detectors are slower along a line than across: neighbors in x share noise (rr30a: correlation
    # 0.55 in x, 0.1 in y).
    smooth = bool(rng.uniform() < (0.75 if two_photon else 0.3))
    return Detector(
        photons=photons,
        background=photons * log_uniform(rng, 0.005, 0.08),
        gradient=float(rng.uniform(0, 0.4)),
        texture=float(rng.uniform(0, 1.0)),
        excess=float(rng.uniform(1.0, 2.0)),
        gain=gain,
        offset=float(rng.uniform(-0.7, 1.0)) * gain,
        read=float(rng.uniform(0.05, 0.7)) * gain + 0.3,
        bits=bits,
        jitter_voxels=float(rng.choice([0.0, 0.15, 0.4])),
        smoothing_y_voxels=float(rng.choice([0.0, 0.3, 0.5])) if smooth else 0.0,
        smoothing_x_voxels=float(rng.uniform(0.4, 0.9)) if smooth else 0.0,
        fading_per_um=float(rng.uniform(0, 0.025 if two_photon else 0.05)),
        motion_voxels=float(rng.choice([0.0, 0.3, 0.8] if two_photon else [0.0, 0.0, 0.3])),
        stripes=int(rng.poisson(0.3)),
    )


def _wide_scenery(rng: np.random.Generator, field: Field, two_photon: bool) -> Scenery:
    side_um = float(np.sqrt(field.size_um[1] * field.size_um[2]))
    most = int(np.clip(round(side_um / 10), 2, 6))
    return Scenery(
        dendrites=int(rng.integers(1, most + 1)),
        thinnest_um=0.22,
        # rr30a: shafts of up to 2.5 µm, beside which heads look dim.
        thickest_um=float(rng.choice([0.6, 0.9, 1.3] if two_photon else [0.5, 0.9, 1.3])),
        dimmest=0.15,
        elevation_deg=float(rng.choice([4.0, 8.0, 14.0] if two_photon else [5.0, 12.0, 25.0])),
        # In vivo about 0.5 are seen.
        spines_per_um=log_uniform(rng, 0.15 if two_photon else 0.25, 3.0),
        branch=0.35,
        neighbor=0.35,
        soma=0.1,
        axons=int(rng.integers(0, 8)),
        puncta_per_um3=log_uniform(rng, 2e-4, 8e-3),
        patches=int(rng.integers(0, 5)),
        bumps_per_um=float(rng.uniform(0, 0.8)),
        membrane=float(rng.choice([0.0, 0.0, 0.0, 0.7])),
        ghosts=int(rng.integers(0, 3)),
        beading=float(rng.uniform(0.1, 0.22)),
        unevenness=float(rng.uniform(0.1, 0.35)),
        # rr30a: heads reach 0.6 of their shaft's light, more in evenly filled phantoms.
        dimness=float(rng.uniform(0.6, 1.05) if two_photon else rng.uniform(0.8, 1.05)),
        grain=float(rng.uniform(0.0, 0.8)),
        grain_um=log_uniform(rng, 0.25, 0.8),
        # rr30a: fifteen in a field, as bright as 0.2 to 0.5 of its dendrites.
        bodies=int(rng.integers(0, 5)),
    )
