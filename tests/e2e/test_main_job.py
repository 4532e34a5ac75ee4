"""The main job: `respan run` on an experiment folder, with real services."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from tests.e2e.conftest import SPINES


@pytest.fixture(scope="module")
def sub_folder(first_run, experiment) -> Path:
    return experiment / "Animal_A"


def test_every_image_is_done_and_the_exit_code_says_so(first_run):
    assert (first_run.code, first_run.content["status"]) == (0, "done")
    assert first_run.each("status") == {"cell1": "done", "cell2": "done"}


def test_every_drawn_spine_is_counted_in_each_kind_of_image(first_run):
    assert first_run.each("spines") == {name: len(places) for name, places in SPINES.items()}


def test_spines_are_where_they_were_drawn(sub_folder):
    table = pd.read_csv(sub_folder / "Tables" / "cell1_detected_spines.csv")
    assert sorted(table["x_um"].round(1)) == pytest.approx(
        [place / 10 for place in SPINES["cell1"]], abs=0.15
    )


def test_outputs_have_the_names_that_respan_gives_them(first_run, sub_folder):
    for name in SPINES:
        for path in (
            f"Tables/{name}_detected_spines.csv",
            f"Tables/{name}_dendrite_summary.csv",
            f"SWC_files/{name}.swc",
            f"Validation_Data/Segmentation_Labels/{name}.tif",
            f"Validation_Data/Validation_MIPs/MIP_{name}.tif",
            f"Zarr/{name}.ome.zarr/zarr.json",
        ):
            assert (sub_folder / path).is_file(), path
    assert Path(first_run.content["report"]) == sub_folder.parent / "Report" / "index.html"


def test_the_summary_has_a_row_for_each_image(sub_folder):
    table = pd.read_csv(sub_folder / "Tables" / "Detected_spines_summary.csv")
    counts = dict(zip(table["Filename"], table["total_spines"], strict=True))
    assert counts == {name: len(places) for name, places in SPINES.items()}


def test_the_label_image_fits_the_image_and_has_its_classes(sub_folder):
    image = tifffile.imread(sub_folder / "cell1.tif")
    labels = tifffile.imread(sub_folder / "Validation_Data" / "Segmentation_Labels" / "cell1.tif")
    assert labels.shape == image.shape
    assert np.all(image[labels == 2] > 450)
    assert set(np.unique(labels)) == {0, 1, 2}


def test_only_what_a_change_touches_is_done_again(first_run, respan, experiment, model):
    again = respan("run", experiment, "--model", model)
    assert set(again.each("status").values()) == {"skipped"}
    change = ("--set", "quantification.min_spine_volume_um3=14")
    changed = respan("run", experiment, "--model", model, *change)
    assert changed.each("skipped") == {name: ["ingest", "segmentation"] for name in SPINES}
    assert changed.each("spines") == dict.fromkeys(SPINES, 0)


def test_a_stage_can_be_done_again_for_one_image(first_run, respan, experiment, model):
    options = ("--only", "cell2", "--restart-from", "segmentation")
    again = respan("run", experiment, "--model", model, *options)
    assert again.each("skipped") == {"cell2": ["ingest"]}


def test_the_report_is_made_anew_from_what_is_there(first_run, respan, experiment):
    report = experiment / "Report" / "index.html"
    report.unlink()
    assert respan("report", experiment).content["report"] == str(report)
    assert report.is_file()
