import numpy as np
import pytest
import torch

from respan_training.inference import probabilities, standardized


class Brightness(torch.nn.Module):
    """Two classes: the second is more probable where it is bright."""

    def forward(self, image):
        return torch.cat([-image, image], dim=1)


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 20, 9), (9, 5, 30)])
def test_windows_cover_an_image_of_any_size_once(shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = probabilities(Brightness(), image, [4, 8, 8])
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(-2 * image)), atol=0.01)


def test_standardized_grey_values_have_mean_0_and_deviation_1():
    grey = standardized(np.arange(60, dtype=np.uint16).reshape(3, 4, 5))
    assert grey.mean() == pytest.approx(0, abs=1e-6)
    assert grey.std() == pytest.approx(1)
    assert not standardized(np.full((2, 2, 2), 7, dtype=np.uint8)).any()
