"""From scores to classes, probabilities and doubt."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from respan_segmentation.scores import Meaning, entropy


def voxels(*scores):
    """One row of voxels, each with the scores given."""
    return torch.tensor(scores).T[:, None, None, :]


def test_the_most_probable_class_wins_and_the_first_of_equal_ones():
    scores = voxels((0.0, 2.0, 1.0), (3.0, 3.0, 1.0))
    assert Meaning(3).classes(scores).flatten().tolist() == [1, 0]


def test_regions_are_painted_one_over_the_other():
    meaning = Meaning(2, region_values=(7, 2))
    scores = voxels((1.0, -1.0), (1.0, 1.0), (-1.0, -1.0), (-1.0, 1.0))
    assert meaning.classes(scores).flatten().tolist() == [7, 2, 0, 2]


@pytest.mark.parametrize(("threshold", "expected"), [(0.55, 2), (0.65, 0), (0.0, 2), (1.0, 0)])
def test_a_spine_must_be_probable_enough_together_with_its_neck(threshold, expected):
    shares = torch.tensor([0.39, 0.01, 0.35, 0.25])  # background, dendrite, spine, neck
    meaning = Meaning(4, spines=(2, 3), threshold=threshold)
    found = meaning.classes(shares.log()[:, None, None, None])
    assert found.item() == expected


@pytest.mark.parametrize(("threshold", "expected"), [(None, 2), (0.55, 2), (0.65, 1), (0.2, 2)])
def test_a_threshold_is_for_regions_of_spines_alone(threshold, expected):
    scores = torch.logit(torch.tensor([0.51, 0.6]))[:, None, None, None]
    meaning = Meaning(2, region_values=(1, 2), spines=(2,), threshold=threshold)
    assert meaning.classes(scores).item() == expected


@pytest.mark.parametrize(
    "meaning",
    [
        Meaning(4),
        Meaning(4, spines=(2, 3), threshold=0.8),
        Meaning(4, spines=(2, 3), threshold=0.3),
        Meaning(4, region_values=(1, 2, 3, 4), spines=(3,), threshold=0.7),
    ],
)
def test_sums_with_their_weight_mean_what_their_quotient_does(meaning):
    scores = 3 * torch.randn(4, 5, 20, 20)
    weight = 2.0 ** torch.randint(-3, 3, (1, 5, 20, 20))  # powers of two: without rounding
    found = meaning.classes(scores * weight, weight)
    assert len(found.unique()) == 4 + bool(meaning.region_values)
    torch.testing.assert_close(found, meaning.classes(scores), rtol=0, atol=0)
    nothing = meaning.classes(torch.zeros(4, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    assert nothing.item() == 0


def test_a_spine_can_win_against_a_more_probable_background():
    shares = torch.tensor([0.6, 0.0001, 0.3999])
    assert Meaning(3, spines=(2,), threshold=0.3).classes(shares.log()[:, None, None, None]) == 2


def test_probabilities_of_classes_add_up_to_1_and_those_of_regions_need_not():
    scores = torch.randn(3, 2, 3, 4)
    torch.testing.assert_close(Meaning(3).probabilities(scores).sum(0), torch.ones(2, 3, 4))
    regions = Meaning(3, region_values=(1, 2, 3)).probabilities(scores)
    torch.testing.assert_close(regions, torch.sigmoid(scores))


def test_doubt_is_0_where_one_class_is_certain_and_1_where_all_are_equal():
    certain, open_question = torch.tensor([1.0, 0, 0, 0]), torch.full((4,), 0.25)
    shares = torch.stack([certain, open_question], 1)[:, None, None]
    doubt = entropy(shares, competing=True).flatten()
    torch.testing.assert_close(doubt, torch.tensor([0.0, 1.0]))


def test_the_doubt_about_regions_is_that_of_the_most_doubtful():
    shares = torch.tensor([[0.5], [1.0]])[:, None, None]
    assert entropy(shares, competing=False).item() == pytest.approx(1.0)


def test_nothing_is_background_and_no_region():
    assert Meaning(3).classes(Meaning(3).nothing()[:, None, None, None]).item() == 0
    regions = Meaning(2, region_values=(1, 2))
    assert regions.classes(regions.nothing()[:, None, None, None]).item() == 0
    assert math.isclose(Meaning(3).probabilities(Meaning(3).nothing())[0], 1.0, abs_tol=1e-3)


@given(seed=st.integers(0, 999), threshold=st.sampled_from([0.05, 0.3, 0.5, 0.7, 0.95]))
def test_a_threshold_decides_by_the_summed_probability_everywhere(seed, threshold):
    scores = 3 * torch.randn((5, 2, 3, 4), generator=torch.Generator().manual_seed(seed))
    found = Meaning(5, spines=(1, 4), threshold=threshold).classes(scores)
    shares = torch.softmax(scores.double(), 0)
    together = shares[[1, 4]].sum(0)
    spine = torch.tensor([1, 4])[shares[[1, 4]].argmax(0)]
    other = torch.tensor([0, 2, 3])[shares[[0, 2, 3]].argmax(0)]
    expected = torch.where(together > threshold, spine, other)
    clear = (together - threshold).abs() > 1e-5
    assert (found == expected)[clear].all()


@pytest.mark.parametrize("weight", [None, 0.25])
def test_confidence_of_regions_is_that_of_the_most_probable_spine_region(weight):
    scores = torch.tensor([2.0, 0.5, 1.5]).view(3, 1, 1, 1).repeat(1, 1, 1, 2)
    classes = torch.tensor([[[1, 2]]], dtype=torch.uint8)
    meaning = Meaning(3, region_values=(2, 1, 3), spines=(1, 3))
    own = None if weight is None else torch.full((1, 1, 1, 2), weight)
    sure = meaning.confidence(scores if own is None else scores * own, classes, own)
    assert sure.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-1.5)), 0])


def test_where_there_is_no_spine_there_is_no_confidence():
    meaning = Meaning(2, spines=(1,))
    classes = torch.zeros((2, 2, 2), dtype=torch.uint8)
    assert not meaning.confidence(torch.ones((2, 2, 2, 2)), classes, torch.zeros(1, 2, 2, 2)).any()
