"""Every kind of network that nnU-Net plans, built from plans.json alone."""

import pytest
from tests.nnunet_models import make_plans_old, write_random_model

from respan_common.checkpoints import read_checkpoint
from respan_common.model_folders import describe
from respan_segmentation.model import build_network


def fits(folder):
    model = describe(folder)
    weights = read_checkpoint(model.checkpoints[0])["network_weights"]
    return build_network(model).load_state_dict(weights)


@pytest.mark.parametrize("patch", [(16, 32, 32), (32, 32)])
@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_both_networks_are_built_in_two_and_three_dimensions(tmp_path, network, patch):
    fits(write_random_model(tmp_path / "m", network=network, patch=patch))


@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_plans_of_early_versions_are_understood(tmp_path):
    folder = make_plans_old(write_random_model(tmp_path / "m", convs=2))
    assert "architecture" not in describe(folder).settings
    fits(folder)
