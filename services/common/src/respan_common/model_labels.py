"""The labels of a model's dataset.json: values, regions, and what its network gives out.

As nnU-Net's LabelManager reads them. A plain model tells classes apart, of which each voxel has
one. A region model has one yes or no per region, and regions may overlap: "neuron" may be all of
1, 2 and 3. They are painted one over another in the order of dataset.json, and each leaves the
value that `regions_class_order` gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respan_common.errors import ModelError

_LARGEST = 255
"""Class images are uint8."""


@dataclass(frozen=True)
class LabelTable:
    """Names and values of a model's labels."""

    written: Mapping[str, int]
    """Value that stands for each name in a class image, in the order of dataset.json."""
    values: tuple[int, ...]
    """Every value in the training's annotations, the background included, in order."""
    ignore: int | None
    """Value of voxels that the training left out; the network never gives it."""
    names: tuple[str, ...]
    """Name of each channel that the network gives out."""
    regions: tuple[tuple[int, ...], ...] | None = None
    """Annotated values of each network output, for a region model."""
    order: tuple[int, ...] = ()
    """Value that each region leaves, painted in this order; a region model's only."""


def label_table(dataset: Mapping[str, Any], where: Path) -> LabelTable:
    """The labels of a dataset.json, which is read from `where`.

    Raises
    ------
    ModelError
        If nnU-Net would refuse them, or a class image could not hold them.
    """
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise ModelError(f"{where} names no labels: add what each class value means")
    members = {str(name): _members(name, value, where) for name, value in labels.items()}
    ignored = members.pop("ignore", None)
    values = tuple(sorted({value for each in members.values() for value in each}))
    ignore = _checked_ignore(ignored, values, where)
    if any(len(each) > 1 for each in members.values()):
        return _regions(dataset, members, values, ignore, where)
    return _plain(members, values, ignore, where)


def _members(name: object, value: Any, where: Path) -> tuple[int, ...]:
    given = value if isinstance(value, list) else [value]
    try:
        found = tuple(int(each) for each in given)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{where}: label values must be whole numbers, but '{name}' has {value!r}"
        ) from error
    if not found or not all(0 <= each <= _LARGEST for each in found):
        raise ModelError(f"{where}: '{name}' has {value!r}; label values are 0 to {_LARGEST}")
    return found


def _checked_ignore(
    ignored: tuple[int, ...] | None, values: tuple[int, ...], where: Path
) -> int | None:
    if ignored is None:
        return None
    highest = max(values, default=0) + 1
    if ignored != (highest,):
        raise ModelError(
            f"{where}: the label 'ignore' must be the highest value, {highest}, not "
            f"{', '.join(str(value) for value in ignored)}"
        )
    return highest


def _plain(
    members: Mapping[str, tuple[int, ...]],
    values: tuple[int, ...],
    ignore: int | None,
    where: Path,
) -> LabelTable:
    written = {name: value for name, (value,) in members.items()}
    given = sorted(written.values())
    if given != list(range(len(given))):
        raise ModelError(f"{where}: label values must be 0, 1, 2, ... without gaps, not {given}")
    return LabelTable(written, values, ignore, tuple(sorted(written, key=written.__getitem__)))


def _regions(
    dataset: Mapping[str, Any],
    members: Mapping[str, tuple[int, ...]],
    values: tuple[int, ...],
    ignore: int | None,
    where: Path,
) -> LabelTable:
    regions = {name: each for name, each in members.items() if set(each) != {0}}
    order = dataset.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(regions):
        raise ModelError(
            f"{where} has labels that are regions ({', '.join(regions)}), so it needs "
            f"regions_class_order with {len(regions)} values, not {order}: copy it from the "
            "training's dataset.json"
        )
    left = tuple(_members("regions_class_order", value, where)[0] for value in order)
    written = dict.fromkeys(members, 0) | dict(zip(regions, left, strict=True))
    return LabelTable(written, values, ignore, tuple(regions), tuple(regions.values()), left)
