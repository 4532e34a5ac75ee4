import base64
import html
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from respan_common.blocks import grid
from respan_common.drafts import Draft, drafting, drafting_store
from respan_common.errors import InputError
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.records import StageKey, StageRecord, record_path
from respan_common.volumes import LevelWriter
from respan_orchestrator.experiment import Experiment, scan_experiment
from respan_orchestrator.outcomes import ImageOutcome, StageOutcome
from respan_orchestrator.pictures import current_records
from respan_orchestrator.report import density_per_um, outcome_of, rebuild, write_report

SHAPE = (2, 30, 40)
SPACING = VoxelSpacing(0.5, 0.1, 0.1)


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESPAN_MODEL_ROOTS", str(tmp_path / "no_models"))


def fill(draft: Draft, writer: LevelWriter) -> None:
    for block in grid(writer.shape_zyx, writer.block_zyx):
        writer.write(block.inner, np.ones([part.stop - part.start for part in block.inner]))


def ingest(store: Path, digest: str = "a") -> StageRecord:
    with drafting_store(store, StageKey("ingest", {"file": digest}), SilentReporter()) as draft:
        fill(draft, draft.image("", (1, *SHAPE), SPACING, np.uint8, ["C1"]))
        return draft.publish()


def segment(store: Path, raw: StageRecord, model: str = "cafe") -> StageRecord:
    key = StageKey("segmentation", {"raw": raw.digest}, {"step": 0.5}, model_digest=model * 16)
    with drafting(store, key, SilentReporter()) as draft:
        fill(draft, draft.labels("labels/classes", SHAPE, SPACING, np.uint8))
        return draft.publish(warnings=["a model <unlike> this image"])


def quantify(store: Path, raw: StageRecord, classes: StageRecord, spines: int = 3) -> StageRecord:
    inputs = {"raw": raw.digest, "labels/classes": classes.digest}
    key = StageKey("quantification", inputs, {"channel": 1})
    with drafting(store, key, SilentReporter()) as draft:
        fill(draft, draft.labels("labels/spines", SHAPE, SPACING, np.uint32))
        table = pd.DataFrame({"spine_vol": np.linspace(0.1, 1, spines), "spine_length": 1.0})
        table.to_parquet(draft.file("tables/spines.parquet"), index=False)
        return draft.publish({"spines": float(spines), "dendrite_length_um": 6.0})


def analyze(store: Path) -> None:
    raw = ingest(store)
    quantify(store, raw, segment(store, raw))


def experiment(folder: Path, *names: str) -> Experiment:
    for name in names:
        path = folder / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image")
    return scan_experiment(folder)


def store_of(folder: Path, name: str) -> Path:
    return (folder / name).parent / "Zarr" / f"{Path(name).name}.ome.zarr"


def text_of(page: Path) -> str:
    """What a reader sees."""
    content = page.read_text(encoding="utf-8")
    content = re.sub(r"<style>.*?</style>|<[^>]+>", " ", content, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(content))


def test_a_report_without_any_image_is_a_page(tmp_path: Path) -> None:
    page = write_report(Experiment(tmp_path, ()), [])
    assert page == tmp_path / "Report" / "index.html"
    assert "No image has been analyzed yet" in text_of(page)
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_a_failed_images_error_is_shown_in_full(tmp_path: Path) -> None:
    found = experiment(tmp_path, "A/one")
    error = "the file is damaged:\n" + "x" * 500
    failed = ImageOutcome(sub_folder="A", name="one", status="failed", error=error)
    page = write_report(found, [failed])
    assert error in html.unescape(page.read_text(encoding="utf-8"))


def test_an_analyzed_image_is_shown_with_numbers_and_picture(tmp_path: Path) -> None:
    experiment(tmp_path, "A/one")
    analyze(store_of(tmp_path, "A/one"))
    page = rebuild(tmp_path)
    text = text_of(page)
    assert "3 spines on 6.0 µm of dendrite" in text
    assert "0.50" in text
    assert "2 × 30 × 40 voxels of 0.5 × 0.1 × 0.1 µm" in text
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page.read_text(encoding="utf-8"))
    assert [base64.b64decode(picture)[8:12] for picture in pictures] == [b"WEBP"]


def test_what_segmentation_skipped_and_warned_of_is_shown(tmp_path: Path) -> None:
    found = experiment(tmp_path, "A/one")
    numbers = {"windows": 8.0, "windows_skipped": 5.0, "skipped_share": 0.625, "refined": 12.0}
    stage = StageOutcome(stage="segmentation", numbers=numbers, warnings=["far more was found"])
    image = ImageOutcome(sub_folder="A", name="one", status="done", stages=[stage])
    text = text_of(write_report(found, [image]))
    assert "62 % of the windows hold background alone and were skipped" in text
    assert "12 spines looked at again" in text
    assert "far more was found" in text


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    experiment(tmp_path, "A/one")
    analyze(store_of(tmp_path, "A/one"))
    content = rebuild(tmp_path).read_text(encoding="utf-8")
    addresses = re.findall(r'(?:src|href)="([^"]*)"', content)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in content


def test_parameters_and_models_are_reported(tmp_path: Path) -> None:
    experiment(tmp_path, "A/one", "A/two")
    analyze(store_of(tmp_path, "A/one"))
    raw = ingest(store_of(tmp_path, "A/two"))
    segment(store_of(tmp_path, "A/two"), raw, model="beef")
    text = text_of(rebuild(tmp_path))
    assert "cafe" * 16 in text
    assert "beef" * 16 in text
    assert "step 0.5" in text


def test_names_and_messages_are_no_markup(tmp_path: Path) -> None:
    name = "a<script>alert(1)<&'\" ü"
    found = experiment(tmp_path, f"{name}/one")
    error = "<img src=x onerror=alert(1)>"
    failed = ImageOutcome(sub_folder=name, name="one", status="failed", error=error)
    content = write_report(found, [failed]).read_text(encoding="utf-8")
    assert "<script" not in content
    assert "<img" not in content
    assert "&lt;script&gt;" in content


def test_a_name_that_is_no_text_does_not_stop_the_report(tmp_path: Path) -> None:
    image = ImageOutcome(sub_folder="A", name="bad\udcff", status="failed", error="no")
    assert write_report(Experiment(tmp_path, ()), [image]).is_file()


def test_seconds_of_every_stage_are_shown(tmp_path: Path) -> None:
    stages = [
        StageOutcome(stage="ingest", seconds=4.04),
        StageOutcome(stage="segmentation", seconds=7200),
        StageOutcome(stage="quantification", skipped=True),
    ]
    image = ImageOutcome(sub_folder="A", name="one", status="done", stages=stages)
    text = text_of(write_report(Experiment(tmp_path, ()), [image]))
    assert "4.0 s 2.0 h already done" in text


def test_a_damaged_store_fails_alone(tmp_path: Path) -> None:
    experiment(tmp_path, "A/bad", "A/good")
    for name in ("A/bad", "A/good"):
        analyze(store_of(tmp_path, name))
    record_path(store_of(tmp_path, "A/bad"), "segmentation").write_text("no record")
    text = text_of(rebuild(tmp_path))
    assert "is not a completion record" in text
    assert "3 spines on 6.0 µm" in text


def test_a_damaged_table_is_reported(tmp_path: Path) -> None:
    experiment(tmp_path, "A/one")
    analyze(store_of(tmp_path, "A/one"))
    (store_of(tmp_path, "A/one") / "tables" / "spines.parquet").write_bytes(b"short")
    assert "This image cannot be shown" in text_of(rebuild(tmp_path))


def test_an_image_that_was_not_analyzed_to_the_end_says_so(tmp_path: Path) -> None:
    found = experiment(tmp_path, "A/one", "A/two")
    ingest(store_of(tmp_path, "A/one"))
    sub_folder = found.sub_folders[0]
    outcomes = [outcome_of(sub_folder, image) for image in sub_folder.images]
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert "the last finished stage is ingest" in outcomes[0].error
    assert "no stage has finished" in outcomes[1].error


def test_results_of_an_older_segmentation_do_not_count(tmp_path: Path) -> None:
    experiment(tmp_path, "A/one")
    store = store_of(tmp_path, "A/one")
    analyze(store)
    raw = ingest(store)
    segment(store, raw, model="beef")
    assert [record.stage for record in current_records(store)] == ["ingest", "segmentation"]
    assert "3 spines" not in text_of(rebuild(tmp_path))


def test_a_picture_is_drawn_again_only_when_results_have_changed(tmp_path: Path) -> None:
    experiment(tmp_path, "A/one")
    store = store_of(tmp_path, "A/one")
    raw = ingest(store)
    pictures = tmp_path / "Report" / "pictures" / "A"
    rebuild(tmp_path)
    (first,) = pictures.iterdir()
    changed = first.stat().st_mtime_ns
    rebuild(tmp_path)
    assert first.stat().st_mtime_ns == changed
    quantify(store, raw, segment(store, raw))
    rebuild(tmp_path)
    (second,) = pictures.iterdir()
    assert second != first


def test_a_single_sub_folder_is_an_experiment(tmp_path: Path) -> None:
    experiment(tmp_path, "one")
    analyze(store_of(tmp_path, "one"))
    assert "3 spines on 6.0 µm" in text_of(rebuild(tmp_path))


def test_warnings_of_experiment_and_images_are_shown(tmp_path: Path) -> None:
    experiment(tmp_path, "A/one", "loose")
    analyze(store_of(tmp_path, "A/one"))
    text = text_of(rebuild(tmp_path))
    assert "directly in" in text
    assert "a model <unlike> this image" in text


def test_a_folder_that_is_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        rebuild(tmp_path / "absent")


@pytest.mark.parametrize(
    ("numbers", "density"),
    [
        ({"spines": 3.0, "dendrite_length_um": 6.0}, 0.5),
        ({"spines": 0.0, "dendrite_length_um": 6.0}, 0.0),
        ({"spines": 3.0, "dendrite_length_um": 0.0}, None),
        ({}, None),
    ],
)
def test_density_is_spines_per_length(numbers: dict[str, float], density: float | None) -> None:
    stage = StageOutcome(stage="quantification", numbers=numbers)
    image = ImageOutcome(sub_folder="A", name="one", status="done", stages=[stage])
    assert density_per_um(image) == density


def test_conditions_are_compared_if_a_file_says_what_they_are(tmp_path: Path) -> None:
    found = experiment(tmp_path, "A/one", "B/two", "B/three")
    for name in ("A/one", "B/two"):
        analyze(store_of(tmp_path, name))
    assert "Conditions" not in text_of(rebuild(tmp_path))
    (tmp_path / "conditions.csv").write_text("sub_folder,condition\nA,control\nB,drug <x>\n")
    text = text_of(rebuild(tmp_path))
    assert "control 1 0 3 6.0 0.50 0.50 –" in text
    assert "drug <x> 2 1 3 6.0 0.50 0.50 –" in text
    (tmp_path / "conditions.csv").write_text("nonsense\n")
    assert write_report(found, []).is_file()
