import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage as ndi

from respan_common.geometry import VoxelSpacing
from respan_quantification import arrays as seam
from respan_quantification.arrays import CupyArrays, NumpyArrays, choose_arrays

SPACING = VoxelSpacing(0.3, 0.1, 0.12)
MASKS = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=7))
ON_CPU = NumpyArrays()


@given(MASKS)
def test_components_are_numbered_by_their_first_voxel_as_scipy_does(mask):
    expected, _ = ndi.label(mask, np.ones((3, 3, 3)))
    found = ON_CPU.components26(mask)
    assert found.dtype == np.uint32
    assert np.array_equal(found, expected)


@given(MASKS.filter(lambda mask: not mask.all()))
def test_distance_inside_is_scipys_in_micrometers(mask):
    expected = ndi.distance_transform_edt(mask, sampling=SPACING.zyx)
    assert ON_CPU.inside_distance(mask, SPACING) == pytest.approx(expected, rel=1e-5)


def test_where_nothing_is_outside_there_is_no_distance():
    assert np.isinf(ON_CPU.inside_distance(np.ones((2, 3, 4), bool), SPACING)).all()


def test_a_view_that_is_not_contiguous_is_as_good_as_its_copy():
    mask = np.random.default_rng(0).random((12, 14, 16)) > 0.6
    turned = mask.transpose(2, 0, 1)[::-1]
    for work in (ON_CPU.components26, lambda m: ON_CPU.inside_distance(m, SPACING)):
        assert np.array_equal(work(turned), work(turned.copy()))


@pytest.mark.parametrize("shape", [(0, 3, 3), (1, 1, 1)])
def test_nothing_gives_nothing(shape):
    empty = np.zeros(shape, bool)
    assert ON_CPU.components26(empty).shape == shape
    assert not ON_CPU.inside_distance(empty, SPACING).any()


def test_the_processor_is_used_where_it_is_asked_for():
    chosen, warning = choose_arrays("cpu")
    assert (chosen.xp, warning) == (np, "")


@pytest.mark.parametrize(("device", "says_so"), [("auto", False), ("cuda", True)])
def test_without_cupy_the_processor_does_it_and_says_so_if_a_gpu_was_wanted(
    monkeypatch, device, says_so
):
    monkeypatch.setitem(sys.modules, "cupy", None)
    chosen, warning = choose_arrays(device)
    assert chosen.xp is np
    assert ("respan-quantification[gpu]" in warning) == says_so


class Recorded(NumpyArrays):
    """Stands for a GPU: remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def from_host(self, values):
        self.sizes.append(values.size)
        return values


def test_a_process_computes_where_it_said_but_small_arrays_stay_on_the_processor(monkeypatch):
    there = Recorded()
    monkeypatch.setattr(seam, "_here", there)
    large, small = np.zeros((64, 64, 64), bool), np.zeros((64, 64, 63), bool)
    for mask in (large, small):
        mask[1:3, 1:3, 1:3] = True
        assert seam.components26(mask).max() == 1
        assert seam.inside_distance(mask, SPACING).max() == pytest.approx(0.1)
    assert there.sizes == [large.size] * 2


def test_saying_where_to_compute_holds_for_the_whole_process(monkeypatch):
    monkeypatch.setattr(seam, "_here", Recorded())
    assert seam.compute_on("cpu") == ""
    assert not isinstance(seam.arrays_for(10**9), Recorded)


@pytest.fixture(scope="module")
def on_gpu():
    """Arrays of the GPU here; without one, these tests say so and are skipped."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return CupyArrays()


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_gpu_finds_the_same_components_and_distances(on_gpu, share):
    mask = ndi.gaussian_filter(np.random.default_rng(2).random((40, 70, 90)), 1.0)
    mask = mask > np.quantile(mask, 1 - share)
    there = on_gpu.from_host(mask)
    components = on_gpu.to_host(on_gpu.components26(there))
    assert np.array_equal(components, ON_CPU.components26(mask))
    distance = on_gpu.to_host(on_gpu.inside_distance(there, SPACING))
    assert distance == pytest.approx(ON_CPU.inside_distance(mask, SPACING), rel=1e-5, abs=1e-6)
