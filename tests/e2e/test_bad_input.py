"""Whatever is wrong with a folder or a file: one clear sentence with the way out, and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from tests.e2e.command_line import Answer, CommandsHere
from tests.e2e.conftest import SETTINGS
from tests.hand_model import draw, write_image

GOOD = ("good", "näme with späces (1) 脊", "tiny", "dark", "bare")


def with_settings(folder: Path, text: str = SETTINGS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Analysis_Settings.yml").write_text(text)
    return folder


def write_all_kinds(folder: Path) -> None:
    """Fill a sub-folder with what people's folders have in them."""
    with_settings(folder)
    for name in ("good.tif", "clash.tif", "clash.tiff", "näme with späces (1) 脊.tif"):
        write_image(folder / name)
    write_image(folder / "tiny.tif", draw((8,), (5, 20, 16)))
    write_image(folder / "dark.tif", draw((), shaft=False))
    write_image(folder / "bare.tif", draw(()))
    whole = (folder / "good.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tif").write_text("not an image")
    (folder / "empty.tif").touch()
    flat = {"imagej": True, "resolution": (10, 10), "metadata": {"axes": "YX", "unit": "um"}}
    tifffile.imwrite(folder / "flat.tif", draw()[8], **flat)


@pytest.fixture(scope="module")
def answer(respan, model, tmp_path_factory) -> Answer:
    """One run over all kinds of trouble at once."""
    parent = tmp_path_factory.mktemp("data") / "MyExperiment"
    write_all_kinds(parent / "Mixed")
    write_image(parent / "No settings" / "image.tif")
    typo = SETTINGS.replace("neuron_channel", "neuron_chanel")
    write_image(with_settings(parent / "Typo", typo) / "image.tif")
    second = SETTINGS.replace("neuron_channel: 1", "neuron_channel: 2")
    write_image(with_settings(parent / "Second channel", second) / "image.tif")
    write_image(with_settings(parent / "Read only") / "image.tif").parent.chmod(0o555)
    return respan("run", parent, "--model", model)


def test_some_failed_is_what_the_exit_code_says(answer):
    assert (answer.code, answer.content["status"]) == (1, "failed")


@pytest.mark.parametrize("name", GOOD)
def test_good_images_among_bad_ones_are_done(answer, name):
    assert answer.image(name)["status"] == "done"


@pytest.mark.parametrize(
    ("name", "spines"), [("good", 3), ("näme with späces (1) 脊", 3), ("dark", 0), ("bare", 0)]
)
def test_spines_are_counted_among_bad_images_as_anywhere(answer, name, spines):
    assert answer.image(name)["spines"] == spines


@pytest.mark.parametrize(("name", "warning"), [("dark", "no dendrite"), ("bare", "no spine")])
def test_an_image_without_anything_is_done_with_a_warning(answer, name, warning):
    assert any(warning in text for text in answer.image(name)["warnings"])


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("text", ("text.tif", "not a TIFF")),
        ("truncated", ("truncated.tif", "truncated")),
        ("empty", ("empty.tif", "0 bytes", "copy it again")),
        ("flat", ("flat.tif", "voxel size", "input_resZ", "Analysis_Settings.yml")),
        ("clash", ("clash.tif", "clash.tiff", "rename")),
    ],
)
def test_a_bad_file_is_named_with_the_way_out(answer, name, parts):
    image = answer.image(name)
    assert image["status"] == "failed"
    assert all(part in image["error"] for part in parts), image["error"]


@pytest.mark.parametrize(
    ("folder", "parts"),
    [
        ("No settings", ("Analysis_Settings.yaml", "neuron_channel: 1")),
        ("Typo", ("line 2", "neuron_chanel", "did you mean 'neuron_channel'")),
        ("Second channel", ("image.tif has 1 channel", "neuron_channel", "Analysis_Settings.yml")),
        ("Read only", ("Read only", "cannot be written", "permissions")),
    ],
)
def test_a_bad_folder_fails_its_own_images_only(answer, folder, parts):
    image = answer.image("image", folder)
    assert image["status"] == "failed"
    assert all(part in image["error"] for part in parts), image["error"]


def nothing_there(folder: Path) -> list[str]:
    return ["run", str(folder)]


def no_such_folder(folder: Path) -> list[str]:
    return ["run", str(folder / "elsewhere")]


def model_without_weights(folder: Path) -> list[str]:
    write_image(with_settings(folder / "images") / "image.tif")
    (folder / "model" / "fold_all").mkdir(parents=True)
    for name in ("dataset.json", "plans.json"):
        (folder / "model" / name).write_text('{"configurations": {"3d_fullres": {}}}')
    return ["run", str(folder / "images"), "--model", str(folder / "model")]


def unknown_image(folder: Path) -> list[str]:
    write_image(with_settings(folder) / "image.tif")
    return ["run", str(folder), "--only", "picture"]


def unknown_stage(folder: Path) -> list[str]:
    write_image(with_settings(folder) / "image.tif")
    return ["run", str(folder), "--restart-from", "breakfast"]


@pytest.mark.parametrize(
    ("prepare", "part"),
    [
        (nothing_there, "has no images"),
        (no_such_folder, "is not there"),
        (model_without_weights, "has no weights"),
        (unknown_image, "only image"),
        (unknown_stage, "restart_from"),
    ],
)
def test_what_cannot_start_is_refused_at_once(
    private, tmp_path, prepare: Callable[[Path], list[str]], part: str
):
    assert_refused(CommandsHere(private)(*prepare(tmp_path)), part)


def test_a_folder_that_cannot_be_written_is_refused_at_once(respan, tmp_path):
    write_image(with_settings(tmp_path) / "image.tif")
    tmp_path.chmod(0o555)
    assert_refused(respan("run", tmp_path), "cannot be written")


def assert_refused(answer: Answer, part: str) -> None:
    assert (answer.code, answer.content["status"]) == (2, "failed")
    assert part in answer.content["error"]
