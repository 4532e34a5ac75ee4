"""Every column of every table: name, unit, definition, when it is missing. RESPAN's own first.

Means over spines have the names of what is averaged, as in RESPAN's dendrite table. `reference`
makes the documentation's page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from respan_common.columns import Column, count, flag, identity, markdown, number, word
from respan_quantification.spine_columns import FIRST_OWN, PARTS, points, spine

__all__ = ["K_RADII_UM", "PARTS", "spine"]

K_RADII_UM = (1.0, 2.0, 5.0)
"""Distances along the dendrite at which clustering is looked at."""

_NO_TREE = "dendrites without a tree"


def averaged(channels: int) -> list[Column]:
    """Columns of the spine table whose mean other tables have."""
    return [column for column in spine(channels) if column.averaged]


def spine_columns(channels: int) -> list[str]:
    """Names of the spine table's columns."""
    return names(spine(channels))


def names(columns: Iterable[Column]) -> list[str]:
    """Names of columns, in order."""
    return [column.name for column in columns]


def counted(means: Iterable[Column]) -> list[Column]:
    """How many spines a mean covers, and how many lack the value; only where some can lack it."""
    found = []
    for column in means:
        if column.may_be_missing:
            found += [
                Column(f"n_{column.name}", f"Spines that have `{column.name}`.", dtype="int64"),
                Column(f"missing_{column.name}", "Spines that lack it.", dtype="int64"),
            ]
    return found


def _means(channels: int, *, respans: bool | None = None) -> list[Column]:
    """Means over spines, under the names of what is averaged; of all, RESPAN's or ours."""
    first_own = spine_columns(channels).index(FIRST_OWN)
    ranked = enumerate(spine(channels))
    return [
        replace(
            column,
            meaning=f"Mean over its spines: {column.meaning[0].lower()}{column.meaning[1:]}",
            missing="no spine has it",
        )
        for rank, column in ranked
        if column.averaged and respans in (None, rank < first_own)
    ]


_TOTALS = (
    identity("total_spines", "Number of spines, whatever `attached` says."),
    number("spines_per_um", "1/µm", "Spines per length of centerline.", "no length"),
    number("spines_per_um3", "1/µm³", "Spines per volume.", "no volume"),
)
_KINDS = (
    identity("spines_seen", "Spines with `attached` seen."),
    identity("spines_inferred", "Spines with `attached` inferred."),
    identity("spines_unattached", "Spines with `attached` none."),
    identity("spines_at_border", "Spines that a face of the image cuts."),
    count("spines_below_resolution", "Spines whose head is below resolution."),
)
_USABLE = (
    number(
        "usable_length_um",
        "µm",
        "Length of centerline with room for spines on all sides: farther from every face of the "
        "image than its own radius and 2 µm.",
        _NO_TREE,
    ),
    count("usable_spines", "Spines whose foot is on such stretches.", _NO_TREE),
    number("usable_spines_per_um", "1/µm", "Their density there.", "no such stretch"),
)
_GRAPH = (
    count("tips", "Ends where a branch stops.", _NO_TREE),
    count("forks", "Places where a branch divides.", _NO_TREE),
)


def _clustering() -> list[Column]:
    few = "fewer than 2 spines, dendrites without a length"
    columns = [
        number(
            "nearest_neighbor_mean_um",
            "µm",
            "Mean way along the dendrite from a foot to the nearest other one.",
            few,
        ),
        number(
            "nearest_neighbor_ratio",
            "ratio",
            "That mean / the mean of as many feet placed at random on the same dendrite: 1 "
            "random, smaller clustered, larger regular.",
            few,
        ),
        number(
            "nearest_neighbor_p",
            "0–1",
            "Share of random placements at least as far from 1 (two-sided, Monte Carlo).",
            few,
        ),
        count("random_placements", "Random placements behind these numbers.", few),
    ]
    for radius in K_RADII_UM:
        at = f"{radius:g} µm"
        columns += [
            number(
                f"k_ratio_{radius:g}um",
                "ratio",
                f"Ripley's K along the dendrite at {at} / its mean over random placements: pairs "
                "of feet that near, against chance.",
                f"{few}, no random pair that near",
            ),
            number(
                f"k_low_{radius:g}um",
                "ratio",
                f"2.5 % of random placements have less at {at}.",
                few,
            ),
            number(
                f"k_high_{radius:g}um",
                "ratio",
                f"2.5 % of random placements have more at {at}.",
                few,
            ),
        ]
    return columns


def dendrite(channels: int) -> list[Column]:
    """Columns of the dendrite table: RESPAN's own, then ours."""
    return [
        identity("dendrite_id", "Value in labels/dendrites and labels/skeleton."),
        number("dendrite_length", "µm", "Length of the centerline, all branches together."),
        number("dendrite_volume", "µm³", "Voxels × voxel volume."),
        *_TOTALS,
        *_means(channels, respans=True),
        count("branches", "Stretches between root, forks and tips."),
        count("soma_id", "The soma it reaches, within 0.5 µm.", "none is reached"),
        flag("touches_border", "A face of the image cuts it."),
        *_GRAPH,
        count(
            "loops",
            "Places where the dendrite closes on itself; the tree is cut there.",
            _NO_TREE,
        ),
        count("max_branch_order", "Largest branch order.", _NO_TREE),
        number("mean_radius_um", "µm", "Mean radius along the centerline.", "no length"),
        *_KINDS,
        *_USABLE,
        *_clustering(),
        *_means(channels, respans=False),
        *counted(averaged(channels)),
    ]


def branch(channels: int) -> list[Column]:
    """Columns of the branch table."""
    return [
        identity("dendrite_id", "Dendrite it belongs to."),
        identity("branch_id", "Number within its dendrite, from 1."),
        count("parent_branch_id", "Branch it begins on.", "it begins at the root"),
        identity("branch_order", "1 at the root, one more behind every fork."),
        number("length_um", "µm", "Length of its centerline."),
        number("mean_radius_um", "µm", "Mean radius along it."),
        word("start", "What it begins at: `root` or `fork`."),
        word("end", "What it ends at: `fork` or `tip`."),
        *points("start", "Where it begins"),
        *points("end", "Where it ends"),
        identity("total_spines", "Spines whose foot is on it."),
        number("spines_per_um", "1/µm", "Spines per length of centerline.", "no length"),
        *_KINDS,
        *_USABLE,
        *_means(channels),
        *counted(averaged(channels)),
    ]


def branch_order() -> list[Column]:
    """Columns of the table of branch orders: all branches of one order of one dendrite."""
    return [
        identity("dendrite_id", "Dendrite."),
        identity("branch_order", "1 at the root, one more behind every fork."),
        identity("branches", "Branches of that order."),
        number("length_um", "µm", "Their length."),
        identity("total_spines", "Spines on them."),
        number("spines_per_um", "1/µm", "Their density.", "no length"),
        *_USABLE,
    ]


def neuron(channels: int) -> list[Column]:
    """Columns of the neuron table: a soma and the dendrites that reach it."""
    return [
        identity("soma_id", "Value in labels/soma."),
        number("soma_volume_um3", "µm³", "Voxels × voxel volume.", "not measured"),
        *points("soma", "Centroid of the soma", "not measured"),
        identity("dendrites", "Dendrites that reach it, within 0.5 µm."),
        number("dendrite_length", "µm", "Their length."),
        number("dendrite_volume", "µm³", "Their volume."),
        *_TOTALS,
        count("branches", "Branches of its dendrites."),
        count("tips", "Ends of its dendrites."),
        count("forks", "Places where they divide."),
        count("max_branch_order", "Largest branch order.", "no dendrite reaches it"),
        *_KINDS,
        *_USABLE,
        *_means(channels),
        *counted(averaged(channels)),
    ]


def image(channels: int) -> list[Column]:
    """Columns of the image table: one row with everything in the image."""
    return [
        identity("total_dendrites", "Number of dendrites, with and without spines."),
        number("dendrite_length", "µm", "Sum over all dendrites."),
        number("dendrite_vol", "µm³", "Sum over all dendrites."),
        *_TOTALS,
        count("branches", "Sum over all dendrites."),
        count("tips", "Sum over all dendrites."),
        count("forks", "Sum over all dendrites."),
        identity("somas", "Number of somas."),
        *_KINDS,
        *_USABLE,
        *_means(channels),
        *counted(averaged(channels)),
    ]


SHOLL = (
    Column("soma_id", "Soma in the middle.", missing="no soma: around the root", dtype="Int64"),
    Column("dendrite_id", "Dendrite.", missing="all of the soma's", dtype="Int64"),
    number("radius_um", "µm", "Radius of the sphere."),
    identity("intersections", "How often centerlines cross the sphere."),
    number("length_um", "µm", "Length of centerline between this sphere and the one before."),
    identity("spines", "Spines between this sphere and the one before."),
    number("spines_per_um", "1/µm", "Their density there.", "no length"),
)


@dataclass(frozen=True)
class Kind:
    """One table of a store: its columns, and the label image whose values its rows are about."""

    title: str
    columns: Sequence[Column]
    index: str = ""
    """Column with the label's value; empty: rows are about no labels."""
    labels: str = ""


def kinds(channels: int) -> dict[str, Kind]:
    """All tables of a store, by name."""
    return {
        "spines": Kind("Spines", spine(channels), "spine_id", "spines"),
        "dendrites": Kind("Dendrites", dendrite(channels), "dendrite_id", "dendrites"),
        "branches": Kind("Branches", branch(channels)),
        "branch_orders": Kind("Branch orders", branch_order()),
        "neurons": Kind("Neurons", neuron(channels), "soma_id", "soma"),
        "image": Kind("Images", image(channels)),
        "sholl": Kind("Sholl", SHOLL),
    }


def reference() -> str:
    """Markdown of all tables of a store, for docs/columns.md."""
    lines: list[str] = []
    for name, kind in kinds(1).items():
        lines += ["", f"## {kind.title}", "", f"`tables/{name}/table.parquet`", ""]
        lines += markdown(_documented(kind.columns))
    return "\n".join(lines) + "\n"


def _documented(columns: Iterable[Column]) -> list[Column]:
    """Columns without the means and their counts, which repeat the spine table's."""
    ours = {column.name for column in averaged(1)}
    kept = []
    is_spine_table = any(column.name == "spine_id" for column in columns)
    for column in columns:
        stem = column.name.removeprefix("n_").removeprefix("missing_")
        if is_spine_table or stem not in ours:
            kept.append(column)
    return kept
