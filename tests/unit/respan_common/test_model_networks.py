"""Networks by their plans: nnU-Net's own reading, and names that are none."""

import json

import pytest
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.nnunet_models import make_plans_old, write_random_model

from respan_common.errors import ModelError
from respan_common.model_folders import describe
from respan_common.model_networks import architecture


@pytest.mark.parametrize("patch", [(16, 32, 32), (32, 32)])
@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_early_plans_are_read_as_nnunet_reads_them(tmp_path, patch):
    model = describe(make_plans_old(write_random_model(tmp_path / "m", patch=patch)))
    nnunets = PlansManager(dict(model.plans)).get_configuration(model.configuration)
    assert architecture(model) == (
        nnunets.network_arch_class_name,
        nnunets.network_arch_init_kwargs,
        nnunets.network_arch_init_kwargs_req_import,
    )


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("network", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_what_plans_describe_can_be_built(tmp_path, network, old):
    folder = write_random_model(tmp_path / "m", network=network)
    model = describe(make_plans_old(folder) if old else folder)
    built = get_network_from_plans(*architecture(model), model.inputs, model.outputs)
    assert type(built).__name__ == network


def change_network(folder, **values):
    plans = json.loads((folder / "plans.json").read_text())
    described = plans["configurations"]["3d_fullres"]["architecture"]
    for key, value in values.items():
        (described if key in described else described["arch_kwargs"])[key] = value
    (folder / "plans.json").write_text(json.dumps(plans))
    return describe(folder)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("nonlin", "os.system"),
        ("nonlin", "torch.nn.functional.torch.os.system"),
        ("nonlin", "torch.nn.modules.module.torch.os.system"),
        ("nonlin", "torch.nn.init"),
        ("conv_op", "torch.nnx.Conv3d"),
        ("conv_op", "torch.nn.modules.conv.Conv3d.forward"),
        ("conv_op", ["torch.nn.Conv3d"]),
        ("network_class_name", "torch.nn.Identity"),
        ("network_class_name", "dynamic_network_architectures.architectures.unet.torch.os.system"),
        ("network_class_name", "dynamic_network_architectures.architectures.unet"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, key, name):
    model = change_network(write_random_model(tmp_path / "m"), **{key: name})
    with pytest.raises(ModelError, match="refused: it names"):
        architecture(model)


@pytest.mark.parametrize(
    "values",
    [
        {"arch_kwargs": [1]},
        {"_kw_requires_import": ["unheard_of"]},
        {"_kw_requires_import": 3},
        {"arch_kwargs": None},
    ],
)
def test_plans_that_describe_no_network_are_told(tmp_path, values):
    model = change_network(write_random_model(tmp_path / "m"), **values)
    with pytest.raises(ModelError, match="describes no network"):
        architecture(model)
