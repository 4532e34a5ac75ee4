"""Every key that a settings file may have: RESPAN's own, unchanged, and those this project adds.

What a key's value may be is said here; what it does is said in `analysis_settings`. A key that
RESPAN needs and this project does not is listed with the reason, so that nobody wonders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from respan_common.params import (
    QuantificationParams,
    RestorationParams,
    SegmentationParams,
    StageParams,
)
from respan_orchestrator.settings_file import BadValueError, finite, plain


@dataclass(frozen=True)
class Key:
    """One key: how its value is understood, and what it does."""

    convert: Callable[[Any], Any]
    does: str
    unused: str = ""
    """Why this project has no use for it; empty: it is used."""


STAGES: dict[str, type[StageParams]] = {
    "Restoration": RestorationParams,
    "Segmentation": SegmentationParams,
    "Quantification": QuantificationParams,
}
"""Sections whose keys are exactly the fields of a stage's parameters."""


def length_um(value: Any) -> float:
    """A positive length, refusing the decimal comma."""
    value = plain(value)
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise BadValueError("a positive number of µm, such as 0.102 (with a point, not a comma)")
    return number


def switch(value: Any) -> bool:
    """True or False, also as text and as 1 or 0, as spreadsheets leave them."""
    text = str(value).strip().lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise BadValueError("True or False")


def three_whole_numbers(value: Any) -> list[int]:
    """Three positive whole numbers in the order Z, Y, X."""
    value = plain(value)
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_positive_whole, value)):
        raise BadValueError("three whole numbers from 1 in the order Z, Y, X, such as (2,3,3)")
    return [int(part) for part in value]


def channel(value: Any) -> int:
    """A channel's number, from 1."""
    value = plain(value)
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not _is_positive_whole(value):
        raise BadValueError("a channel's number, counted from 1")
    return int(value)


def text_or_none(value: Any) -> str:
    """Text; None is the empty text."""
    if value is None or isinstance(value, (str, int)):
        text = "" if value is None else str(value).strip()
        return "" if text in ("None", "none", "null") else text
    raise BadValueError("text")


def restoration_type(value: Any) -> str:
    """RESPAN's pair ("care", number); only CARE is known, and the number never did anything."""
    value = plain(value)
    kind = value[0] if isinstance(value, list) and value else value
    if kind not in (None, "care"):
        raise BadValueError('("care", 100): CARE is the only kind of channel restoration')
    return "care"


def one_of(*allowed: str) -> Callable[[Any], str]:
    """Converter for a choice among words."""

    def convert(value: Any) -> str:
        text = str(value).strip().lower()
        if text not in allowed:
            raise BadValueError(" or ".join(allowed))
        return text

    return convert


def axes_order(value: Any) -> str:
    """Names of a TIFF's axes, slowest first."""
    text = text_or_none(value).upper()
    allowed = set(text) <= set("TZCYX") and len(set(text)) == len(text)
    if not (allowed and {"Y", "X"} <= set(text)) and text:
        raise BadValueError("the letters T, Z, C, Y, X, each at most once, such as ZCYX")
    return text


def anything(value: Any) -> Any:
    """Whatever it is, it is not used."""
    return value


def _is_positive_whole(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and finite(value)
        and value == int(value)
        and value >= 1
    )


def _unused(reason: str) -> Key:
    return Key(anything, "", unused=reason)


_LEGACY = "only RESPAN's guide knows it; "
_NO_VAA3D = "SWC files are written from this project's own skeletons, in µm"
_NO_SECOND_PASS = (
    "RESPAN's second pass cannot run; `Segmentation: refinement_model` is this project's own"
)
_NO_CONDA = "the model runs inside the segmentation service"

KEYS: dict[str, dict[str, Key]] = {
    "Parameters": {
        "input_resXY": Key(length_um, "Voxel size of the images in x and y, µm."),
        "input_resZ": Key(length_um, "Voxel size of the images in z, µm."),
        "model_resXY": Key(length_um, "Voxel size in x and y that the model was trained at, µm."),
        "model_resZ": Key(length_um, "Voxel size in z that the model was trained at, µm."),
        "neuron_channel": Key(channel, "The neuron's channel, counted from 1; the default is 1."),
        "model": Key(text_or_none, "Segmentation model: a name or a folder."),
        "voxel_size_from": Key(
            one_of("settings", "file"),
            "Which voxel size counts where these settings and an image file disagree.",
        ),
        "axes": Key(
            axes_order,
            "Order of the axes in the image files (`ZCYX`), for files that do not say it or say "
            "it wrongly.",
        ),
        "image_restoration": Key(
            switch,
            "RESPAN's tick `Use image restoration`. False: no CARE. Absent: as the channels say.",
        ),
        "axial_restoration": Key(
            switch,
            "RESPAN's tick `Use axial restoration`. False: no Self-Net. "
            "Absent: if the section SelfNet names a model.",
        ),
    },
    "Analysis": {
        "tiles_for_prediction": Key(three_whole_numbers, "Tiles (Z, Y, X) that CARE cuts into."),
        "remove_touching_boarders": Key(switch, "Discard spines that touch the borders in y or x."),
        "shape_rules": Key(
            text_or_none,
            "Rules of spine shapes: `rodriguez` (the default), `protrusions`, a file of your own, "
            "or `none`.",
        ),
        "validation_format": Key(
            text_or_none, "`tif`: restored images are also written as TIFF; else they are not."
        ),
        "validation_mips": Key(
            switch,
            "RESPAN's tick `Save validation data`: Validation_MIPs, with distance maps; "
            "the default is True.",
        ),
        "validation_volumes": Key(
            switch, "Validation_Vols, the same channels in 3D; the default is False."
        ),
        "spine_arrays": Key(switch, "Spine_Arrays, a picture of each spine; the default is True."),
        "roi_volume_size": Key(
            length_um, "Edge of the box around each spine in Spine_Arrays, µm; the default is 5."
        ),
        "additional_data": Key(
            switch,
            "RESPAN's tick `Additional data`: True also writes Validation_Vols and Spine_Meshes.",
        ),
        "GPU_block_size": _unused("block sizes follow from the memory that is there"),
        "erode_shape": _unused(
            "touching spines are split at their waist or where the image darkens; "
            "`Quantification: spine_splitting` decides"
        ),
        "validation_scale": _unused("RESPAN itself does not use it"),
        "validation_jpeg_comp": _unused("RESPAN itself does not use it; TIFFs are lossless"),
        "additional_logging": _unused("the log level is an option of the command line"),
    },
    "ChannelN": {
        "restore": Key(switch, "Restore this channel with CARE."),
        "rest_model_path": Key(text_or_none, "CARE model folder of this channel."),
        "rest_type": Key(restoration_type, "Only `care` is known; the number has no effect."),
        "care_restore": _unused(_LEGACY + "write `restore`"),
        "care_model_path": _unused(_LEGACY + "write `rest_model_path`"),
        "sn_restore": _unused(_LEGACY + "write `Parameters: axial_restoration`"),
        "sn_model_path": _unused(_LEGACY + "write `SelfNet: model_path`"),
    },
    "SelfNet": {
        "model_path": Key(text_or_none, "Self-Net checkpoint (.pkl) for the neuron's channel.")
    },
    "Refinement": {
        key: _unused(_NO_SECOND_PASS) for key in ("model_path", "model_resXY", "model_resZ")
    },
    "Vaa3D": {"path": _unused(_NO_VAA3D)},
    "nnUnet": {key: _unused(_LEGACY + _NO_CONDA) for key in ("type", "conda_path", "env")},
}
"""Section, key, meaning. `ChannelN` stands for Channel1, Channel2, ..."""

SECTIONS = [*(name for name in KEYS if name != "ChannelN"), *STAGES]
"""Names of all sections but the channels'."""

_CHANNEL = re.compile(r"[Cc]hannel\s*([1-9][0-9]{0,2})")


def channel_of(section: str) -> int | None:
    """Number in a section's name such as Channel2; None if it is no channel's section."""
    match = _CHANNEL.fullmatch(section)
    return int(match.group(1)) if match else None


def keys_of(section: str) -> dict[str, Key]:
    """Keys of one of RESPAN's sections; empty if there is no such section."""
    if channel_of(section) is not None:
        return KEYS["ChannelN"]
    return KEYS.get(section, {}) if section != "ChannelN" else {}
