"""A card's range encloses the training's images, and no inverted one."""

from models.trained_range import _of_image, bounds

from respan_common.params import SynthesisParams
from respan_training.phantoms import make_phantom


def test_bounds_enclose_nearly_all_images():
    assert bounds([{"roughness": float(value)} for value in range(1001)]) == {
        "roughness": [1.0, 999.0]
    }


def test_a_field_may_be_emptier_and_the_model_surer_than_in_training():
    rows = [{"foreground_share": 0.02, "confidence": 0.9, "skewness": 4.0}] * 3
    found = bounds(rows)
    assert found["foreground_share"][0] == 0
    assert found["confidence"][1] == 1
    assert found["skewness"][1] > 100


def test_an_inverted_phantom_is_out_of_range():
    params = SynthesisParams(kind="two-photon", shape=[12, 96, 96], snr="mixed", seed=8)
    phantoms = [make_phantom(params, number) for number in range(4)]
    rows = [_of_image(phantom.image[0], phantom.labels, phantom.spacing) for phantom in phantoms]
    inverted = phantoms[0].image.max() - phantoms[0].image[0]
    low, _ = bounds(rows)["skewness"]
    first = phantoms[0]
    assert _of_image(inverted, first.labels, first.spacing)["skewness"] < low
