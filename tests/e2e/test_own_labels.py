"""`respan quantify` with labels of any origin: a defined result, or a sentence with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from tests.e2e.command_line import Answer, CommandsHere
from tests.hand_model import DARK, DENDRITE, SPINE, draw, write_image

Quantify = Any


def classes() -> NDArray[np.uint8]:
    """Labels of the drawing in scheme 3: three spines on a dendrite."""
    image = draw()
    found = np.zeros(image.shape, np.uint8)
    found[image > (DARK + SPINE) // 2] = 1
    found[image > (SPINE + DENDRITE) // 2] = 2
    return found


@pytest.fixture(scope="module")
def quantify(commands: CommandsHere, tmp_path_factory: pytest.TempPathFactory) -> Quantify:
    """Quantifies a drawing with labels of one's own."""
    image = write_image(tmp_path_factory.mktemp("images") / "cell.tif")

    def work(labels: NDArray[Any], *options: Any, of: Path = image) -> tuple[Answer, Path]:
        out = tmp_path_factory.mktemp("out")
        tifffile.imwrite(out / "labels.tif", labels)
        small = ("--set", "quantification.min_dendrite_volume_um3=1")
        return commands("quantify", of, out / "labels.tif", "--out", out, *small, *options), out

    return work


def only(role: int) -> NDArray[np.uint8]:
    """The labels without all but one class."""
    found = classes()
    return np.where(found == role, found, np.uint8(0))


def one_voxel() -> NDArray[np.uint8]:
    """A single voxel of a spine, and nothing else."""
    found = np.zeros_like(classes())
    found[8, 32, 48] = 1
    return found


@pytest.mark.parametrize(
    ("labels", "dendrites", "warning"),
    [
        (only(2), 1, "no spine"),
        (only(1), 0, "no dendrite"),
        (one_voxel(), 0, "no dendrite"),
    ],
    ids=["no spines", "no dendrites", "one voxel"],
)
def test_labels_that_lack_something_give_tables_and_a_warning(quantify, labels, dendrites, warning):
    answer, out = quantify(labels)
    assert answer.code == 0
    assert answer.content["numbers"]["spines"] == 0
    assert answer.content["numbers"]["dendrites"] == dendrites
    assert any(warning in text for text in answer.content["warnings"])
    table = pd.read_csv(out / "Tables" / "cell_detected_spines.csv")
    assert len(table) == 0
    assert {"spine_id", "head_vol", "spine_C1_mean_int"} <= set(table.columns)


def test_labels_as_floating_point_numbers_count_as_whole_ones(quantify):
    answer, _ = quantify(classes().astype(np.float32))
    assert answer.content["numbers"]["spines"] == 3


@pytest.mark.parametrize(
    ("labels", "options", "parts"),
    [
        (classes() * 9, (), ("labels.tif", "value 9", "--scheme")),
        (classes(), ("--spacing", "-0.3,0.1,0.1"), ("--spacing", "-0.3", "positive")),
        (classes(), ("--spacing", "0.3,0.1"), ("--spacing", "three numbers", "0.3,0.1")),
        (classes(), ("--channel", 2), ("channel 2", "cell")),
    ],
    ids=["unknown value", "negative", "two edges", "no channel"],
)
def test_what_cannot_be_quantified_is_refused_with_the_way_out(quantify, labels, options, parts):
    answer, _ = quantify(labels, *options)
    assert (answer.code, answer.content["status"]) == (2, "failed")
    assert all(part in answer.content["error"] for part in parts), answer.content["error"]
    assert "unforeseen" not in answer.content["error"]


def test_intensities_that_are_no_numbers_are_refused_by_place(quantify, tmp_path):
    grey = draw().astype(np.float32)
    grey[8, 40, 20] = np.nan
    answer, _ = quantify(classes(), of=write_image(tmp_path / "holes.tif", grey))
    assert answer.code == 2
    assert all(part in answer.content["error"] for part in ("holes.tif", "slice 9", "NaN"))


def test_an_image_without_a_voxel_size_asks_for_it(quantify, tmp_path):
    image = tmp_path / "bare.tif"
    tifffile.imwrite(image, draw())
    answer, _ = quantify(classes(), of=image)
    assert answer.code == 2
    assert all(part in answer.content["error"] for part in ("bare.tif", "--spacing 0.3,0.1,0.1"))
