"""From RESPAN's settings file to parameters: the one place where that is translated.

RESPAN's keys fill the fields of the stages' parameters first. The sections `Restoration`,
`Segmentation` and `Quantification`, whose keys are the fields themselves, win over them. Options of
the command line are keys like any other, and win over the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from respan_common.errors import SettingsError
from respan_common.params import (
    QuantificationParams,
    RestorationParams,
    SegmentationParams,
    StageParams,
)
from respan_orchestrator.rule_sets import DEFAULT_RULES, NONE, RuleSet, find_rules
from respan_orchestrator.settings_file import (
    NAMES,
    BadValueError,
    Entry,
    Problem,
    find_settings,
    finite,
    plain,
    raise_problems,
    read_entries,
    shown,
    suggestion,
)
from respan_orchestrator.settings_keys import KEYS, SECTIONS, STAGES, channel_of, keys_of

P = TypeVar("P", bound=StageParams)

MINIMAL_SETTINGS = """\
Parameters:
  input_resXY: 0.102   # voxel size of the images in x and y, µm
  input_resZ: 1        # voxel size of the images in z, µm
  neuron_channel: 1    # channel of the dendrites, counted from 1
"""
"""Content of a settings file that is enough for most experiments."""

_WINS_OVER: dict[tuple[str, str], list[tuple[str, str]]] = {
    ("Parameters", "neuron_channel"): [(stage, "channel") for stage in STAGES],
    ("Parameters", "model"): [("Segmentation", "model")],
    ("Parameters", "model_resXY"): [("Segmentation", "model_spacing_um")],
    ("Parameters", "model_resZ"): [("Segmentation", "model_spacing_um")],
    ("Analysis", "tiles_for_prediction"): [("Restoration", "care_tiles")],
    ("Analysis", "remove_touching_boarders"): [("Quantification", "remove_border_spines")],
    ("Analysis", "additional_data"): [
        ("Quantification", "meshes"),
        ("Quantification", "distance_maps"),
    ],
    ("SelfNet", "model_path"): [("Restoration", "axial_model")],
}
"""Fields that RESPAN's keys fill. On the command line such a key wins over the file's field."""


class AnalysisSettings(BaseModel):
    """What one sub-folder's settings mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    source: Path
    """The settings file, or what stands in for it."""
    restoration: RestorationParams
    segmentation: SegmentationParams
    quantification: QuantificationParams
    input_xy_um: float | None = None
    """Voxel size in y and x; None: the image files say it."""
    input_z_um: float | None = None
    """Voxel size in z; None: the image files say it."""
    voxel_size_from: Literal["settings", "file"] | None = None
    """Who is right when settings and file disagree; None: that is an error."""
    axes: str = ""
    """Order of a file's axes; empty: the file says it."""
    restored_as_tiff: bool = True
    """Whether restored images are exported as TIFF."""
    validation_mips: bool = True
    """Whether projections of everything found are exported."""
    validation_volumes: bool = False
    """Whether the same is exported in 3D."""
    spine_arrays: bool = True
    """Whether pictures of the single spines are exported."""
    spine_box_um: float = 5.0
    """Edge of the box around each spine in these pictures."""
    shape_rules: RuleSet | None = None
    """Rules of spine shapes; None: spines get no classes."""
    notes: tuple[str, ...] = ()
    """What the user should know: keys without effect, keys that overrule others."""
    entries: tuple[Entry, ...] = ()
    """The keys as they were written."""

    @property
    def export_choices(self) -> dict[str, Any]:
        """What exported files depend on besides the results."""
        return {
            "channel": self.quantification.channel,
            "restored_as_tiff": self.restored_as_tiff,
            "validation_mips": self.validation_mips,
            "validation_volumes": self.validation_volumes,
            "spine_box_um": self.spine_box_um if self.spine_arrays else None,
            "shape_rules": self.shape_rules.digest if self.shape_rules else NONE,
        }

    @property
    def model_folders(self) -> list[Path]:
        """Folders of the models that are named by a path, so that a service may open them."""
        named = (
            self.segmentation.model,
            self.segmentation.refinement_model,
            self.restoration.axial_model,
            *self.restoration.care_models.values(),
        )
        paths = [Path(name).expanduser().absolute() for name in named if name]
        return [path if path.is_dir() else path.parent for path in paths if path.exists()]


@dataclass
class _Translation:
    """Work in progress: the keys understood so far, and what is wrong with the others."""

    source: Path
    known: dict[tuple[str, str], tuple[Any, Entry]] = field(default_factory=dict)
    fields: dict[str, dict[str, tuple[Any, Entry]]] = field(
        default_factory=lambda: {stage: {} for stage in STAGES}
    )
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, entry: Entry, text: str) -> None:
        option = "" if entry.line else "--set, "
        self.problems.append(Problem(entry.line, f"{option}{entry.name}: {text}"))

    def value(self, section: str, key: str, default: Any = None) -> Any:
        found = self.known.get((section, key))
        return default if found is None else found[0]

    def fill(self, stage: str, name: str, value: Any, entry: Entry) -> None:
        """Set a field from one of RESPAN's keys, unless the stage's own section has set it."""
        own = self.fields[stage].get(name)
        if own is None:
            self.fields[stage][name] = (value, entry)
        elif own[0] != value:
            self.notes.append(f"{own[1].name} overrules {entry.name}")


def load_settings(folder: Path, fallback: Path | None = None) -> AnalysisSettings:
    """Settings of a folder, or of `fallback` (its parent) if it has none of its own.

    Raises
    ------
    SettingsError
        If there is no settings file, or it has problems; all of them are listed, with lines.
    """
    path = find_settings(folder) or (find_settings(fallback) if fallback else None)
    if path is None:
        raise SettingsError(
            f"{folder} has no settings: there is neither {NAMES[0]} nor {NAMES[1]}. "
            f"Write a file {NAMES[0]} there, for example:\n{MINIMAL_SETTINGS}"
        )
    return read_settings(path)


def read_settings(path: Path) -> AnalysisSettings:
    """Read and translate one settings file."""
    return translate(read_entries(path), path)


def apply_overrides(settings: AnalysisSettings, overrides: Sequence[str]) -> AnalysisSettings:
    """Settings with options of the command line, such as ``segmentation.preset=exact``.

    Raises
    ------
    SettingsError
        If an option is not of that form, or says something that a settings file may not say.
    """
    if not overrides:
        return settings
    added, problems = [], []
    for option in overrides:
        try:
            added.append(_option(option))
        except BadValueError as error:
            problems.append(Problem(0, f"--set {option}: {error}"))
    raise_problems(problems, "the command line")
    beaten = {(entry.section, entry.key) for entry in added}
    beaten |= {name for place in beaten for name in _WINS_OVER.get(place, [])}
    kept = [entry for entry in settings.entries if (entry.section, entry.key) not in beaten]
    return translate([*kept, *added], settings.source)


def translate(entries: Iterable[Entry], source: Path) -> AnalysisSettings:
    """Check every key and turn all of them into parameters.

    Raises
    ------
    SettingsError
        Lists every unknown key, bad value and contradiction.
    """
    entries = tuple(entries)
    work = _Translation(source)
    for entry in entries:
        _take(work, entry)
    _fill_simple_fields(work)
    _fill_care(work)
    _fill_axial(work)
    _fill_model_spacing(work)
    restoration = _validated(work, "Restoration", RestorationParams)
    segmentation = _validated(work, "Segmentation", SegmentationParams)
    quantification = _validated(work, "Quantification", QuantificationParams)
    shape_rules = _shape_rules(work)
    mips = work.value("Analysis", "validation_mips", True)
    if mips and "distance_maps" not in quantification.model_fields_set:
        # Two of the eight channels of RESPAN's projections.
        quantification = quantification.model_copy(update={"distance_maps": True})
    raise_problems(work.problems, str(source))
    return AnalysisSettings(
        source=source,
        restoration=restoration,
        segmentation=segmentation,
        quantification=quantification,
        input_xy_um=work.value("Parameters", "input_resXY"),
        input_z_um=work.value("Parameters", "input_resZ"),
        voxel_size_from=work.value("Parameters", "voxel_size_from"),
        axes=work.value("Parameters", "axes", ""),
        restored_as_tiff=work.value("Analysis", "validation_format", "tif").lower() == "tif",
        validation_mips=mips,
        validation_volumes=work.value(
            "Analysis", "validation_volumes", work.value("Analysis", "additional_data", False)
        ),
        spine_arrays=work.value("Analysis", "spine_arrays", True),
        spine_box_um=work.value("Analysis", "roi_volume_size", 5.0),
        shape_rules=shape_rules,
        notes=tuple(work.notes),
        entries=entries,
    )


def _take(work: _Translation, entry: Entry) -> None:
    """Understand one entry: file it as known, as a stage's field, as a note or as a problem."""
    if entry.section in STAGES:
        _take_field(work, entry)
        return
    keys = keys_of(entry.section)
    if not keys:
        known = [*SECTIONS, "Channel1", "Channel2"]
        text = f"unknown section '{entry.section}': {suggestion(entry.section, known)}"
        already = any(problem.text == text for problem in work.problems)
        work.problems += [] if already else [Problem(entry.line, text)]
    elif not entry.key:
        work.refuse(entry, f"{shown(entry.value)} must be 'key: value' lines")
    elif entry.key not in keys:
        work.refuse(entry, f"unknown key; {suggestion(entry.key, keys)}")
    elif keys[entry.key].unused:
        work.notes.append(f"{entry.name} is not applicable: {keys[entry.key].unused}")
    else:
        try:
            number = channel_of(entry.section)
            section = entry.section if number is None else f"Channel{number}"
            work.known[section, entry.key] = (keys[entry.key].convert(entry.value), entry)
        except BadValueError as error:
            work.refuse(entry, f"{shown(entry.value)} is not allowed; it must be {error}")


def _take_field(work: _Translation, entry: Entry) -> None:
    fields = STAGES[entry.section].model_fields
    if not entry.key:
        work.refuse(entry, f"{shown(entry.value)} must be 'key: value' lines")
    elif entry.key not in fields:
        work.refuse(entry, f"unknown key; {suggestion(entry.key, fields)}")
    else:
        try:
            value = _field_value(entry, fields[entry.key].annotation)
            work.fields[entry.section][entry.key] = (value, entry)
        except BadValueError as error:
            work.refuse(entry, f"{shown(entry.value)} is not allowed; it must be {error}")


def _field_value(entry: Entry, annotation: Any) -> Any:
    value = plain(entry.value)
    if not finite(value):
        raise BadValueError("a finite number")
    # pydantic reads True as 1, but nobody who writes "channel: yes" means channel 1.
    if isinstance(value, bool) and "bool" not in str(annotation):
        raise BadValueError("a number or a text, not True or False")
    return "" if value is None and annotation is str else value


def _fill_simple_fields(work: _Translation) -> None:
    for place, targets in _WINS_OVER.items():
        if place in work.known and place[1] not in ("model_resXY", "model_resZ", "model_path"):
            value, entry = work.known[place]
            for stage, name in targets:
                work.fill(stage, name, value, entry)


def _fill_care(work: _Translation) -> None:
    wanted = work.value("Parameters", "image_restoration")
    models: dict[int, str] = {}
    entry = None
    for section, key in list(work.known):
        number = channel_of(section)
        if key != "restore" or number is None or not work.value(section, key) or wanted is False:
            continue
        path, entry = work.known.get(
            (section, "rest_model_path"), ("", work.known[section, key][1])
        )
        if not path:
            work.refuse(entry, "restore is True, but rest_model_path names no CARE model folder")
        elif (found := _model_path(work, path, entry, insist=wanted is True)) is not None:
            models[number] = found
    if models and entry is not None:
        work.fill("Restoration", "care_models", dict(sorted(models.items())), entry)
    elif wanted is False:
        work.fields["Restoration"].pop("care_models", None)


def _fill_axial(work: _Translation) -> None:
    wanted = work.value("Parameters", "axial_restoration")
    path, entry = work.known.get(("SelfNet", "model_path"), ("", None))
    if wanted is False:
        work.fields["Restoration"].pop("axial_model", None)
    elif path and entry is not None:
        found = _model_path(work, path, entry, insist=wanted is True)
        if found is not None:
            work.fill("Restoration", "axial_model", found, entry)
    elif wanted and "axial_model" not in work.fields["Restoration"]:
        work.refuse(
            work.known["Parameters", "axial_restoration"][1],
            "is True, but SelfNet: model_path names no checkpoint",
        )


def _fill_model_spacing(work: _Translation) -> None:
    given = [work.known.get(("Parameters", key)) for key in ("model_resZ", "model_resXY")]
    found = [pair for pair in given if pair is not None]
    if len(found) == 1:
        work.refuse(found[0][1], "model_resXY and model_resZ are needed together")
    elif found:
        (z_um, entry), (xy_um, _) = found
        work.fill("Segmentation", "model_spacing_um", [z_um, xy_um, xy_um], entry)


def _shape_rules(work: _Translation) -> RuleSet | None:
    name, entry = work.known.get(("Analysis", "shape_rules"), (DEFAULT_RULES, None))
    located = next(
        (str(path) for path in (work.source.parent / name, Path(name)) if path.is_file()), name
    )
    try:
        return find_rules(located or NONE)
    except SettingsError as error:
        assert entry is not None, "the default rules are in the package"
        work.refuse(entry, str(error))
        return None


def _model_path(work: _Translation, text: str, entry: Entry, *, insist: bool) -> str | None:
    """Path of a restoration model; None if it is to be left out.

    RESPAN has its restoration ticks off unless the user sets them, and its template names folders
    of its authors' Windows computer. Such a path cannot be meant here, so it is left out with a
    note; any other path that does not exist is a mistake.
    """
    native = (
        Path(text) if Path(text).is_absolute() else work.source.parent / text.replace("\\", "/")
    )
    if native.exists():
        return str(native)
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text) and not insist:
        work.notes.append(
            f"{entry.name} {text} is a path of another computer, so nothing is restored with it; "
            f"give a path of this one, or say Parameters: {_TICKS[entry.section[:7]]}: False"
        )
    else:
        work.refuse(entry, f"{text} does not exist; give the path of the model on this computer")
    return None


_TICKS = {"Channel": "image_restoration", "SelfNet": "axial_restoration"}


def _validated(work: _Translation, stage: str, model: type[P]) -> P:
    fields = work.fields[stage]
    try:
        return model.model_validate(
            {name: _located(name, value, work.source.parent) for name, (value, _) in fields.items()}
        )
    except ValidationError as error:
        for detail in error.errors():
            _refuse_field(work, stage, model, detail)
    return model()


def _located(name: str, value: Any, folder: Path) -> Any:
    """Value with relative paths made absolute; a bare model name is no path."""
    if name == "care_models" and isinstance(value, dict):
        return {key: _located("axial_model", path, folder) for key, path in value.items()}
    called_by_name = name in ("model", "refinement_model")
    if not (called_by_name or name == "axial_model") or not isinstance(value, str) or not value:
        return value
    if called_by_name and not re.search(r"[\\/]", value):
        return value
    places = (base / value for base in (folder, Path.cwd()))
    return next((str(place.resolve()) for place in places if place.exists()), value)


def _refuse_field(work: _Translation, stage: str, model: type[StageParams], detail: Any) -> None:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    text = str(detail["msg"]).removeprefix("Value error, ")
    if name not in work.fields[stage]:
        lines = [entry.line for _, entry in work.fields[stage].values()]
        work.problems.append(Problem(max(lines, default=0), f"{stage}: {text}"))
        return
    value, entry = work.fields[stage][name]
    meaning = model.model_fields[name].description or ""
    work.refuse(entry, f"{shown(value)} is not allowed: {text} ({name}: {meaning})")


def _option(option: str) -> Entry:
    place, equals, text = option.partition("=")
    section, dot, key = place.strip().partition(".")
    if not (equals and dot and key):
        raise BadValueError("write it as stage.key=value, such as segmentation.preset=exact")
    names = {name.lower(): name for name in SECTIONS}
    number = channel_of(section.capitalize())
    name = f"Channel{number}" if number is not None else names.get(section.lower())
    if name is None:
        raise BadValueError(f"unknown stage; {suggestion(section, names)}")
    try:
        value = yaml.safe_load(text) if text.strip() else None
    except yaml.YAMLError:
        value = text  # a Windows path or other text with YAML's signs in it
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        value = text
    return Entry(name, key.strip(), value, 0)


def reference() -> str:
    """Markdown tables of every key, for docs/settings.md."""
    lines: list[str] = []
    for section, keys in KEYS.items():
        lines += ["", f"### {section}", "", "| key | effect |", "|---|---|"]
        for key, meaning in keys.items():
            effect = f"not applicable: {meaning.unused}" if meaning.unused else meaning.does
            lines.append(f"| `{key}` | {effect} |")
    for section, model in STAGES.items():
        lines += ["", f"### {section}", "", "| key | default | effect |", "|---|---|---|"]
        for name, info in model.model_fields.items():
            default = info.get_default(call_default_factory=True)
            in_one_line = " ".join((info.description or "").split())
            lines.append(f"| `{name}` | `{default!r}` | {in_one_line} |")
    return "\n".join(lines) + "\n"
