import pytest

from respan_common.errors import ModelError
from respan_common.params import RestorationParams
from respan_restoration import models


def test_a_digest_changes_with_the_weights_and_not_with_the_folder(empty_care_folder, tmp_path):
    folder = empty_care_folder()
    params = RestorationParams(care_models={1: str(folder)})
    before = models.find(params).digest
    moved = folder.rename(tmp_path.with_name(f"{tmp_path.name}_moved"))
    params = RestorationParams(care_models={1: str(moved)})
    assert models.find(params).digest == before
    (moved / "weights_best.h5").write_bytes(b"other weights")
    assert models.find(params).digest != before


def test_a_digest_changes_with_the_channel(empty_care_folder):
    path = str(empty_care_folder())
    one, two = (models.find(RestorationParams(care_models={n: path})).digest for n in (1, 2))
    assert one != two


def test_a_checkpoint_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no Self-Net checkpoint at .*gone\.pkl"):
        models.find(RestorationParams(axial_model=str(tmp_path / "gone.pkl")))


def test_care_folders_and_checkpoints_below_a_root_are_offered(empty_care_folder, tmp_path):
    folder = empty_care_folder()
    (folder / "axial.pkl").write_bytes(b"")
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text("{}")
    offered = models.offered([tmp_path.parent])
    assert [path for path in offered if path.startswith(str(tmp_path))] == [
        str(folder),
        str(folder / "axial.pkl"),
    ]
