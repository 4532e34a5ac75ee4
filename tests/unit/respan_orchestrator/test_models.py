import pytest
from tests.nnunet_models import write_random_model

from respan_common.errors import ModelError
from respan_common.geometry import VoxelSpacing
from respan_orchestrator.models import (
    find_model,
    fit_warnings,
    known_models,
    look_up,
    nearest_model,
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


def test_a_coarse_network_is_chosen_by_its_training_images(roots):
    write_random_model(roots[0] / "low", labels=LABELS, spacing=(0.3, 0.13, 0.13))
    plans = roots[0] / "low" / "plans.json"
    text = plans.read_text()
    median = '"original_median_spacing_after_transp": '
    plans.write_text(text.replace(f"{median}[0.3, 0.13, 0.13]", f"{median}[0.9, 0.4, 0.4]"))
    assert nearest_model(VoxelSpacing(0.9, 0.4, 0.4), roots).name == "low"
    assert nearest_model(VoxelSpacing(0.2, 0.08, 0.08), roots).name == "fine"


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0)])
def test_without_a_model_that_fits_the_way_out_is_named(tmp_path, spacing):
    if spacing:
        write_random_model(tmp_path / "unknown", spacing=spacing)
    with pytest.raises(ModelError, match=r"--model.*--spacing"):
        nearest_model(VoxelSpacing(1.0, 0.1, 0.1), [tmp_path])


def test_an_unknown_name_lists_the_known_ones(roots):
    with pytest.raises(ModelError, match="coarse, fine"):
        find_model("finest", roots)


def test_a_model_that_cannot_be_used_is_told_and_hides_no_other(roots):
    (roots[0] / "coarse" / "plans.json").write_text("{")
    models, broken = look_up(roots)
    assert [model.name for model in models] == ["fine"]
    assert "coarse/plans.json is not JSON" in broken[0]
    assert known_models(roots) == models


def test_a_model_that_fits_is_not_talked_about(roots):
    assert fit_warnings(find_model("coarse", roots), VoxelSpacing(1.0, 0.12, 0.12), roots) == []


def test_another_model_that_fits_better_is_named(roots):
    told = fit_warnings(find_model("coarse", roots), VoxelSpacing(0.2, 0.05, 0.05), roots)
    assert "1 x 0.1 x 0.1" in told[0]
    assert told[1] == "fine was trained nearer to this image: --model fine"


def test_where_no_model_fits_all_voxel_sizes_are_listed(roots):
    told = fit_warnings(find_model("coarse", roots), VoxelSpacing(1.0, 0.5, 0.5), roots)
    assert "no installed model" in told[1]
    assert "coarse: 1 x 0.1 x 0.1; fine: 0.15 x 0.065 x 0.065" in told[1]


def test_a_voxel_size_that_the_user_knows_better_counts(roots):
    model, image = find_model("coarse", roots), VoxelSpacing(1.0, 0.5, 0.5)
    assert fit_warnings(model, image, roots, trained_um=(1.0, 0.4, 0.4)) == []
