"""What the columns mean that CSV files have and the tables of stores have not."""

from __future__ import annotations

from collections.abc import Sequence

from respan_common.columns import Column, count, identity, markdown, number, word
from respan_orchestrator.rule_sets import AMBIGUOUS, DERIVED, UNKNOWN, find_rules, rule_names
from respan_orchestrator.shape_classes import CLASS, MARGIN

_ORIGIN = (
    word("Filename", "Name of the image."),
    number("res_XY", "µm", "Voxel size in x and y of what was measured."),
    number("res_Z", "µm", "Voxel size in z of what was measured."),
)

SHAPES = (
    word(
        CLASS,
        f"Class by the rules; `{AMBIGUOUS}`: the margin is too small; `{UNKNOWN}`: a "
        "measurement that decides is missing.",
    ),
    number(
        MARGIN,
        "ratio",
        "Smallest relative change of the measurements with which the class would be another.",
        "unknown classes, no other class in reach",
    ),
)
"""Columns of `_detected_spines.csv`."""

_KINDS = count("spines_<class>", "Spines of each class of the rules.", "no rules")
_RULES = word("shape_rules", "Name of the rules.")
_FAILED = "failed images"

_MEANS = (
    number("avg_<column>", "as the column's", "Mean over all spines that have it.", "none has it"),
    count("n_<column>", "Spines that have it; not there for columns that no spine lacks.", _FAILED),
    count("missing_<column>", "Spines that lack it.", _FAILED),
)
_TOTALS = (
    count("branches", "Sum over all dendrites.", _FAILED),
    count("tips", "Sum over all dendrites.", _FAILED),
    count("forks", "Sum over all dendrites.", _FAILED),
    number("usable_length_um", "µm", "Sum over all dendrites.", _FAILED),
    count("usable_spines", "Sum over all dendrites.", _FAILED),
    number("usable_spines_per_um", "1/µm", "Total over total.", "no usable stretch"),
    count("spines_seen, …", "Spines of the kinds that the dendrite table counts.", _FAILED),
    _KINDS,
)

SUB_FOLDER = (
    *_ORIGIN,
    number("dendrite_length", "µm", "Sum over all dendrites."),
    number("dendrite_vol", "µm³", "Sum over all dendrites."),
    identity("total_spines", "Number of spines."),
    number("spines_per_um", "1/µm", "Total over total.", "no dendrite"),
    number("spines_per_um3", "1/µm³", "Total over total.", "no dendrite"),
    _MEANS[0],
    identity("total_dendrites", "Number of dendrites."),
    *_TOTALS,
    *_MEANS[1:],
    _RULES,
)

_AMOUNTS = (
    count("total_spines", "Number of spines.", _FAILED),
    count("total_dendrites", "Number of dendrites.", _FAILED),
    number("dendrite_length_um", "µm", "Sum over all dendrites.", _FAILED),
    number("dendrite_volume_um3", "µm³", "Sum over all dendrites.", _FAILED),
)
_DENSITY = number("spines_per_um", "1/µm", "Total over total.", "no dendrite")
_CONDITION = word("condition", "What conditions.csv says, else the sub-folder's name.")
_LABELS = word("<label>", "Every further column of conditions.csv.")

EXPERIMENT = (
    word("sub_folder", "Name of the sub-folder."),
    word("image", "Name of the image."),
    word("status", "`done`, `skipped` (nothing was left to do) or `failed`."),
    word("error", "Why it failed."),
    *_AMOUNTS,
    _DENSITY,
    _CONDITION,
    _LABELS,
    number("spines_per_um3", "1/µm³", "Total over total.", "no dendrite"),
    _MEANS[0],
    *_TOTALS,
    *_MEANS[1:],
    _RULES,
)

GROUP = (
    word("sub_folder or condition or experiment", "What the row is about."),
    Column("<label>", "Labels that all images of the group share.", missing="they differ"),
    identity("images", "Number of images."),
    identity("images_failed", "Those of them without a result."),
    *_AMOUNTS,
    *_TOTALS,
    _DENSITY,
    number("spines_per_um3", "1/µm³", "Total over total.", "no dendrite"),
    number("spines_per_um_mean_of_images", "1/µm", "Mean over the images' densities.", "no image"),
    number(
        "spines_per_um_sd_of_images", "1/µm", "Standard deviation of them.", "fewer than 2 images"
    ),
    *_MEANS,
)


def reference() -> str:
    """Markdown of the columns of CSV files, for docs/columns.md."""
    tables: Sequence[tuple[str, Sequence[Column]]] = (
        (
            "`Tables/<image>_detected_spines.csv` has the columns of [Spines](#spines), and",
            SHAPES,
        ),
        (
            "`Tables/<image>_dendrite_summary.csv`, `_branches.csv`, `_branch_orders.csv`, "
            "`_neurons.csv` and `_sholl.csv` have those of the store's tables, after the first "
            "three of these. Dendrites, branches and neurons have the counts.",
            (*_ORIGIN, _KINDS),
        ),
        ("`Tables/Detected_spines_summary.csv`: one row per image of the sub-folder.", SUB_FOLDER),
        ("`Experiment_summary.csv`: one row per image of the experiment.", EXPERIMENT),
        (
            "`Experiment_sub_folders.csv`, `Experiment_conditions.csv`, `Experiment_total.csv`: a "
            "row per sub-folder, per condition, and of the experiment. Means are over all spines "
            "of the group.",
            GROUP,
        ),
    )
    lines = ["", "## In experiment folders"]
    for title, columns in tables:
        lines += ["", title, "", *markdown(columns)]
    return "\n".join([*lines, *_rules()]) + "\n"


def _rules() -> list[str]:
    """What rules may ask for, and the rule sets that come with the software."""
    lines = [
        "",
        "## Shape rules",
        "",
        "| rules | margin | classes | what they are |",
        "|---|---|---|---|",
    ]
    for name in rule_names():
        rules = find_rules(name)
        assert rules is not None
        classes = ", ".join(rules.classes[:-2])
        lines.append(f"| `{name}` | {rules.margin:g} | {classes} | {rules.description} |")
    lines += ["", "Besides columns of the spine table, rules may ask for", ""]
    return [*lines, *(f"- `{name}`: {meaning}" for name, meaning in DERIVED.items())]
