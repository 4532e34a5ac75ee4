import pandas as pd
import pytest
import tifffile

from respan_common.errors import CancelledError
from respan_common.events import Reporter, SilentReporter
from respan_common.params import SynthesisParams
from respan_training.jobs import SynthesisJob
from respan_training.nnunet_dataset import read_training_set
from respan_training.stage import run_synthesis
from respan_training.synthesis import write_training_data
from respan_training.tiffs import read_spacing

SMALL = SynthesisParams(
    images=2, shape=[8, 48, 48], spacing_um=[0.5, 0.2, 0.2], channels=2, kind="two-photon"
)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("synth")
    return out, run_synthesis(SynthesisJob(out, SMALL), SilentReporter())


def test_every_volume_has_image_labels_instances_and_truth(made):
    out, result = made
    for file in result.written:
        assert (out / file).exists()
    assert sorted(result.written)[:2] == [
        "images/two-photon_0_000.tif",
        "images/two-photon_0_001.tif",
    ]
    assert {file.split("/")[0] for file in result.written} == {
        "images", "labels", "instances", "truth"
    }  # fmt: skip


def test_images_are_zcyx_with_their_voxel_size(made):
    path = made[0] / "images" / "two-photon_0_000.tif"
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].axes == "ZCYX"
        assert tiff.series[0].shape == (8, 2, 48, 48)
        assert tiff.imagej_metadata["unit"] == "micron"
    assert read_spacing(path).zyx == pytest.approx((0.5, 0.2, 0.2))


def test_the_truth_names_the_spines_that_are_labelled(made):
    spines = pd.read_csv(made[0] / "truth" / "two-photon_0_000_spines.csv")
    instances = tifffile.imread(made[0] / "instances" / "two-photon_0_000.tif")
    numbered = set(instances[instances > 0].tolist())
    assert numbered == set(spines.spine_id[spines.resolvable])


def test_the_same_parameters_give_the_same_bytes(made, tmp_path):
    run_synthesis(SynthesisJob(tmp_path, SMALL), SilentReporter())
    assert contents(tmp_path) == contents(made[0])


def test_volumes_that_are_there_are_kept(made):
    out, _ = made
    before = {p: p.stat().st_mtime_ns for p in (out / "images").iterdir()}
    again = run_synthesis(SynthesisJob(out, SMALL), SilentReporter())
    assert again.skipped
    assert {p: p.stat().st_mtime_ns for p in (out / "images").iterdir()} == before


def test_a_volume_that_lost_a_file_is_made_again(tmp_path):
    one = SMALL.model_copy(update={"images": 1})
    run_synthesis(SynthesisJob(tmp_path, one), SilentReporter())
    (tmp_path / "labels" / "two-photon_0_000.tif").unlink()
    assert not run_synthesis(SynthesisJob(tmp_path, one), SilentReporter()).skipped
    assert (tmp_path / "labels" / "two-photon_0_000.tif").exists()


def test_a_caller_that_goes_away_leaves_whole_volumes_only(tmp_path):
    calls = iter([False] * 2 + [True] * 9)
    report = Reporter(send=lambda event: None, cancelled=lambda: next(calls))
    with pytest.raises(CancelledError):
        run_synthesis(SynthesisJob(tmp_path, SMALL), report)
    assert run_synthesis(SynthesisJob(tmp_path, SMALL), SilentReporter()).numbers["made"] == 1


def test_phantoms_are_training_data(tmp_path):
    write_training_data(tmp_path, SMALL)
    data = read_training_set(tmp_path)
    assert len(data.cases) == 2
    assert data.has_spacing
    assert not data.warnings
    assert list(data.description["channel_names"].values()) == ["neuron", "channel2"]
