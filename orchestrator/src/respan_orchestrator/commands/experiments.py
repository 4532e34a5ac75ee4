"""Commands on a whole experiment: run, demo, report, classify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from respan_orchestrator.commands.output import (
    ALL_DONE,
    SOME_FAILED,
    Channel,
    Device,
    Json,
    LogLevel,
    Model,
    Overrides,
    answer,
)

ExperimentFolder = Annotated[
    Path, typer.Argument(help="Parent folder of an experiment, or one of its sub-folders.")
]


def run(
    experiment: ExperimentFolder,
    model: Model = "",
    channel: Channel = None,
    device: Device = "auto",
    overrides: Overrides = [],  # noqa: B006  typer never changes it
    only: Annotated[
        list[str], typer.Option("--only", help="Analyze this image only.", metavar="IMAGE")
    ] = [],  # noqa: B006
    restart_from: Annotated[
        str | None,
        typer.Option(help="Do this stage and all later ones again.", metavar="STAGE"),
    ] = None,
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Restore, segment and quantify every image of an experiment folder.

    Run it again to go on after an interruption: what is done is not done again.
    """

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_common.convert import validated
        from respan_orchestrator.analysis_request import AnalysisRequest

        request = validated(
            AnalysisRequest,
            {
                "experiment": str(experiment),
                "model": model,
                "channel": channel,
                "device": device,
                "overrides": overrides,
                "only": only,
                "restart_from": restart_from,
            },
        )
        return _analyzed(request, quiet=as_json)

    answer(as_json, log_level, work)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the generated experiment.")] = Path(
        "MyExperiment"
    ),
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Make an experiment of phantoms with known truth, analyze it, and compare."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.analysis_request import AnalysisRequest
        from respan_orchestrator.demo import compare_with_truth, make_experiment, print_comparison

        make_experiment(out, quiet=as_json)
        content, code, show = _analyzed(AnalysisRequest(experiment=str(out)), quiet=as_json)
        counts = compare_with_truth(out, content["images"])

        def show_all() -> None:
            show()
            print_comparison(counts)

        return {**content, "truth": counts}, code, show_all

    answer(as_json, log_level, work)


def report(
    experiment: ExperimentFolder, as_json: Json = False, log_level: LogLevel = "WARNING"
) -> None:
    """Rebuild an experiment's report from its tables."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.report import rebuild

        path = rebuild(experiment)
        return {"status": "done", "report": path}, ALL_DONE, lambda: print(path)

    answer(as_json, log_level, work)


def classify(
    experiment: ExperimentFolder,
    rules: Annotated[
        str,
        typer.Option(
            help="Rules of spine shapes: rodriguez, protrusions, a file, or none. "
            "Absent: what the settings say.",
            metavar="NAME|FILE",
        ),
    ] = "",
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Give all spines their shape classes anew; writes tables only, measures nothing."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.classification import classify_experiment

        found = classify_experiment(experiment, rules)
        content = {"status": "done", **vars(found)}

        def show() -> None:
            for shape, count in found.classes.items():
                print(f"{shape:<12} {count}")
            for image, why in found.left_out.items():
                typer.echo(f"{image}: {why}", err=True)

        return content, SOME_FAILED if found.left_out else ALL_DONE, show

    answer(as_json, log_level, work)


def _analyzed(request: Any, *, quiet: bool) -> tuple[dict[str, Any], int, Any]:
    from respan_orchestrator.analysis_request import examined
    from respan_orchestrator.console import live_progress, print_outcome
    from respan_orchestrator.flow_server import flow_server

    examined(request)  # before the server's start: it takes ten seconds
    with flow_server():
        # Prefect reads its settings when it is imported.
        from respan_orchestrator.flows import analyze

        with live_progress(quiet=quiet):
            state: Any = analyze(request, return_state=True)
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):
        raise outcome
    code = SOME_FAILED if outcome.failed else ALL_DONE
    return outcome_as_json(outcome), code, lambda: print_outcome(outcome)


def outcome_as_json(outcome: Any) -> dict[str, Any]:
    """What `respan run --json` prints."""
    return {
        "status": "failed" if outcome.failed else "done",
        "experiment": outcome.experiment,
        "images": [_image_as_json(image) for image in outcome.images],
        "tables": outcome.tables,
        "report": outcome.report,
        "warnings": outcome.warnings,
    }


def _image_as_json(image: Any) -> dict[str, Any]:
    return {
        "sub_folder": image.sub_folder,
        "name": image.name,
        "status": image.status,
        "error": image.error,
        "spines": image.numbers.get("spines"),
        "dendrite_length_um": image.numbers.get("dendrite_length_um"),
        "seconds": {stage.stage: stage.seconds for stage in image.stages},
        "peak_rss_mb": {stage.stage: stage.peak_rss_mb for stage in image.stages},
        "skipped": [stage.stage for stage in image.stages if stage.skipped],
        "warnings": image.warnings,
    }
