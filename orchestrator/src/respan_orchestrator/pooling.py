"""Rows of many images as one: totals are added, means are pooled over all their spines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

Row = dict[str, Any]

_SUMMED = (
    "total_spines",
    "total_dendrites",
    "dendrite_length_um",
    "dendrite_volume_um3",
    "branches",
    "tips",
    "forks",
    "usable_length_um",
    "usable_spines",
)
_DENSITIES = {
    "spines_per_um": ("total_spines", "dendrite_length_um"),
    "spines_per_um3": ("total_spines", "dendrite_volume_um3"),
    "usable_spines_per_um": ("usable_spines", "usable_length_um"),
}


def ratio(count: float | None, amount: float | None) -> float | None:
    """Density; missing where a part is missing or there is nothing to divide by."""
    if count is None or amount is None or pd.isna(count) or pd.isna(amount) or not amount:
        return None
    return float(count) / float(amount)


def pooled(rows: Iterable[Row], key: str, labels: Sequence[str]) -> pd.DataFrame:
    """One row per value of `key`.

    Densities are total over total, and their mean and standard deviation over images beside them:
    images, not spines, are what varies independently. Means are over all spines. A label stays if
    all images of the group share it.
    """
    table = pd.DataFrame(list(rows))
    if not len(table):
        return pd.DataFrame(columns=[key, *labels, "images", "images_failed", *_SUMMED])
    groups = [
        {key: value, **_labels(group, labels), **_pooled(group)}
        for value, group in table.groupby(key, sort=False)
    ]
    return pd.DataFrame(groups)


def _labels(group: pd.DataFrame, names: Sequence[str]) -> Row:
    found = {}
    for name in names:
        values = set(group[name].fillna(""))
        found[name] = values.pop() if len(values) == 1 else ""
    return found


def _pooled(group: pd.DataFrame) -> Row:
    failed = group["status"] == "failed"
    found: Row = {"images": len(group), "images_failed": int(failed.sum())}
    done = group[~failed]
    kinds = [name for name in map(str, done) if name.startswith("spines_") and "_per_" not in name]
    for name in (*_SUMMED, *kinds):
        if name in done:
            found[name] = pd.to_numeric(done[name]).sum(min_count=1)
    for name, (count, amount) in _DENSITIES.items():
        if count in found and amount in found:
            found[name] = ratio(found[count], found[amount])
    density = pd.to_numeric(done["spines_per_um"])
    found["spines_per_um_mean_of_images"] = density.mean()
    found["spines_per_um_sd_of_images"] = density.std()
    return found | _means(done)


def _means(images: pd.DataFrame) -> Row:
    """Means over all spines of all images, and how many spines these cover and leave out."""
    means, counts = {}, {}
    for average in map(str, images.columns):
        if not average.startswith("avg_"):
            continue
        name = average.removeprefix("avg_")
        has_counts = f"n_{name}" in images
        weight = pd.to_numeric(images[f"n_{name}" if has_counts else "total_spines"]).fillna(0)
        value = pd.to_numeric(images[average])
        # An image without a value has no weight, and NaN times nothing is NaN.
        total = float(weight[value.notna()].sum())
        means[average] = ratio(float((value * weight).sum()), total)
        if has_counts:
            for column in (f"n_{name}", f"missing_{name}"):
                counts[column] = pd.to_numeric(images[column]).sum(min_count=1)
    return {**means, **counts}
