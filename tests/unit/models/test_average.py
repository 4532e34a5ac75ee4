import pytest
import torch
from models.average import WEIGHTS, averaged


def model(folder, **weights):
    """A model folder with these weights."""
    path = folder / WEIGHTS
    path.parent.mkdir(parents=True)
    torch.save({"network_weights": weights, "trainer_name": folder.name}, path)
    return folder


def test_the_mean_of_the_weights_stays_in_their_precision(tmp_path):
    one = model(tmp_path / "one", a=torch.tensor([1.0, 2.0]).half(), b=torch.tensor(4.0))
    two = model(tmp_path / "two", a=torch.tensor([2.0, 4.0]).half(), b=torch.tensor(1.0))
    three = model(tmp_path / "three", a=torch.tensor([3.0, 9.0]).half(), b=torch.tensor(1.0))
    found = averaged([one, two, three])
    assert found["trainer_name"] == "three"
    assert found["network_weights"]["a"].tolist() == [2.0, 5.0]
    assert found["network_weights"]["a"].dtype == torch.float16
    assert found["network_weights"]["b"] == 2.0


def test_weights_of_two_names_are_kept_once(tmp_path):
    own = torch.tensor([1.0, 3.0])
    found = averaged([model(tmp_path / "one", a=own, again=own)])["network_weights"]
    assert found["a"].data_ptr() == found["again"].data_ptr()


@pytest.mark.parametrize("other", [{"a": torch.zeros(2)}, {"b": torch.zeros(3)}])
def test_other_networks_are_refused(tmp_path, other):
    one, two = model(tmp_path / "one", **other), model(tmp_path / "two", a=torch.zeros(3))
    with pytest.raises(ValueError, match=r"one has another network than .*two"):
        averaged([one, two])
