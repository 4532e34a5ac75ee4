import pytest
from tests.nnunet_models import write_random_model

from respan_common.errors import ModelError
from respan_common.geometry import VoxelSpacing
from respan_orchestrator.models import (
    find_model,
    import_model,
    known_models,
    nearest_model,
    spacing_warning,
)

LABELS = {"background": 0, "spine": 1, "dendrite": 2}


@pytest.fixture
def roots(tmp_path):
    for name, spacing in (("coarse", (1.0, 0.1, 0.1)), ("fine", (0.15, 0.065, 0.065))):
        write_random_model(tmp_path / "models" / name, labels=LABELS, spacing=spacing)
    return [tmp_path / "models"]


def test_the_model_of_the_nearest_voxel_size_is_chosen(roots):
    assert nearest_model(VoxelSpacing(1.0, 0.12, 0.12), roots).name == "coarse"
    assert nearest_model(VoxelSpacing(0.2, 0.05, 0.05), roots).name == "fine"


def test_without_models_the_way_out_is_named(tmp_path):
    with pytest.raises(ModelError, match="--model"):
        nearest_model(VoxelSpacing(1.0, 0.1, 0.1), [tmp_path])


def test_an_unknown_name_lists_the_known_ones(roots):
    with pytest.raises(ModelError, match="coarse, fine"):
        find_model("finest", roots)


def test_only_a_very_different_voxel_size_is_worth_a_warning(roots):
    model = find_model("coarse", roots)
    assert spacing_warning(model, VoxelSpacing(1.0, 0.12, 0.12)) == ""
    assert "1 x 0.1 x 0.1" in spacing_warning(model, VoxelSpacing(1.0, 0.3, 0.3))


def test_an_imported_model_is_called_by_name_and_predicts_the_same(roots, tmp_path):
    own = [tmp_path / "own", *roots]
    imported = import_model(roots[0] / "fine", "mine", own)
    assert [model.name for model in known_models(own)] == ["mine", "coarse", "fine"]
    assert imported.labels == find_model("fine", roots).labels
    weights = [path.read_bytes() for path in imported.checkpoints]
    assert weights == [path.read_bytes() for path in find_model("fine", roots).checkpoints]


@pytest.mark.parametrize("name", ["coarse", "../elsewhere", "a/b"])
def test_a_taken_name_or_a_path_is_no_name_for_an_import(roots, name):
    with pytest.raises(ModelError, match="another --name"):
        import_model(roots[0] / "fine", name, roots)
