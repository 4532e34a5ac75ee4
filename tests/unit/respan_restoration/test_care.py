import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from respan_common.blocks import grid
from respan_common.errors import CapacityError, InputError, ModelError
from respan_common.geometry import whole
from respan_restoration import care

# Keras and csbdeep warn about NumPy and about each other.
pytestmark = pytest.mark.filterwarnings("ignore")


def noise(shape, dtype=np.uint16, most=500):
    return np.random.default_rng(1).integers(0, most, shape).astype(dtype)


def channel_of(volume):
    boxes = [block.inner for block in grid(volume.shape, (8, 16, 16))]
    limits = care.limits(volume.__getitem__, boxes, volume.dtype)
    return care.Channel(volume.__getitem__, volume.shape, limits)


def csbdeeps_own(folder, volume, **options):
    from csbdeep.models import CARE

    model = CARE(None, folder.name, basedir=str(folder.parent))
    return model.predict(volume, "ZYX", **options)


@pytest.fixture(scope="session")
def model(care_folder):
    return care.load(care.open_folder(care_folder))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_grey_values_are_csbdeeps_own(model, care_folder, dtype):
    volume = noise((13, 37, 41), dtype, most=250)
    ours = care.restore(model, channel_of(volume), whole(volume.shape))
    np.testing.assert_allclose(ours, csbdeeps_own(care_folder, volume), atol=1e-2)


def test_a_probabilistic_model_gives_its_mean(probabilistic_folder):
    model = care.load(care.open_folder(probabilistic_folder))
    volume = noise((8, 21, 20))
    ours = care.restore(model, channel_of(volume), whole(volume.shape))
    np.testing.assert_allclose(ours, csbdeeps_own(probabilistic_folder, volume), atol=1e-2)


@pytest.mark.parametrize("most", [(5, 60, 30), (100, 7, 100)])
def test_tiles_do_not_change_the_grey_values(model, most):
    volume = noise((13, 60, 61))
    together = care.restore(model, channel_of(volume), whole(volume.shape))
    apart = care.restore(model, channel_of(volume), whole(volume.shape), most)
    np.testing.assert_allclose(apart, together, atol=1e-2)


def test_a_box_has_the_grey_values_that_the_whole_volume_has_there(model):
    volume = noise((13, 80, 90))
    everything = care.restore(model, channel_of(volume), whole(volume.shape))
    box = (slice(2, 5), slice(33, 39), slice(81, 90))
    part = care.restore(model, channel_of(volume), box)
    np.testing.assert_allclose(part, everything[box], atol=1e-2)


def test_only_what_a_box_can_see_is_read(model):
    volume, read = noise((13, 200, 200)), []
    limits = channel_of(volume).limits
    channel = care.Channel(lambda box: (read.append(box), volume[box])[1], volume.shape, limits)
    care.restore(model, channel, (slice(0, 13), slice(96, 100), slice(96, 100)))
    assert read == [(slice(0, 13), slice(72, 124), slice(72, 124))]


def test_a_tile_larger_than_the_limit_is_cut(model, monkeypatch):
    volume, tiles = noise((8, 100, 100)), []
    together = care.restore(model, channel_of(volume), whole(volume.shape))
    monkeypatch.setattr(care, "VOXELS_PER_TILE", 8 * 80 * 80)
    channel = channel_of(volume)
    apart = care.restore(model, channel, whole(volume.shape), check=lambda: tiles.append(1))
    assert len(tiles) == 4
    np.testing.assert_allclose(apart, together, atol=1e-2)


def test_a_tile_is_not_cut_smaller_than_its_halo(model, monkeypatch):
    volume, tiles = noise((8, 44, 44)), []
    monkeypatch.setattr(care, "VOXELS_PER_TILE", 1)
    channel = channel_of(volume)
    care.restore(model, channel, whole(volume.shape), check=lambda: tiles.append(1))
    assert model.overlap == 22
    assert len(tiles) == 4


def test_a_tile_that_exceeds_the_memory_is_tried_again_in_halves(model, monkeypatch):
    volume = noise((8, 40, 50))
    together = care.restore(model, channel_of(volume), whole(volume.shape))
    predict, answers = care._predict, iter([True, True])
    monkeypatch.setattr(
        care, "_predict", lambda *given: None if next(answers, False) else predict(*given)
    )
    again = care.restore(model, channel_of(volume), whole(volume.shape))
    np.testing.assert_allclose(again, together, atol=1e-2)


def test_a_memory_too_small_for_any_tile_is_an_error(model, monkeypatch):
    monkeypatch.setattr(care, "_predict", lambda *given: None)
    volume = noise((8, 40, 50))
    with pytest.raises(CapacityError, match="more memory"):
        care.restore(model, channel_of(volume), whole(volume.shape))


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 2, 5), (1, 1, 1)])
def test_a_volume_smaller_than_the_network_sees_is_restored(model, care_folder, shape):
    volume = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    ours = care.restore(model, channel_of(volume), whole(shape))
    np.testing.assert_allclose(ours, csbdeeps_own(care_folder, volume), atol=1e-2)


def test_a_channel_of_one_grey_value_stays_as_it_is(model):
    volume = np.full((8, 9, 10), 7, np.uint16)
    np.testing.assert_array_equal(
        care.restore(model, channel_of(volume), whole((8, 9, 10))), volume
    )


def test_a_channel_that_is_almost_empty_is_refused():
    volume = np.zeros((10, 50, 50), np.uint16)
    volume[5, 5, 5] = 900
    with pytest.raises(InputError, match=r"percentiles 2\.0 and 99\.8 are both 0"):
        channel_of(volume)


def test_a_channel_with_values_that_are_not_finite_is_refused():
    volume = noise((8, 9, 10), np.float32)
    volume[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        channel_of(volume)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 20, 31), (10, 40, 40)])
def test_percentiles_are_numpys(shape, dtype):
    volume = noise(shape, dtype, most=200)
    limits = channel_of(volume).limits
    expected = np.percentile(volume, [2, 99.8])
    np.testing.assert_allclose([limits.low, limits.high], expected, rtol=1e-6)


def test_a_folder_without_weights_names_them(empty_care_folder):
    folder = empty_care_folder()
    (folder / "weights_best.h5").rename(folder / "weights_now.h5")
    with pytest.raises(
        ModelError,
        match=r"has no weights: weights_best\.h5 or weights_last\.h5 .*weights_now\.h5: rename",
    ):
        care.open_folder(folder)


def test_the_best_weights_are_preferred_to_the_last(empty_care_folder):
    folder = empty_care_folder()
    (folder / "weights_last.h5").write_bytes(b"")
    assert care.open_folder(folder).weights.name == "weights_best.h5"
    (folder / "weights_best.h5").unlink()
    assert care.open_folder(folder).weights.name == "weights_last.h5"


def test_a_folder_without_settings_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        care.open_folder(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no CARE model folder at .*nowhere"):
        care.open_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{broken", "[1]"])
def test_settings_that_cannot_be_read_are_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json .*copy it anew"):
        care.open_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": "YXC"}, "is a 2D model: .* axes 'YXC'.*train a 3D CARE model"),
        ({"axes": "TYXC"}, "is not a model of single volumes: .* axes 'TYXC'"),
        ({"n_channel_in": 2}, "n_channel_in 2 .*restoration needs 1"),
        ({"n_channel_out": 3}, "n_channel_out 3 .*restoration needs 1"),
    ],
)
def test_a_model_of_another_kind_is_refused(empty_care_folder, changes, message):
    with pytest.raises(ModelError, match=message):
        care.open_folder(empty_care_folder(**changes))


@pytest.mark.parametrize(
    "changes", [{}, {"proj_kern": 3}, {"unet_n_depth": 0}, {"unet_n_depth": 2, "unet_kern_size": 9}]
)
def test_a_model_that_csbdeep_cannot_load_names_the_folder(empty_care_folder, changes):
    folder = empty_care_folder(**changes)
    with pytest.raises(ModelError, match=f"{folder.name} cannot be loaded as a CARE model"):
        care.load(care.open_folder(folder))


def test_weights_of_another_network_are_refused(care_folder, probabilistic_folder, tmp_path):
    mixed = shutil.copytree(care_folder, tmp_path / "mixed")
    shutil.copy(probabilistic_folder / "weights_best.h5", mixed / "weights_best.h5")
    with pytest.raises(ModelError, match="mixed cannot be loaded as a CARE model"):
        care.load(care.open_folder(mixed))


def test_loading_a_model_writes_nothing_to_its_folder(care_folder):
    before = {path: path.stat().st_mtime_ns for path in care_folder.rglob("*")}
    care.load(care.open_folder(care_folder))
    assert {path: path.stat().st_mtime_ns for path in care_folder.rglob("*")} == before


LEGACY = """
import sys
import numpy as np
from csbdeep.models import CARE, Config
config = Config("ZYX", probabilistic=True, unet_n_depth=3, unet_n_first=4)
model = CARE(config, "legacy", basedir=sys.argv[1])
model.keras_model.save_weights(sys.argv[1] + "/legacy/weights_best.h5")
volume = np.random.default_rng(1).integers(0, 500, (13, 37, 41)).astype(np.uint16)
np.save(sys.argv[1] + "/expected.npy", model.predict(volume, "ZYX"))
"""


def test_weights_written_by_keras_2_give_the_same_grey_values(tmp_path):
    legacy = os.environ | {"TF_USE_LEGACY_KERAS": "1"}
    subprocess.run([sys.executable, "-c", LEGACY, str(tmp_path)], env=legacy, check=True)
    model, volume = care.load(care.open_folder(tmp_path / "legacy")), noise((13, 37, 41))
    ours = care.restore(model, channel_of(volume), whole(volume.shape))
    np.testing.assert_allclose(ours, np.load(tmp_path / "expected.npy"), atol=1e-2)


def test_importing_the_module_does_not_import_tensorflow():
    program = "import sys, respan_restoration.care; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
