"""Commands on models: list, show, check, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from respan_orchestrator.commands.output import ALL_DONE, NOTHING_STARTED, Json, LogLevel, answer

app = typer.Typer(no_args_is_help=True, help="List, show, check and import models.")

Scheme = Annotated[
    int | None,
    typer.Option(
        "--scheme", min=1, max=4, help="RESPAN's model type, if the label names say nothing."
    ),
]


@app.command("list")
def list_models(as_json: Json = False, log_level: LogLevel = "WARNING") -> None:
    """List the models that can be called by name."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.model_tables import print_models
        from respan_orchestrator.models import look_up, summary
        from respan_orchestrator.settings import OrchestratorSettings

        models, broken = look_up(OrchestratorSettings().model_roots)
        found = [summary(model) for model in models]
        content = {"models": found, "broken": broken}
        return content, ALL_DONE, lambda: print_models(found, broken)

    answer(as_json, log_level, work)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    rdf: Annotated[
        bool, typer.Option("--rdf", help="Print its description for bioimage.io (rdf.yaml).")
    ] = False,
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Show what a model is: labels, voxel size (µm; z, y, x), digest, license, metrics."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.model_tables import print_model
        from respan_orchestrator.models import find_model, rdf_text, summary
        from respan_orchestrator.settings import OrchestratorSettings

        model = find_model(name, OrchestratorSettings().model_roots)
        if rdf:
            from respan_common.model_cards import rdf_of

            return rdf_of(model), ALL_DONE, lambda: print(rdf_text(model), end="")
        content = summary(model)
        return content, ALL_DONE, lambda: print_model(content)

    answer(as_json, log_level, work)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="nnU-Net model folder.", metavar="DIR")],
    scheme: Scheme = None,
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Check that a model folder is complete, safe to read, and that its labels are understood."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.model_checks import checks
        from respan_orchestrator.model_tables import print_checks
        from respan_orchestrator.models import checked_summary, folder_of
        from respan_orchestrator.settings import OrchestratorSettings

        place = folder_of(str(folder), OrchestratorSettings().model_roots)
        found = list(checks(place, scheme))
        content = checked_summary(place, found, scheme)
        code = NOTHING_STARTED if content["status"] == "failed" else ALL_DONE
        return content, code, lambda: print_checks(found)

    answer(as_json, log_level, work)


@app.command("import")
def import_model(
    source: Annotated[
        Path, typer.Argument(help="nnU-Net model folder, or a zip of one.", metavar="DIR|ZIP")
    ],
    name: Annotated[str, typer.Option(help="Name to call it by; absent: the folder's.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a model of that name.")] = False,
    spacing: Annotated[
        str,
        typer.Option(
            help="Voxel size (µm) of its training images, if it does not know.", metavar="Z,Y,X"
        ),
    ] = "",
    scheme: Scheme = None,
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Check a model and copy it to those that can be called by name."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.commands.training import three
        from respan_orchestrator.model_imports import import_model
        from respan_orchestrator.model_tables import print_model
        from respan_orchestrator.models import summary
        from respan_orchestrator.settings import OrchestratorSettings

        edges = three(spacing, float, "--spacing")
        said = {"spacing_um": edges, "label_scheme": scheme}
        model, warnings = import_model(
            source,
            OrchestratorSettings().model_roots,
            name=name,
            force=force,
            said={key: value for key, value in said.items() if value is not None},
        )
        content = summary(model)
        content["warnings"] += warnings
        return content, ALL_DONE, lambda: print_model(content)

    answer(as_json, log_level, work)
