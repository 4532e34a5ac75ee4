"""Commands on single files: restore, segment, quantify, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from respan_orchestrator.commands.output import (
    ALL_DONE,
    Channel,
    Device,
    Json,
    LogLevel,
    Model,
    Overrides,
    answer,
)

Image = Annotated[Path, typer.Argument(help="Image file (.tif, .tiff).")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]


def restore(
    image: Image,
    out: Out,
    channel: Channel = None,
    model: Annotated[
        str, typer.Option("--model", help="CARE model folder for the channel.", metavar="DIR")
    ] = "",
    axial_model: Annotated[
        str, typer.Option(help="Self-Net checkpoint (.pkl).", metavar="FILE")
    ] = "",
    overrides: Overrides = [],  # noqa: B006  typer never changes it
    device: Device = "auto",
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Restore one image; writes OUT/{stem}_restored.tif."""
    added = [f"restoration.channel={channel}"] if channel else []
    if model:
        added.append(f"restoration.care_models={{{channel or 1}: '{Path(model).absolute()}'}}")
    if axial_model:
        added.append(f"restoration.axial_model={Path(axial_model).absolute()}")

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.single import FileRequest, restore_file

        return _done(restore_file, FileRequest(image, out, [*added, *overrides], device), as_json)

    answer(as_json, log_level, work)


def segment(
    image: Image,
    out: Out,
    model: Model = "",
    channel: Channel = None,
    overrides: Overrides = [],  # noqa: B006
    device: Device = "auto",
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Segment one image; writes OUT/{stem}_labels.tif.

    With --set segmentation.probabilities=true also {stem}_probabilities.tif (255 is certain), with
    segmentation.uncertainty=true also {stem}_uncertainty.tif.
    """
    added = [f"parameters.neuron_channel={channel}"] if channel else []
    added += [f"segmentation.model={model}"] if model else []

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_orchestrator.single import FileRequest, segment_file

        return _done(segment_file, FileRequest(image, out, [*added, *overrides], device), as_json)

    answer(as_json, log_level, work)


def quantify(
    image: Image,
    labels: Annotated[Path, typer.Argument(help="Its class image: TIFF or OME-Zarr.")],
    out: Out,
    scheme: Annotated[
        int, typer.Option(min=1, max=4, help="What the label values mean: RESPAN's model type.")
    ] = 3,
    spacing: Annotated[
        str, typer.Option(help="Voxel size in µm; absent: the file's.", metavar="Z,Y,X")
    ] = "",
    channel: Channel = None,
    overrides: Overrides = [],  # noqa: B006
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Measure spines and dendrites of a segmentation of your own; writes OUT/Tables."""
    added = [f"quantification.channel={channel}"] if channel else []

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_common.errors import InputError
        from respan_common.geometry import VoxelSpacing
        from respan_orchestrator.commands.training import three
        from respan_orchestrator.single import FileRequest, quantify_file

        edges = three(spacing, float, "--spacing")
        try:
            size = VoxelSpacing(*edges) if edges else None
        except InputError as error:
            raise InputError(f"--spacing {spacing}: {error}") from error
        request = FileRequest(image, out, [*added, *overrides], spacing=size)
        return _done(lambda it: quantify_file(it, labels, scheme), request, as_json)

    answer(as_json, log_level, work)


def convert(
    files: Annotated[list[Path], typer.Argument(help="Images to convert.")],
    to: Annotated[str, typer.Option("--to", help="ome-zarr or tiff.")],
    out: Annotated[Path | None, typer.Option(help="Folder; absent: beside each file.")] = None,
    as_json: Json = False,
    log_level: LogLevel = "WARNING",
) -> None:
    """Convert images to OME-Zarr, or to TIFF with the right scale for Fiji."""

    def work() -> tuple[dict[str, Any], int, Any]:
        from respan_common.errors import InputError
        from respan_common.events import SilentReporter
        from respan_orchestrator.conversion import convert_files

        if to not in ("ome-zarr", "tiff"):
            raise InputError(f"--to is ome-zarr or tiff, not '{to}'")
        written = convert_files(files, to, out, SilentReporter())
        return {"status": "done", "written": written}, ALL_DONE, lambda: _list(written)

    answer(as_json, log_level, work)


def _done(stage: Any, request: Any, as_json: bool) -> tuple[dict[str, Any], int, Any]:
    from respan_orchestrator.console import live_progress

    with live_progress(quiet=as_json):
        outcome = stage(request)
    content = {
        "status": "done",
        "written": outcome.written,
        "numbers": {key: value for step in outcome.stages for key, value in step.numbers.items()},
        "seconds": {step.stage: step.seconds for step in outcome.stages},
        "skipped": [step.stage for step in outcome.stages if step.skipped],
        "warnings": [text for step in outcome.stages for text in step.warnings],
    }

    def show() -> None:
        _list(outcome.written)
        for warning in content["warnings"]:
            typer.echo(warning, err=True)

    return content, ALL_DONE, show


def _list(written: list[Path]) -> None:
    for path in written:
        print(path)
