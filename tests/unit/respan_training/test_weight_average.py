import pytest
import torch

from respan_training.weight_average import WeightAverage


def moved(network, value):
    with torch.no_grad():
        network.weight.fill_(value)


def test_the_average_forgets_the_random_beginning():
    network = torch.nn.Linear(1, 1)
    moved(network, 100.0)
    average = WeightAverage(network, 0.9)
    moved(network, 2.0)
    for _ in range(200):
        average.update(network)
    assert average.weights["weight"].item() == pytest.approx(2)


def test_the_average_lies_between_weights_that_swing():
    network = torch.nn.Linear(1, 1)
    average = WeightAverage(network, 0.98)
    for step in range(400):
        moved(network, 1.0 if step % 2 else 3.0)
        average.update(network)
    assert average.weights["weight"].item() == pytest.approx(2, abs=0.05)


def test_a_weight_of_two_names_is_averaged_once_and_stays_one():
    network = torch.nn.Linear(1, 1)
    network = torch.nn.Sequential(network, network)
    average = WeightAverage(network, 0.5)
    with torch.no_grad():
        network[0].weight.add_(1)
    before = average.weights["0.weight"].item()
    average.update(network)
    # The first step keeps a tenth.
    assert average.weights["0.weight"].item() == pytest.approx(before + 0.9)
    assert average.weights["0.weight"] is average.weights["1.weight"]


def test_an_average_goes_on_where_it_was_interrupted():
    network = torch.nn.Linear(1, 1)
    whole, first = WeightAverage(network, 0.9), WeightAverage(network, 0.9)
    for step in range(10):
        moved(network, float(step))
        whole.update(network)
        if step < 5:
            first.update(network)
    second = WeightAverage(network, 0.9)
    second.resume(**first.state())
    for step in range(5, 10):
        moved(network, float(step))
        second.update(network)
    assert second.weights["weight"].item() == pytest.approx(whole.weights["weight"].item())
