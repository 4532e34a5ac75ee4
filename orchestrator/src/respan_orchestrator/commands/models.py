"""Commands on models: list, show, check, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from respan_orchestrator.commands.output import ALL_DONE, Json, LogLevel, answer

app = typer.Typer(no_args_is_help=True, help="List, show, check and import models.")


@app.command("list")
def list_models(as_json: Json = False, log_level: LogLevel = "WARNING") -> None:
    """List the models that can be called by name."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.models import known_models, summary
        from respan_orchestrator.settings import OrchestratorSettings

        found = [summary(model) for model in known_models(OrchestratorSettings().model_roots)]

        def show() -> None:
            for model in found:
                spacing = " x ".join(f"{edge:g}" for edge in model["spacing_um"] or [])
                labels = ", ".join(name for name, value in model["labels"].items() if value)
                print(f"{model['name']:<16} {spacing or 'spacing unknown':<22} {labels}")

        return {"models": found}, ALL_DONE, show

    answer(as_json, log_level, work)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name or folder of a model.")],
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Show what a model is: labels, voxel size (µm; z, y, x), digest, license, metrics."""
    answer(as_json, log_level, lambda: _described(name))


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="nnU-Net model folder.")],
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Check that a model folder is complete and that its labels are understood."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.models import find_model
        from respan_orchestrator.settings import OrchestratorSettings

        content, code, show_all = _described(str(folder))
        roles = find_model(str(folder), OrchestratorSettings().model_roots).roles()
        return {**content, "roles": roles}, code, show_all

    answer(as_json, log_level, work)


@app.command("import")
def import_model(
    folder: Annotated[Path, typer.Argument(help="nnU-Net model folder.")],
    name: Annotated[str, typer.Option(help="Name to call it by; absent: the folder's.")] = "",
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Copy a model folder to the models that can be called by name."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.models import import_model, summary
        from respan_orchestrator.settings import OrchestratorSettings

        model = import_model(folder, name, OrchestratorSettings().model_roots)
        return summary(model), ALL_DONE, lambda: print(model.path)

    answer(as_json, log_level, work)


def _described(name: str) -> tuple[dict[str, Any], int, Any]:
    from respan_orchestrator.models import find_model, summary
    from respan_orchestrator.settings import OrchestratorSettings

    content = summary(find_model(name, OrchestratorSettings().model_roots))

    def show_all() -> None:
        for key, value in content.items():
            print(f"{key:<12} {value}")

    return content, ALL_DONE, show_all
