"""The report of an experiment: one HTML file that shows what was found, how, and what went wrong.

It needs nothing but itself: pictures are inside, plots are drawn by the page. It is made from the
stores' completion records, tables and label images, so it can be made again at any time.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from respan_common import __version__
from respan_common.buckets import Location
from respan_common.errors import RespanError, SettingsError
from respan_common.records import StageRecord, write_text_durably
from respan_common.volumes import open_volume
from respan_orchestrator.conditions import CONDITION, find_conditions, read_conditions
from respan_orchestrator.distributions import MEASURES, Distribution, densities, distribution
from respan_orchestrator.experiment import Experiment, ImageFile, SubFolder, scan_experiment
from respan_orchestrator.models import known_models
from respan_orchestrator.outcomes import ImageOutcome, StageOutcome
from respan_orchestrator.pictures import STAGES, current_records, write_overview
from respan_orchestrator.pooling import pooled
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.summary import RESERVED, outcome_row
from respan_orchestrator.table_export import SPINES, read_table

FOLDER = "Report"
_NOT_REPORTED = ("files",)
"""Parameters that are only places on a disk."""


@dataclass(frozen=True)
class _Way:
    """One way in which a stage was done, and to which images."""

    stage: str
    version: str
    model: str
    model_digest: str
    params: dict[str, str]
    images: list[str] = field(default_factory=list)


@dataclass
class _Section:
    """Everything about one image that the page shows; empty where there is nothing."""

    outcome: ImageOutcome
    records: list[StageRecord] = field(default_factory=list)
    facts: str = ""
    spines: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Columns of the spine table."""
    picture: str = ""
    """Content of the picture, as a data: address."""
    problem: str = ""
    """Why something of the above is missing."""

    @property
    def title(self) -> str:
        return f"{self.outcome.sub_folder} / {self.outcome.name}"

    @property
    def density(self) -> float | None:
        return density_per_um(self.outcome)


def write_report(experiment: Experiment, images: Sequence[ImageOutcome]) -> Path:
    """Write `<experiment>/Report/index.html`.

    Parameters
    ----------
    experiment
        Says where the images' stores are.
    images
        What became of them. An image that is not among them is not in the report.
    """
    folder = experiment.path / FOLDER
    stores = _stores(experiment)
    sections = [_section(outcome, stores, folder / "pictures") for outcome in images]
    page = _rendered(
        name=experiment.path.name or str(experiment.path),
        path=str(experiment.path),
        made_at=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        sections=sections,
        totals=_totals(images),
        stages=_stages_of(images),
        distributions=_distributions(sections),
        conditions=_conditions(experiment, images),
        densities=densities((one.sub_folder, one.name, density_per_um(one)) for one in images),
        warnings=list(experiment.warnings),
        ways=_ways(sections),
    )
    target = folder / "index.html"
    # A file name may hold bytes that are no text; the page must be text.
    write_text_durably(target, page.encode("utf-8", "replace").decode("utf-8"))
    return target


def rebuild(experiment_folder: Path) -> Path:
    """Write the report anew from the stores alone, whoever made them.

    Raises
    ------
    InputError
        If the folder is no experiment.
    """
    experiment = scan_experiment(experiment_folder)
    images = [
        outcome_of(sub_folder, image)
        for sub_folder in experiment.sub_folders
        for image in sub_folder.images
    ]
    return write_report(experiment, images)


def outcome_of(sub_folder: SubFolder, image: ImageFile) -> ImageOutcome:
    """What the completion records say about an image; memory use is not in them."""
    records: list[StageRecord] = []
    try:
        records = current_records(image.store)
        error = image.problem or _missing(records)
    except RespanError as problem:
        error = str(problem)
    return ImageOutcome(
        sub_folder=sub_folder.name,
        name=image.name,
        status="failed" if error else "done",
        error=error,
        stages=[_stage_outcome(record) for record in records],
    )


def density_per_um(outcome: ImageOutcome) -> float | None:
    """Spines per µm of dendrite; None where nothing was measured or there is no dendrite."""
    numbers = outcome.numbers
    spines, length_um = numbers.get("spines"), numbers.get("dendrite_length_um")
    if spines is None or not length_um:
        return None
    return spines / length_um


def _missing(records: Sequence[StageRecord]) -> str:
    if any(record.stage == "quantification" for record in records):
        return ""
    last = f"the last finished stage is {records[-1].stage}" if records else "no stage has finished"
    return f"not analyzed to the end: {last}; `respan run` goes on, or says what stops it"


def _stage_outcome(record: StageRecord) -> StageOutcome:
    return StageOutcome(
        stage=record.stage,
        seconds=record.seconds,
        numbers=record.numbers,
        warnings=record.warnings,
    )


def _stores(experiment: Experiment) -> dict[tuple[str, str], Location]:
    return {
        (sub_folder.name, image.name): image.store
        for sub_folder in experiment.sub_folders
        for image in sub_folder.images
    }


def _section(
    outcome: ImageOutcome, stores: Mapping[tuple[str, str], Location], pictures: Path
) -> _Section:
    section = _Section(outcome)
    store = stores.get((outcome.sub_folder, outcome.name))
    if store is None:
        return section
    try:
        section.records = current_records(store)
        if section.records:
            section.facts = _facts(store)
            section.spines = _spines(store, section.records)
            picture = _picture(store, pictures / outcome.sub_folder, section.records)
            section.picture = _embedded(picture)
    except RespanError as error:
        section.problem = str(error)
    return section


def _facts(store: Location) -> str:
    raw = open_volume(store)
    size = " × ".join(str(size) for size in raw.shape_zyx)
    edges = " × ".join(f"{edge:.4g}" for edge in raw.spacing.zyx)
    channels = f"{raw.channels} channel{'s' if raw.channels > 1 else ''}"
    return f"{size} voxels of {edges} µm (z, y, x), {channels}, {raw.dtype.name}"


def _spines(store: Location, records: Iterable[StageRecord]) -> dict[str, NDArray[np.float64]]:
    """Measures of an image's spines; empty before they are measured."""
    if not any(record.stage == "quantification" for record in records):
        return {}
    table = read_table(store, SPINES)
    if table is None:
        return {}
    return {name: np.asarray(table[name], np.float64) for name in MEASURES if name in table}


def _picture(store: Location, folder: Path, records: Iterable[StageRecord]) -> Path:
    """The image's picture; drawn only if its records are not those of the last time."""
    name = store.name.removesuffix(".ome.zarr")
    digests = " ".join(record.digest for record in records if record.stage != "export")
    key = hashlib.sha256(f"{__version__} {digests}".encode()).hexdigest()[:12]
    target = folder / f"{name}.{key}.webp"
    if not target.exists():
        write_overview(store, target)
        for path in folder.glob(f"{glob.escape(name)}.{'[0-9a-f]' * len(key)}.webp"):
            if path != target:
                path.unlink(missing_ok=True)
    return target


def _embedded(picture: Path) -> str:
    content = base64.b64encode(picture.read_bytes()).decode("ascii")
    return f"data:image/webp;base64,{content}"


def _totals(images: Sequence[ImageOutcome]) -> dict[str, float]:
    return {
        "images": len(images),
        "failed": sum(image.status == "failed" for image in images),
        "spines": sum(image.numbers.get("spines", 0.0) for image in images),
        "length_um": sum(image.numbers.get("dendrite_length_um", 0.0) for image in images),
    }


def _stages_of(images: Iterable[ImageOutcome]) -> list[str]:
    seen = {stage.stage for image in images for stage in image.stages}
    return [*(stage for stage in STAGES if stage in seen), *sorted(seen - set(STAGES))]


def _distributions(sections: Iterable[_Section]) -> list[Distribution]:
    plots = []
    for column in MEASURES:
        values: dict[str, list[NDArray[np.float64]]] = {}
        for section in sections:
            if column in section.spines:
                values.setdefault(section.outcome.sub_folder, []).append(section.spines[column])
        plots.append(distribution(column, values))
    return [plot for plot in plots if plot is not None]


def _conditions(experiment: Experiment, images: Sequence[ImageOutcome]) -> list[dict[str, Any]]:
    """What conditions.csv makes of the images, one row per condition; empty without the file."""
    if not images or find_conditions(experiment.path) is None:
        return []
    try:
        said = read_conditions(experiment, RESERVED)
    except SettingsError:
        return []  # the run's warnings say what is wrong with it
    rows = [outcome_row(one) | said.labels(one.sub_folder, one.name) for one in images]
    return [
        # Only NaN differs from itself.
        {str(name): None if value != value else value for name, value in row.items()}
        for row in pooled(rows, CONDITION, []).to_dict("records")
    ]


def _ways(sections: Sequence[_Section]) -> list[_Way]:
    """Every way in which each stage was done, in the order of stages."""
    pairs = [(section.title, record) for section in sections for record in section.records]
    names = _model_names() if any(record.model_digest for _, record in pairs) else {}
    ways: dict[str, _Way] = {}
    for title, record in pairs:
        way = _way(record, names.get(record.model_digest, ""))
        key = json.dumps([way.stage, way.version, way.model_digest, way.params])
        ways.setdefault(key, way).images.append(title)
    return sorted(ways.values(), key=lambda way: STAGES.index(way.stage))


def _way(record: StageRecord, model: str) -> _Way:
    params = {
        name: _shown(value)
        for name, value in sorted(record.params.items())
        if name not in _NOT_REPORTED
    }
    return _Way(record.stage, record.version, model, record.model_digest, params)


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _model_names() -> dict[str, str]:
    """Names, by digest, of the models that are known on this machine."""
    models = known_models(OrchestratorSettings().model_roots)
    return {model.digest: model.name for model in models}


def _rendered(**content: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("respan_orchestrator"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = _duration
    return environment.get_template("report.html.j2").render(**content)


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.1f} s"
