"""Spines with known geometry. Shape is a continuum: classes are only ways to draw it.

Head volume is log-normal; neck diameter follows it weakly, neck length not at all
(Arellano 2007, Ofer 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from respan_training.phantoms.paths import Path, across
from respan_training.phantoms.recipe import TYPICAL_HEAD_UM3
from respan_training.phantoms.solids import Cones, Points, Spheroid, tube

STUBBY, FILOPODIUM = 0.20, 0.05
"""Shares of stubby spines and of filopodia; the rest is a continuum from thin to mushroom."""

MUSHROOM_HEAD_UM3 = 0.1
"""A spine with a larger head is called mushroom; the boundary is a convention."""


@dataclass(frozen=True)
class Spine:
    """One spine, exactly.

    Attributes
    ----------
    neck_um : float64, shape (n, 3)
        Points along the neck from the base to the head's near end; one point when there is none.
    neck_length_um : float
        NaN for a stubby spine.
    length_um : float
        From base to tip along the neck and through the head.
    volume_um3 : float
        Outside the shaft, which is taken as flat at the base.
    stem : Spine or None
        For a second head on a forked neck, the spine whose neck it leaves; its own neck, base and
        lengths begin at the fork.
    """

    spine_class: str
    dendrite_id: int
    position_um: float
    brightness: float
    base_um: NDArray[np.float64]
    neck_um: Points
    neck_diameter_um: float
    neck_length_um: float
    head: Spheroid
    head_volume_um3: float
    volume_um3: float
    length_um: float
    tip_um: NDArray[np.float64]
    stem: Spine | None = None

    @property
    def has_neck(self) -> bool:
        """Whether anything lies between the shaft and the head."""
        return len(self.neck_um) > 1

    @property
    def neck_radius_um(self) -> float:
        """Half the neck's diameter; 0 for a stubby spine."""
        return self.neck_diameter_um / 2 if self.has_neck else 0.0

    @property
    def neck(self) -> Cones:
        """The neck as a tube."""
        radius_um = np.full(len(self.neck_um), self.neck_radius_um)
        return tube(self.neck_um, radius_um, self.brightness)

    @property
    def low_um(self) -> NDArray[np.float64]:
        """Least corner of the bounding box."""
        reach_um = max(self.head.along_um, self.head.across_um)
        return np.asarray(
            np.minimum(
                self.head.center_um - reach_um, self.neck_um.min(axis=0) - self.neck_radius_um
            )
        )

    @property
    def high_um(self) -> NDArray[np.float64]:
        """Greatest corner of the bounding box."""
        reach_um = max(self.head.along_um, self.head.across_um)
        return np.asarray(
            np.maximum(
                self.head.center_um + reach_um, self.neck_um.max(axis=0) + self.neck_radius_um
            )
        )


def positions_um(
    start_um: float, end_um: float, per_um: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Random positions with a small hard core: no two closer than 0.1 µm or a quarter spacing."""
    core_um = min(0.1, 0.25 / per_um)
    count = int((end_um - start_um) * per_um * 2 + 20)
    gaps_um = core_um + rng.exponential(1 / per_um - core_um, count)
    found = start_um + np.cumsum(gaps_um) - core_um
    return np.asarray(found[found < end_um])


def draw_spine(
    path: Path,
    node: int,
    dendrite_id: int,
    position_um: float,
    brightness: float,
    rng: np.random.Generator,
) -> Spine:
    """Spine at a node of a shaft, at a random angle around it."""
    tangent = path.tangents[node]
    outward = across(tangent, rng.uniform(0, 2 * np.pi))
    base_um = path.nodes_um[node] + path.radius_um[node] * outward
    axis = outward + np.tan(np.deg2rad(rng.normal(0, 20))) * tangent
    axis = axis / np.linalg.norm(axis)
    choice = rng.uniform()
    if choice < STUBBY:
        return _stubby(base_um, outward, dendrite_id, position_um, brightness, rng)
    if choice < STUBBY + FILOPODIUM:
        return _filopodium(base_um, axis, dendrite_id, position_um, brightness, rng)
    return _with_neck(base_um, axis, dendrite_id, position_um, brightness, rng)


def _head_volume_um3(rng: np.random.Generator) -> float:
    volume_um3 = TYPICAL_HEAD_UM3 * np.exp(rng.normal(0, 0.85))
    return float(np.clip(volume_um3, 0.008, 0.9))


def _head(
    center_um: NDArray[np.float64], axis: NDArray[np.float64], volume_um3: float, stretch: float
) -> Spheroid:
    radius_um = (3 * volume_um3 / (4 * np.pi)) ** (1 / 3)
    return Spheroid(
        center_um, axis, radius_um * stretch ** (2 / 3), radius_um * stretch ** (-1 / 3)
    )


def _stubby(
    base_um: NDArray[np.float64],
    axis: NDArray[np.float64],
    dendrite_id: int,
    position_um: float,
    brightness: float,
    rng: np.random.Generator,
) -> Spine:
    whole = _head(base_um, axis, _head_volume_um3(rng), float(np.exp(rng.normal(0.1, 0.15))))
    height = float(rng.uniform(0.2, 0.8))
    center_um = base_um + height * whole.along_um * axis
    head = Spheroid(center_um, axis, whole.along_um, whole.across_um)
    # Part of a ball beyond a plane at -t radii from its middle: (2 + 3t - t³) / 4; an ellipsoid
    # cut at right angles to its axis is the same by scaling.
    volume_um3 = head.volume_um3 * (2 + 3 * height - height**3) / 4
    return Spine(
        spine_class="stubby",
        dendrite_id=dendrite_id,
        position_um=position_um,
        brightness=brightness,
        base_um=base_um,
        neck_um=base_um[None],
        neck_diameter_um=float("nan"),
        neck_length_um=float("nan"),
        head=head,
        head_volume_um3=volume_um3,
        volume_um3=volume_um3,
        length_um=(1 + height) * head.along_um,
        tip_um=center_um + head.along_um * axis,
    )


def _filopodium(
    base_um: NDArray[np.float64],
    axis: NDArray[np.float64],
    dendrite_id: int,
    position_um: float,
    brightness: float,
    rng: np.random.Generator,
) -> Spine:
    diameter_um = float(rng.uniform(0.12, 0.28))
    neck_um, heading = _bent(base_um, axis, float(rng.uniform(1.5, 4.0)), 0.5, rng)
    volume_um3 = np.pi / 6 * (1.3 * diameter_um) ** 3
    spine = _assemble(neck_um, heading, diameter_um, volume_um3, 1.3, brightness)
    return _named(spine, "filopodium", dendrite_id, position_um)


def _with_neck(
    base_um: NDArray[np.float64],
    axis: NDArray[np.float64],
    dendrite_id: int,
    position_um: float,
    brightness: float,
    rng: np.random.Generator,
) -> Spine:
    volume_um3 = _head_volume_um3(rng)
    thick = (volume_um3 / TYPICAL_HEAD_UM3) ** 0.2 * np.exp(rng.normal(0, 0.3))
    diameter_um = float(np.clip(0.15 * thick, 0.05, 0.4))
    length_um = float(np.clip(0.5 * np.exp(rng.normal(0, 0.5)), 0.12, 2.0))
    neck_um, heading = _bent(base_um, axis, length_um, 0.25, rng)
    stretch = float(np.exp(rng.normal(0, 0.2)))
    spine = _assemble(neck_um, heading, diameter_um, volume_um3, stretch, brightness)
    name = "mushroom" if volume_um3 > MUSHROOM_HEAD_UM3 else "thin"
    return _named(spine, name, dendrite_id, position_um)


def second_head(stem: Spine, rng: np.random.Generator) -> Spine:
    """A spine that leaves the middle of another's neck: together they are a branched spine."""
    fork = len(stem.neck_um) // 2
    heading = stem.neck_um[fork] - stem.neck_um[fork - 1]
    heading = heading / np.linalg.norm(heading)
    axis = heading + rng.uniform(0.8, 1.8) * across(heading, rng.uniform(0, 2 * np.pi))
    axis = axis / np.linalg.norm(axis)
    args = (stem.dendrite_id, stem.position_um, stem.brightness, rng)
    return replace(_with_neck(stem.neck_um[fork], axis, *args), stem=stem)


def _bent(
    base_um: NDArray[np.float64],
    axis: NDArray[np.float64],
    length_um: float,
    bend: float,
    rng: np.random.Generator,
) -> tuple[Points, NDArray[np.float64]]:
    """Neck of that arc length, turning by about `bend` radians; and its direction at the end."""
    pieces = max(4, int(length_um / 0.15))
    turn = rng.normal(0, bend / pieces, 3)
    headings = axis + np.arange(1, pieces + 1)[:, None] * turn
    headings /= np.linalg.norm(headings, axis=1, keepdims=True)
    steps_um = np.cumsum(headings * (length_um / pieces), axis=0)
    return np.concatenate([base_um[None], base_um + steps_um]), headings[-1]


def _assemble(
    neck_um: Points,
    heading: NDArray[np.float64],
    diameter_um: float,
    head_volume_um3: float,
    stretch: float,
    brightness: float,
) -> Spine:
    whole = _head(neck_um[-1], heading, head_volume_um3, stretch)
    center_um = neck_um[-1] + whole.along_um * heading
    head = Spheroid(center_um, heading, whole.along_um, whole.across_um)
    neck_length_um = float(np.linalg.norm(np.diff(neck_um, axis=0), axis=1).sum())
    return Spine(
        spine_class="",
        dendrite_id=0,
        position_um=0.0,
        brightness=brightness,
        base_um=neck_um[0],
        neck_um=neck_um,
        neck_diameter_um=diameter_um,
        neck_length_um=neck_length_um,
        head=head,
        head_volume_um3=head_volume_um3,
        volume_um3=head_volume_um3 + np.pi / 4 * diameter_um**2 * neck_length_um,
        length_um=neck_length_um + 2 * head.along_um,
        tip_um=center_um + head.along_um * heading,
    )


def _named(spine: Spine, name: str, dendrite_id: int, position_um: float) -> Spine:
    return replace(spine, spine_class=name, dendrite_id=dendrite_id, position_um=position_um)
