"""Shape classes of a whole experiment anew: its tables are written again, nothing is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from respan_common.errors import InputError, VolumeFormatError
from respan_orchestrator.conditions import read_conditions
from respan_orchestrator.experiment import Experiment, SubFolder, check_writable, scan_experiment
from respan_orchestrator.outcomes import ImageOutcome
from respan_orchestrator.report import outcome_of
from respan_orchestrator.rule_sets import RuleSet, find_rules
from respan_orchestrator.shape_classes import CLASS
from respan_orchestrator.summary import (
    RESERVED,
    write_experiment_tables,
    write_sub_folder_summary,
)
from respan_orchestrator.table_export import export_tables, image_tables


@dataclass
class Classified:
    """What was done, and how many spines of each class there are."""

    rules: dict[str, str] = field(default_factory=dict)
    """Name of each sub-folder's rules."""
    images: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Images without tables, and why."""
    classes: dict[str, int] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)


def classify_experiment(folder: Path, rules: str = "") -> Classified:
    """Write all tables of an experiment again, with classes by these rules.

    Parameters
    ----------
    rules
        Name or file of a rule set, or "none"; empty: what each sub-folder's settings say.

    Raises
    ------
    InputError
        If the folder is no experiment, no image has tables, or the rules, settings or conditions
        are wrong.
    """
    experiment = scan_experiment(folder)
    check_writable(experiment.path)
    conditions = read_conditions(experiment, RESERVED)
    chosen = find_rules(rules) if rules else None
    rules_of = {
        sub_folder.name: chosen if rules else sub_folder.settings().shape_rules
        for sub_folder in experiment.sub_folders
    }
    found = Classified()
    for sub_folder in experiment.sub_folders:
        _classify_sub_folder(sub_folder, rules_of[sub_folder.name], found)
    if not found.images:
        reasons = "\n".join(f"  {title}: {why}" for title, why in found.left_out.items())
        raise InputError(f"no image of {experiment.path} can be classified:\n{reasons}")
    images = [] if _has_summary(experiment) else _outcomes(experiment)
    found.written += write_experiment_tables(experiment.path, images, conditions, rules_of.get)
    return found


def _classify_sub_folder(sub_folder: SubFolder, rules: RuleSet | None, found: Classified) -> None:
    found.rules[sub_folder.name] = rules.name if rules else "none"
    for image in sub_folder.images:
        title = f"{sub_folder.name}/{image.name}"
        try:
            tables = None if image.problem else image_tables(image.store, rules)
        except VolumeFormatError as error:
            found.left_out[title] = str(error)
            continue
        if tables is None:
            found.left_out[title] = image.problem or "not measured; `respan run` does that"
            continue
        found.images.append(title)
        found.written += export_tables(image.store, sub_folder.path / "Tables", rules)
        if rules:
            _add(found.classes, tables.spines, rules)
    found.written.append(write_sub_folder_summary(sub_folder.path, rules))


def _add(classes: dict[str, int], spines: pd.DataFrame, rules: RuleSet) -> None:
    counts = spines[CLASS].value_counts()
    for shape in rules.classes:
        classes[shape] = classes.get(shape, 0) + int(counts.get(shape, 0))


def _has_summary(experiment: Experiment) -> bool:
    return (experiment.path / "Experiment_summary.csv").is_file()


def _outcomes(experiment: Experiment) -> list[ImageOutcome]:
    return [
        outcome_of(sub_folder, image)
        for sub_folder in experiment.sub_folders
        for image in sub_folder.images
    ]
