"""Synthesis and training as stages: from folders to folders.

The server imports this module to name its stages, so what is heavy is imported only where a worker
needs it.
"""

from __future__ import annotations

from respan_common.events import Accepted, Reporter, StageResult
from respan_common.locks import exclusive
from respan_training.jobs import SynthesisJob, TrainingJob


def run_synthesis(job: SynthesisJob, report: Reporter) -> StageResult:
    """Write phantom volumes; those that are already there stay."""
    from respan_training.synthesis import write_phantoms, write_truth

    total = job.params.images
    report.accepted(Accepted(shape=tuple(job.params.shape or ()), blocks=total))
    report.progress(0, total, "making volumes")
    written: list[str] = []
    made = 0
    with exclusive(job.out / ".records" / "lock", report.check):
        for done, (name, files, was_there) in enumerate(
            write_phantoms(job.out, job.params, write_truth), start=1
        ):
            written += files
            made += not was_there
            report.progress(done, total, name)
    return StageResult(tuple(written), {"volumes": float(total), "made": float(made)}, made == 0)


def run_training(job: TrainingJob, report: Reporter) -> StageResult:
    """Train a model, or go on with a training that was interrupted."""
    from respan_training import nnunet_stage  # takes seconds and half a gigabyte

    return nnunet_stage.run(job, report)
