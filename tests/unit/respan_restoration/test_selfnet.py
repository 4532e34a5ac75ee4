import pickle

import numpy as np
import pytest
import torch
from scipy import ndimage as ndi
from skimage.transform import resize

from respan_common.errors import CapacityError, InputError, ModelError
from respan_common.geometry import VoxelSpacing, grow, relative, shape_of, whole
from respan_restoration import selfnet
from respan_restoration.selfnet import SelfNet, axial_weights, interpolate, load_network

CONVOLUTIONS = ["model.1", *(f"model.{n}" for n in (3, 5)), "model.13", "model.15", "model.18"]
BLOCKS = [f"model.{n}.conv_block.{m}" for n in range(7, 13) for m in (1, 4)]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def passing_network(row=3, column=3):
    """Hands non-negative slices through, shifted if the last kernel is off center."""
    network = SelfNet().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for n, center in ((1, 3), (3, 1), (5, 1), (13, 1), (15, 1)):
            network.model[n].weight[0, 0, center, center] = 1
        network.model[18].weight[0, 0, row, column] = 1
    return network


def random_network(seed=0):
    torch.manual_seed(seed)
    return SelfNet().eval()


def ramp(shape):
    return np.random.default_rng(0).uniform(0, 1000, shape).astype(np.float32)


def test_the_network_has_the_tensors_of_respans_checkpoints():
    state = SelfNet().state_dict()
    names = {f"{layer}.{kind}" for layer in CONVOLUTIONS + BLOCKS for kind in ("weight", "bias")}
    assert set(state) == names
    assert sum(tensor.numel() for tensor in state.values()) == 597_185
    assert state["model.1.weight"].shape == (64, 1, 7, 7)
    assert state["model.18.weight"].shape == (1, 64, 7, 7)


def test_a_saved_checkpoint_is_loaded_with_its_weights(tmp_path):
    saved = random_network().state_dict()
    torch.save(saved, tmp_path / "SelfNet_Epoch_1_Batch_2.pkl")
    loaded = load_network(tmp_path / "SelfNet_Epoch_1_Batch_2.pkl").state_dict()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("save", [torch.save, lambda it, path: path.write_bytes(pickle.dumps(it))])
def test_a_checkpoint_that_carries_code_is_refused_and_not_run(tmp_path, save):
    canary = tmp_path / "canary"
    save({"model.1.weight": Canary(canary)}, tmp_path / "bad.pkl")
    with pytest.raises(ModelError, match=r"bad\.pkl is not a PyTorch state dict.*state_dict\(\)"):
        load_network(tmp_path / "bad.pkl")
    assert not canary.exists()


def test_a_whole_pickled_network_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.save(SelfNet(), tmp_path / "whole.pkl")
    with pytest.raises(ModelError, match=r"torch\.save\(network\.state_dict\(\)"):
        load_network(tmp_path / "whole.pkl")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04."])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "text.pkl").write_bytes(content)
    with pytest.raises(ModelError, match=r"text\.pkl"):
        load_network(tmp_path / "text.pkl")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no Self-Net checkpoint at .*gone\.pkl"):
        load_network(tmp_path / "gone.pkl")


def test_another_networks_weights_are_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pkl")
    with pytest.raises(ModelError, match=r"other\.pkl is not a Self-Net deblur network"):
        load_network(tmp_path / "other.pkl")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = SelfNet().state_dict()
    state["model.3.bias"][5] = float("nan")
    torch.save(state, tmp_path / "nan.pkl")
    with pytest.raises(ModelError, match=r"not finite: model\.3\.bias"):
        load_network(tmp_path / "nan.pkl")


@pytest.mark.parametrize(
    ("z_um", "x_um", "depth", "expected"),
    [(0.3, 0.1, 10, 30), (0.5, 0.13, 12, 46), (0.1, 0.1, 7, 7)],
)
def test_the_new_depth_is_the_extent_in_pixels(z_um, x_um, depth, expected):
    spacing = VoxelSpacing(z_um, x_um, x_um)
    assert selfnet.isotropic_depth(depth, spacing) == expected
    assert axial_weights(depth, spacing, 3).shape == (expected, depth)
    assert selfnet.isotropic_spacing(spacing).zyx == (x_um, x_um, x_um)


def test_pixels_that_are_not_square_are_refused():
    with pytest.raises(InputError, match="square pixels"):
        selfnet.isotropic_spacing(VoxelSpacing(1, 0.1, 0.2))


def test_a_z_finer_than_the_pixels_is_refused():
    with pytest.raises(InputError, match="leave axial_model empty"):
        selfnet.isotropic_spacing(VoxelSpacing(0.1, 0.2, 0.2))


@pytest.mark.parametrize("order", [1, 3])
def test_interpolation_by_a_whole_factor_equals_scikit_image(order):
    volume = ramp((9, 3, 4))
    ours = interpolate(volume, axial_weights(9, VoxelSpacing(0.4, 0.1, 0.1), order))
    theirs = resize(
        volume, (36, 3, 4), order=order, mode="reflect", anti_aliasing=False, clip=False
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("order", [1, 3])
def test_a_plane_keeps_its_physical_position_at_a_factor_that_is_not_whole(order):
    spacing = VoxelSpacing(0.5, 0.13, 0.13)
    centers_um = (np.arange(20) + 0.5) * spacing.z_um
    ramp_in_um = np.broadcast_to(centers_um[:, None, None], (20, 2, 2))
    restored_um = interpolate(ramp_in_um, axial_weights(20, spacing, order))[:, 0, 0]
    expected_um = (np.arange(len(restored_um)) + 0.5) * spacing.x_um
    np.testing.assert_allclose(restored_um[16:-16], expected_um[16:-16], atol=1e-3)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_constant_volume_stays_constant(depth):
    weights = axial_weights(depth, VoxelSpacing(0.37, 0.1, 0.1), 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_a_network_that_changes_nothing_leaves_the_volume_as_it_is():
    volume = ramp((12, 10, 14))
    restored = selfnet.restore_axially(passing_network(), volume, whole(volume.shape), (0, 1000))
    np.testing.assert_allclose(restored, volume, atol=1e-2)


def test_both_views_are_averaged():
    volume = ramp((8, 9, 11))
    shifting = passing_network(column=4)  # each pixel takes its right neighbour's value
    restored = selfnet.restore_axially(shifting, volume, whole(volume.shape), (0, 1000))
    along_x, along_y = np.roll(volume, -1, axis=2), np.roll(volume, -1, axis=1)
    inside = np.s_[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(restored[inside], ((along_x + along_y) / 2)[inside], atol=1e-2)


def test_a_view_is_never_turned_upside_down():
    volume = ramp((8, 9, 11))
    restored = selfnet.restore_axially(
        passing_network(row=4), volume, whole(volume.shape), (0, 1000)
    )
    np.testing.assert_allclose(restored[1:-1], np.roll(volume, -1, axis=0)[1:-1], atol=1e-2)


def test_grey_values_beyond_the_limits_are_clipped():
    volume = np.linspace(-50, 500, 8**3, dtype=np.float32).reshape(8, 8, 8)
    restored = selfnet.restore_axially(passing_network(), volume, whole(volume.shape), (100, 300))
    np.testing.assert_allclose(restored, np.clip(volume, 100, 300), atol=1e-2)


def test_a_volume_cut_into_blocks_gives_the_same_grey_values():
    volume, network = ramp((20, 60, 58)), random_network()
    everything = selfnet.restore_axially(network, volume, whole(volume.shape), (0, 1000))
    inner = (slice(0, 20), slice(25, 31), slice(24, 30))
    outer = grow(inner, (selfnet.RADIUS_VOXELS,) * 3, volume.shape)
    assert shape_of(outer) != volume.shape
    part = selfnet.restore_axially(network, volume[outer], relative(inner, outer), (0, 1000))
    np.testing.assert_allclose(part, everything[inner], atol=1e-2)


def test_batches_do_not_change_the_result(monkeypatch):
    volume, network = ramp((6, 7, 8)), random_network()
    together = selfnet.restore_axially(network, volume, whole(volume.shape), (0, 1000))
    monkeypatch.setattr(selfnet, "PIXELS_PER_BATCH", 1)
    apart = selfnet.restore_axially(network, volume, whole(volume.shape), (0, 1000))
    np.testing.assert_allclose(together, apart, atol=1e-2)


class Hungry(torch.nn.Module):
    """Fits no more than `most` slices into its memory."""

    def __init__(self, most):
        super().__init__()
        self.most, self.weight = most, torch.nn.Parameter(torch.zeros(1))

    def forward(self, slices):
        if len(slices) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return slices


def test_a_batch_too_large_for_the_memory_is_made_smaller():
    volume = ramp((6, 7, 8))
    restored = selfnet.restore_axially(Hungry(2), volume, whole(volume.shape), (0, 1000))
    np.testing.assert_allclose(restored, volume, atol=1e-2)


def test_a_memory_too_small_for_one_slice_is_an_error():
    with pytest.raises(CapacityError, match="even for one slice"):
        selfnet.restore_axially(Hungry(0), ramp((6, 7, 8)), whole((6, 7, 8)), (0, 1000))


def test_a_volume_too_thin_to_reflect_is_refused():
    with pytest.raises(InputError, match="4 voxels along every axis"):
        selfnet.restore_axially(passing_network(), ramp((3, 8, 8)), whole((3, 8, 8)), (0, 1))


def test_interpolation_agrees_with_scipys_zoom_on_smooth_data():
    smooth = ndi.gaussian_filter(ramp((12, 4, 4)), 2)
    ours = interpolate(smooth, axial_weights(12, VoxelSpacing(0.3, 0.1, 0.1), 3))
    theirs = ndi.zoom(smooth, (3, 1, 1), order=3, mode="mirror", grid_mode=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
