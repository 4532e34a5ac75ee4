"""The command line: `respan`, or `python -m respan_orchestrator`."""

from __future__ import annotations

import os

# An ephemeral Prefect server belongs to one run on one machine: nobody is told about it.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# On a server that stays, a run that was killed is noticed by its silence.
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")

import typer

from respan_orchestrator.commands import experiments, files, models, stack, training

app = typer.Typer(
    name="respan",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Restore, segment and quantify dendrites and spines in 3D fluorescence microscopy.",
)
app.command()(experiments.run)
app.command()(experiments.demo)
app.command()(experiments.report)
app.command()(experiments.classify)
app.command()(files.restore)
app.command()(files.segment)
app.command()(files.quantify)
app.command()(files.convert)
app.command()(training.synth)
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(stack.doctor)
app.add_typer(training.app, name="train")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
