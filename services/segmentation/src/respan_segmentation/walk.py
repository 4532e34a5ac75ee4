"""The walk over an image: which rows of shards come next, and who does them.

Rows are claimed through lock files in the draft, so that several replicas that were asked for the
same image, or for regions of it, share them; what a killed one had claimed is free again. A sweep
goes on from row to row as long as the next one is free: then nothing is predicted twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from respan_common.devices import torch_device
from respan_common.drafts import Draft, draft_folder
from respan_common.errors import VolumeFormatError, VolumeNotFoundError
from respan_common.events import Reporter
from respan_common.geometry import Box, whole
from respan_common.model_cards import misfits
from respan_common.model_folders import ModelFolder
from respan_common.pieces import Pieces
from respan_common.processes import give_memory_back
from respan_common.volumes import LevelWriter, Volume
from respan_segmentation.jobs import RegionDoneError, SegmentationJob, threshold_of
from respan_segmentation.model import load
from respan_segmentation.outputs import CLASSES, CONFIDENCE, PROBABILITIES, UNCERTAINTY, Decision
from respan_segmentation.passes import Pass
from respan_segmentation.pipeline import Tally
from respan_segmentation.plan import Row, starts, tokens, undone
from respan_segmentation.plausibility import complaints, image_features
from respan_segmentation.recipes import Grid
from respan_segmentation.refinement import LARGEST_UM, SPINE_ROLES, Refinement
from respan_segmentation.scores import Meaning
from respan_segmentation.survey import Survey, survey

STAGE = "segmentation"
FIRST_STAGE, UNREFINED = ".first_stage", ".unrefined"
"""Arrays of the draft that are never published."""
_SURVEY = "survey"
_COUNTED = re.compile(r"counted \S+ \S+ \S+ (\d+) (\d+)")
_POLL_S = 0.2


class Task(Protocol):
    """Something to do with every row of an image."""

    name: str
    tally: Tally

    def columns(self, region: Box) -> list[list[Row]]:
        """Rows of a region, by column."""

    def sweep(self, some: Sequence[Row]) -> Iterator[Row]:
        """Write rows that follow one another, and give each when it is written."""


class Walk:
    """One image's walk: leads the work, or helps whoever leads it."""

    def __init__(
        self,
        job: SegmentationJob,
        volume: Volume,
        folder: ModelFolder,
        refiner: ModelFolder | None,
        digest: str,
        report: Reporter,
    ) -> None:
        give_memory_back()
        self.job, self.volume, self.folder, self.refiner = job, volume, folder, refiner
        self._digest, self._report = digest, report
        self.devices = _devices(torch_device(job.runtime))
        self._pieces = Pieces(draft_folder(job.store, STAGE))
        self._step, self._windows, self._before = -1, 0, 0
        self._finished = self._most = 0.0

    @property
    def device(self) -> str:
        """Where windows are predicted, in words."""
        return ", ".join(str(device) for device in self.devices)

    @cached_property
    def decision(self) -> Decision:
        """What is written for every voxel."""
        params = self.job.params
        roles = self.folder.roles(params.label_scheme)
        spines = [value for role, value in roles.items() if role in SPINE_ROLES]
        meaning = meaning_of(self.folder, spines, threshold_of(params, self.folder))
        differ = len(self.folder.checkpoints) > 1 or params.mirrors
        extra = int(params.uncertainty and differ and not meaning.region_values)
        return Decision(meaning, params.probabilities, params.uncertainty, extra)

    @property
    def classes(self) -> str:
        """Group of the classes."""
        return CLASSES

    @property
    def images(self) -> dict[str, tuple[list[str], type[np.generic]]]:
        """Names of the channels, and type, of every group that is an image."""
        names = {
            PROBABILITIES: self.folder.table.names,
            UNCERTAINTY: ["entropy", "disagreement"],
            CONFIDENCE: ["spine"],
        }
        return {
            group: (list(names[group][:count]), dtype)
            for group, (count, dtype) in self.decision.channels.items()
            if group in names
        }

    def warnings(self, foreground_share: float) -> list[str]:
        """What a reader of the result must know about this image, this model and this machine."""
        features = image_features(self.survey) | {"foreground_share": foreground_share}
        if self.main.confidence is not None:
            features["confidence"] = self.main.confidence
        trained = self.folder.card.get("trained_range", {})
        again = self._refinement_warnings(self.refiner) if self.refiner else ()
        return [*complaints(features, trained), *again, *self._shortages()]

    def _shortages(self) -> Iterator[str]:
        least = self.main.least_batch
        if least is not None:
            yield f"memory of {self.device} was short: windows were predicted {least} at a time"
        if self.main.is_narrow:
            yield f"memory of {self.device} was short: the image was swept in narrower columns"

    def begin(self, draft: Draft) -> None:
        """Create the arrays that are not published."""
        shape = self.volume.shape_zyx
        for name in self._hidden:
            LevelWriter(draft.folder / name, shape, np.uint8)

    @property
    def _hidden(self) -> list[str]:
        first = [FIRST_STAGE] if self.folder.previous else []
        return [*first, *([UNREFINED] if self.refiner else [])]

    @property
    def shards(self) -> list[str]:
        """Tokens of all shards of the whole image, of the step that finishes them."""
        last = self._tasks[-1]
        return [
            token
            for column in last.columns(whole(self.volume.shape_zyx))
            for row in column
            for token in tokens(last.name, row)
        ]

    @property
    def shards_done(self) -> int:
        """Shards that the last step has finished, also in earlier attempts."""
        last = "refined" if self.refiner else "classes"
        return sum(token.startswith(f"{last} ") for token in self._pieces.done())

    def left(self) -> int:
        """Shards of the whole image that are not finished."""
        return len(set(self.shards) - self._pieces.done())

    def lead(self) -> None:
        """Do everything that was asked for, from wherever an earlier attempt stopped."""
        while not self._advance():
            self._report.check()
            time.sleep(_POLL_S)

    def help(self) -> None:
        """Do what is free of the work that another replica leads, if it is the same work.

        Raises
        ------
        RegionDoneError
            If all that was asked for is done, but the image is not.
        """
        if not self._pieces.belong_to(self._digest) or not self._survey_path.exists():
            return
        try:
            done = self._advance()
        except (OSError, ValueError, VolumeFormatError, VolumeNotFoundError):
            # What is finished is published and moved away, at any moment and in any order.
            if self._pieces.belong_to(self._digest):
                raise
            return
        if done and self.job.region is not None and self.left():
            raise RegionDoneError

    def _advance(self) -> bool:
        """Take steps as far as they are free; whether all that was asked for is done."""
        if not self._surveyed():
            return False
        # A later step looks beyond its region at what the earlier one found: that needs it whole.
        everything = whole(self.volume.shape_zyx)
        regions = [everything] * (len(self._tasks) - 1) + [self.job.region or everything]
        for number, (task, region) in enumerate(zip(self._tasks, regions, strict=True)):
            columns = task.columns(region)
            self._enter(number)
            while self._take(task, columns):
                pass
            if undone(task.name, columns, self._pieces.done()):
                return False
        return True

    def _take(self, task: Task, columns: list[list[Row]]) -> bool:
        """Claim rows that follow one another and do them; whether there were any."""
        for row in starts(undone(task.name, columns, self._pieces.done())):
            with ExitStack() as held:
                if not held.enter_context(self._pieces.claimed(tokens(task.name, row))):
                    continue
                if self._is_done(task, row):
                    continue
                self._follow(task, columns[row.column][row.number :], held)
                return True
        return False

    def _follow(self, task: Task, some: Sequence[Row], held: ExitStack) -> None:
        for row, after in zip(task.sweep(some), [*some[1:], None], strict=False):
            self._pieces.mark_done(tokens(task.name, row))
            self._count_finished()
            self._tick()
            held.close()
            if after is None or self._is_done(task, after):
                return
            if not held.enter_context(self._pieces.claimed(tokens(task.name, after))):
                return

    def _is_done(self, task: Task, row: Row) -> bool:
        return self._pieces.done().issuperset(tokens(task.name, row))

    def _enter(self, number: int) -> None:
        """Begin a step: its share of the whole, and its windows, measure the progress."""
        if self._step != number:
            task = self._tasks[number]
            self._windows = task.windows()[0] if isinstance(task, Pass) else 0
            self._step = number
        self._count_finished()

    def _count_finished(self) -> None:
        task = self._tasks[self._step]
        rows = [row for column in task.columns(whole(self.volume.shape_zyx)) for row in column]
        every = {token for row in rows for token in tokens(task.name, row)}
        self._finished = len(every & self._pieces.done()) / max(len(every), 1)
        self._most = 1 / max(len(rows), 1)
        self._before = task.tally.predicted + task.tally.skipped

    def _tick(self) -> None:
        """Say how far the walk is; raises CancelledError if the caller is gone."""
        if self._step < 0:
            self._report.check()
            return
        tally = self._tasks[self._step].tally
        since = tally.predicted + tally.skipped - self._before
        share = self._finished + min(since / max(self._windows, 1), self._most)
        done = round(1000 * (self._step + min(share, 1.0)) / len(self._tasks))
        self._report.progress(done, 1000, self._tasks[self._step].name)

    def _surveyed(self) -> bool:
        """Whether the image has been surveyed; does it, if nobody else is about to."""
        with self._pieces.claimed([_SURVEY]) as mine:
            if mine and not self._survey_path.exists():
                found = survey(
                    self._grey, self.volume.shape_zyx, self.volume.spacing, self._report.check
                )
                found.save(self._survey_path)
        return self._survey_path.exists()

    @property
    def _survey_path(self) -> Path:
        return self._pieces.marker.with_name("survey.npz")

    @cached_property
    def survey(self) -> Survey:
        """What is known of the image before it is segmented."""
        return Survey.load(self._survey_path)

    @cached_property
    def _tasks(self) -> list[Task]:
        tasks: list[Task] = []
        if self.folder.previous is not None:
            tasks.append(self._first_stage(self.folder.previous))
        tasks.append(self.main)
        if self.refiner is not None:
            tasks.append(self._refinement(self.refiner))
        return tasks

    def _first_stage(self, folder: ModelFolder) -> Pass:
        return self._pass("first stage", folder, Decision(meaning_of(folder)), [FIRST_STAGE])

    @cached_property
    def main(self) -> Pass:
        """The model's own pass."""
        groups = list(self.decision.channels)
        if self.refiner is not None:
            groups[groups.index(CLASSES)] = UNREFINED
        first = self._hidden_reader(FIRST_STAGE) if self.folder.previous else None
        return self._pass("classes", self.folder, self.decision, groups, first)

    def _pass(
        self,
        name: str,
        folder: ModelFolder,
        decision: Decision,
        groups: Sequence[str],
        first_stage: Callable[[Box], NDArray[Any]] | None = None,
    ) -> Pass:
        params = self.job.params
        grid = Grid(
            folder,
            self.volume.shape_zyx,
            self.volume.spacing,
            params.step,
            params.model_spacing_um,
        )
        return Pass(
            name,
            grid,
            self._grey,
            self.survey,
            lambda: load(folder, self.devices, self.job.runtime.thread_count),
            params,
            decision,
            {
                channel: self._writer(group)
                for channel, group in zip(decision.channels, groups, strict=True)
            },
            self._tick,
            first_stage,
        )

    def _refinement(self, folder: ModelFolder) -> Refinement:
        return Refinement(
            "refined",
            folder,
            load(folder, self.devices, self.job.runtime.thread_count),
            self.job.params,
            self.folder.roles(self.job.params.label_scheme),
            self._grey,
            self._hidden_reader(UNREFINED),
            self._writer(CLASSES),
            self.volume.spacing,
            self._tick,
            self._note_refined,
        )

    def _note_refined(self, shard: Box, refined: int, too_large: int) -> None:
        """Keep a shard's counts with the draft: other processes do other shards."""
        place = " ".join(f"{part.start}-{part.stop}" for part in shard)
        self._pieces.mark_done([f"counted {place} {refined} {too_large}"])

    def _refined_counts(self) -> list[tuple[int, int]]:
        """Objects that were refined, and that were too large for it, shard by shard."""
        found = (_COUNTED.fullmatch(token) for token in self._pieces.done())
        return [(int(match[1]), int(match[2])) for match in found if match]

    @property
    def refined(self) -> int:
        """Objects of the image that were refined, by whichever process."""
        return sum(refined for refined, _ in self._refined_counts())

    def _refinement_warnings(self, refiner: ModelFolder) -> Iterator[str]:
        yield from refiner.warnings
        yield from misfits(refiner, self.volume.spacing)
        if any(too_large for _, too_large in self._refined_counts()):
            yield (
                f"spines that touch each other over more than {LARGEST_UM:g} µm were not refined: "
                "they are as the first model saw them"
            )

    def _hidden_reader(self, name: str) -> Callable[[Box], NDArray[Any]]:
        return self._writer(name).read

    def _writer(self, group: str) -> LevelWriter:
        return LevelWriter.existing(self._pieces.folder / group)

    def _grey(self, box: Box) -> NDArray[Any]:
        return self.volume.read(box, self.job.params.channel)


def meaning_of(
    folder: ModelFolder, spines: Sequence[int] = (), threshold: float | None = None
) -> Meaning:
    """What a model's scores mean; `spines` are the class values that belong to spines."""
    painted = folder.regions_class_order if folder.regions is not None else ()
    return Meaning(folder.outputs, tuple(painted), tuple(spines), threshold)


def _devices(device: torch.device) -> tuple[torch.device, ...]:
    """All GPUs that this process may use, or the processor."""
    if device.type != "cuda":
        return (device,)
    return tuple(torch.device("cuda", number) for number in range(torch.cuda.device_count()))
