"""Commands that make data and models: synth, train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from respan_orchestrator.commands.output import ALL_DONE, Device, Json, LogLevel, answer

app = typer.Typer(no_args_is_help=True, help="Train models.")


def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    images: Annotated[int, typer.Option(min=1, help="Number of volumes.")] = 1,
    kind: Annotated[str, typer.Option(help="confocal or two-photon.")] = "confocal",
    shape: Annotated[str, typer.Option(help="Voxels; absent: the kind's.", metavar="Z,Y,X")] = "",
    spacing: Annotated[str, typer.Option(help="µm; absent: the kind's.", metavar="Z,Y,X")] = "",
    channels: Annotated[int, typer.Option(min=1, help="Channels.")] = 1,
    timepoints: Annotated[int, typer.Option(min=1, help="Time points; only 1 so far.")] = 1,
    snr: Annotated[str, typer.Option(help="easy, typical, hard, extreme or mixed.")] = "typical",
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal volumes.")] = 0,
    label_scheme: Annotated[
        int, typer.Option(min=1, max=4, help="RESPAN's model type whose classes the labels have.")
    ] = 3,
    meshes: Annotated[bool, typer.Option("--meshes", help="Surfaces of spines, too.")] = False,
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Make phantom volumes with exact truth: images, labels, instances, tables, tracings."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_common.convert import validated
        from respan_common.params import SynthesisParams
        from respan_orchestrator.console import live_progress
        from respan_orchestrator.synthesis import SynthesisRequest, make_phantoms

        values: dict[str, Any] = {
            "kind": kind,
            "images": images,
            "shape": three(shape, int, "--shape"),
            "spacing_um": three(spacing, float, "--spacing"),
            "channels": channels,
            "timepoints": timepoints,
            "snr": snr,
            "seed": seed,
            "label_scheme": label_scheme,
            "meshes": meshes,
        }
        params = validated(SynthesisParams, values)
        with live_progress(quiet=as_json):
            outcome = make_phantoms(SynthesisRequest(out=str(out), params=params))
        content = {"status": "done", "out": out, "numbers": outcome.numbers}
        return content, ALL_DONE, lambda: print(out)

    answer(as_json, log_level, work)


@app.command()
def nnunet(
    data: Annotated[Path, typer.Argument(help="Folder with imagesTr and labelsTr.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs in all.")] = None,
    initial: Annotated[
        str, typer.Option("--from", help="Model to start from.", metavar="NAME|DIR")
    ] = "",
    overrides: Annotated[
        list[str], typer.Option("--set", help="Change a parameter.", metavar="KEY=VALUE")
    ] = [],  # noqa: B006  typer never changes it
    device: Device = "auto",
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Train an nnU-Net model; the same command goes on with a training that was stopped."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.console import live_progress
        from respan_orchestrator.flow_server import flow_server

        params = _training_params(epochs, initial, overrides)
        with flow_server():
            # Prefect reads its settings when it is imported.
            from respan_orchestrator.flows import TrainingRequest, train_nnunet

            request = TrainingRequest(data=str(data), out=str(out), device=device, params=params)
            with live_progress(quiet=as_json):
                outcome = train_nnunet(request)
        content = {"status": "done", "out": out, "numbers": outcome.numbers}
        return content, ALL_DONE, lambda: print(out)

    answer(as_json, log_level, work)


def _training_params(epochs: int | None, initial: str, overrides: list[str]) -> Any:
    import yaml

    from respan_common.convert import validated
    from respan_common.params import NnunetTrainingParams
    from respan_orchestrator.models import find_model
    from respan_orchestrator.settings import OrchestratorSettings

    values: dict[str, Any] = {}
    for option in overrides:
        key, separator, text = option.partition("=")
        if not separator:
            raise typer.BadParameter(f"'{option}' is not of the form key=value")
        values[key.strip()] = yaml.safe_load(text)
    if epochs is not None:
        values["epochs"] = epochs
    if initial:
        model = find_model(initial, OrchestratorSettings().model_roots)
        values["initial_model"] = str(model.path)
    return validated(NnunetTrainingParams, values)


def three(text: str, kind: type[int] | type[float], option: str) -> list[int] | list[float] | None:
    """Numbers of an option such as 1,2,3; None if it is empty."""
    if not text:
        return None
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise typer.BadParameter(f"{option} takes three numbers such as 1,2,3, not '{text}'")
    return values
