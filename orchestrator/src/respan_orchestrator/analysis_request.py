"""What a run is asked to analyze, and whether that is possible; known before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from respan_common.errors import InputError, RespanError
from respan_orchestrator.analysis import StageName
from respan_orchestrator.analysis_settings import AnalysisSettings, apply_overrides, load_settings
from respan_orchestrator.conditions import read_conditions
from respan_orchestrator.experiment import Experiment, check_writable, scan_experiment
from respan_orchestrator.models import find_model
from respan_orchestrator.rule_sets import RuleSet
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.summary import RESERVED


class AnalysisRequest(BaseModel):
    """What to analyze, and how."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    experiment: str
    """Parent folder with one sub-folder per animal or condition, or one such sub-folder."""
    model: str = ""
    """Name or folder of the segmentation model. Empty: the settings' or the best-fitting one."""
    channel: Annotated[int, Field(ge=1)] | None = None
    """Channel of the dendrites, counted from 1. Empty: the settings'."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """For services that are started for this run."""
    overrides: list[str] = []
    """Settings of this run, such as segmentation.preset=exact."""
    only: list[str] = []
    """Names of the images to analyze. Empty: all."""
    restart_from: StageName | None = None
    """Do this stage and all later ones again, even if they are done."""


def examined(request: AnalysisRequest) -> Experiment:
    """The experiment that a request means; better refused now than after an hour.

    Raises
    ------
    InputError
        If there is nothing to analyze, nothing can be written, or a name is unknown.
    SettingsError
        If the experiment's conditions.csv is not right.
    """
    experiment = scan_experiment(Path(request.experiment))
    check_writable(experiment.path)
    read_conditions(experiment, RESERVED)
    _check_names(experiment, request.only)
    if request.model:
        find_model(request.model, OrchestratorSettings().model_roots)
    return experiment


def run_settings(sub_folder: Path, request: AnalysisRequest) -> AnalysisSettings:
    """Settings of a sub-folder with what this run changes of them."""
    overrides = list(request.overrides)
    if request.channel is not None:
        overrides.append(f"parameters.neuron_channel={request.channel}")
    if request.model:
        overrides.append(f"segmentation.model={request.model}")
    return apply_overrides(load_settings(sub_folder, Path(request.experiment)), overrides)


def readable_settings(
    experiment: Experiment, request: AnalysisRequest
) -> Iterator[AnalysisSettings]:
    """Settings of every sub-folder whose settings are right; the others' images will say why."""
    for sub_folder in experiment.sub_folders:
        try:
            yield run_settings(sub_folder.path, request)
        except RespanError:
            continue


def shape_rules(sub_folder: Path, request: AnalysisRequest) -> RuleSet | None:
    """Rules of spine shapes in a sub-folder; None without, and where its settings are wrong."""
    try:
        return run_settings(sub_folder, request).shape_rules
    except RespanError:
        return None


def _check_names(experiment: Experiment, only: list[str]) -> None:
    known = {image.name for sub_folder in experiment.sub_folders for image in sub_folder.images}
    unknown = sorted(set(only) - known)
    if unknown:
        raise InputError(
            f"{experiment.path} has no image named {', '.join(unknown)}, only "
            f"{', '.join(sorted(known))}"
        )
