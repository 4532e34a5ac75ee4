"""Scenes whose dye, background and optics are known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage as ndi
from scipy.spatial import cKDTree

from respan_common.geometry import VoxelSpacing, grow
from respan_common.params import QuantificationParams
from respan_quantification.attachment import Base
from respan_quantification.classes import ClassImage
from respan_quantification.frame import Frame
from respan_quantification.intensity import spine_intensities
from respan_quantification.objects import Voxels
from respan_quantification.surroundings import SHAFT_UM, reach_um, resolution_um

ROLES = {"spine": 1, "dendrite": 2, "neck": 4}
FINE = VoxelSpacing(0.1, 0.1, 0.1)
CONFOCAL = VoxelSpacing(0.3, 0.1, 0.1)
PARAMS = QuantificationParams()
BACKGROUND, DYE = 100.0, 1000.0


def spines_of(classes, spacing):
    """What the measurement needs to know of the spines in a class image with one dendrite."""
    labels, _ = ndi.label((classes == 1) | (classes == 4), np.ones((3, 3, 3)))
    voxels = Voxels.of(labels.astype(np.uint32))
    shaft = np.argwhere(classes == 2)
    gap, nearest = cKDTree(shaft * spacing.zyx).query(voxels.index_zyx * spacing.zyx)
    bases = {}
    for number, rows in voxels.groups():
        row = rows.start + int(np.argmin(gap[rows]))
        foot = tuple(int(edge) for edge in shaft[nearest[row]])
        bases[number] = Base(1, True, 0.0, tuple(map(int, voxels.index_zyx[row])), foot)
    return SimpleNamespace(
        count=len(bases),
        voxels=voxels,
        in_head=classes[tuple(voxels.index_zyx.T)] == 1,
        inferred=np.zeros(len(voxels.ids), dtype=bool),
        bases=bases,
        attached=dict.fromkeys(bases, "seen"),
    )


def measured(classes, image, spacing=FINE, params=PARAMS, frame=None, spines=None, **more):
    """Columns of a class image and an image, (z, y, x) or (c, z, y, x)."""
    channels = image if image.ndim == 4 else image[None]
    return spine_intensities(
        spines or spines_of(classes, spacing),
        frame or Frame.of_whole(classes.shape, spacing),
        ClassImage(classes, ROLES),
        (classes == 2).astype(np.uint32),
        lambda channel: channels[channel - 1],
        len(channels),
        params,
        **more,
    )


def drawn(spacing, head_um=0.3, gap_um=0.5, shaft_um=0.6, size=(4.0, 5.0, 4.0)):
    """Share of each voxel that is shaft, head and neck: a tube along x, a head above it in y."""
    fold = [max(round(edge / 0.05), 1) for edge in spacing.zyx]
    shape = [round(length / edge) for length, edge in zip(size, spacing.zyx, strict=True)]
    axes = [
        (np.arange(n * k) + 0.5) * edge / k
        for n, k, edge in zip(shape, fold, spacing.zyx, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    middle, above, center = size[0] / 2, 1.4 + shaft_um + gap_um + head_um, size[2] / 2
    shaft = ((z - middle) ** 2 + (y - 1.4) ** 2 <= shaft_um**2) & (x > -1)
    head = (z - middle) ** 2 + (y - above) ** 2 + (x - center) ** 2 <= head_um**2
    stalk = ((z - middle) ** 2 + (x - center) ** 2 <= 0.08**2) & (y > 1.4) & (y < above)
    neck = stalk & ~shaft & ~head
    return [_coarse(mask, shape, fold) for mask in (shaft, head, neck)]


def _coarse(mask, shape, fold):
    cells = mask.reshape(shape[0], fold[0], shape[1], fold[1], shape[2], fold[2])
    return cells.mean((1, 3, 5))


def classes_of(shaft, head, neck):
    classes = np.where(neck > 0.3, 4, 0).astype(np.uint8)
    classes[head > 0.5] = 1
    classes[shaft > 0.5] = 2
    return classes


def scene(spacing=FINE, **shape):
    """Class image and an image without blur: background 100, dye 1000 above it."""
    classes = classes_of(*drawn(spacing, **shape))
    return classes, BACKGROUND + DYE * (classes > 0)


def test_an_image_without_blur_gives_back_what_was_put_in():
    classes, image = scene()
    found = measured(classes, image)
    spine_um3 = np.isin(classes, (1, 4)).sum() * FINE.voxel_volume_um3
    assert found["background_C1_int"] == [BACKGROUND]
    assert found["shaft_C1_mean_int"] == [BACKGROUND + DYE]
    assert found["spine_C1_shaft_ratio"] == found["head_C1_shaft_ratio"] == [1.0]
    for part in ("spine", "head", "neck"):
        assert found[f"{part}_C1_corrected_mean_int"] == [DYE]
        assert found[f"{part}_C1_max_int"] == [BACKGROUND + DYE]
    assert found["spine_C1_sum_int"] == pytest.approx([image[np.isin(classes, (1, 4))].sum()])
    assert found["spine_C1_int_density"] == pytest.approx([(BACKGROUND + DYE) * spine_um3])


def test_ratios_and_volume_do_not_depend_on_gain_and_offset():
    classes, image = scene()
    image = image + np.random.default_rng(0).normal(0, 20, image.shape)
    one, other = measured(classes, image), measured(classes, 3.5 * image + 77)
    for name in ("spine_C1_shaft_ratio", "head_C1_shaft_ratio", "spine_intensity_vol"):
        assert np.isfinite(one[name]).all()
        assert other[name] == pytest.approx(one[name], rel=1e-9)


@pytest.mark.parametrize(
    ("head_um", "gap_um"), [(0.15, 0.3), (0.2, 0.5), (0.25, 0.5), (0.3, 0.6), (0.4, 0.5)]
)
def test_light_tells_the_volume_of_a_spine_below_the_resolution(head_um, gap_um):
    blur_um = (0.7, 0.25, 0.25)
    parts = drawn(CONFOCAL, head_um=head_um, gap_um=gap_um)
    sigma = [b / 2.355 / edge for b, edge in zip(blur_um, CONFOCAL.zyx, strict=True)]
    image = BACKGROUND + DYE * ndi.gaussian_filter(sum(parts), sigma)
    classes = classes_of(*parts)
    seen = np.isin(classes, (1, 4))
    truth_um3 = (parts[1] + parts[2]).sum() * CONFOCAL.voxel_volume_um3
    params = QuantificationParams(resolution_um=list(blur_um))
    found = measured(classes, image, CONFOCAL, params)
    assert found["spine_intensity_vol"] == pytest.approx([truth_um3], rel=0.2)
    in_mask = (image[seen] - BACKGROUND).sum() / DYE * CONFOCAL.voxel_volume_um3
    assert in_mask < 0.65 * truth_um3, "what the mask holds is far less than the spine's light"


def test_a_shaft_thinner_than_the_blur_does_not_make_spines_large():
    spacing, blur_um = VoxelSpacing(0.5, 0.1, 0.1), (1.5, 0.35, 0.35)
    parts = drawn(spacing, head_um=0.4, shaft_um=0.5, size=(7.0, 5.0, 4.0))
    sigma = [b / 2.355 / edge for b, edge in zip(blur_um, spacing.zyx, strict=True)]
    image = BACKGROUND + DYE * ndi.gaussian_filter(sum(parts), sigma)
    truth_um3 = (parts[1] + parts[2]).sum() * spacing.voxel_volume_um3
    params = QuantificationParams(resolution_um=list(blur_um))
    found = measured(classes_of(*parts), image, spacing, params)
    assert found["shaft_C1_mean_int"][0] < 0.6 * (BACKGROUND + DYE)
    assert found["spine_intensity_vol"] == pytest.approx([truth_um3], rel=0.2)


def test_the_background_is_free_of_the_spines_own_blur():
    classes, image = scene(CONFOCAL)
    blurred = ndi.gaussian_filter(image, (1, 1.1, 1.1))
    found = measured(classes, blurred, CONFOCAL)
    assert found["background_C1_int"] == pytest.approx([BACKGROUND], abs=0.01 * DYE)


def test_noise_moves_the_background_by_less_than_a_tenth_of_itself():
    classes, image = scene()
    noisy = np.random.default_rng(1).poisson(image / 20).astype(np.uint8)
    found = measured(classes, noisy)
    assert found["background_C1_int"] == pytest.approx([BACKGROUND / 20], abs=0.2)
    assert found["shaft_C1_mean_int"] == pytest.approx([(BACKGROUND + DYE) / 20], rel=0.02)


def test_light_that_nobody_segmented_leaves_the_background_alone():
    classes, image = scene()
    rng = np.random.default_rng(2)
    image = image + rng.normal(0, 10, image.shape)
    image[rng.random(image.shape) < 0.15] += 500
    found = measured(classes, image)
    assert found["background_C1_int"] == pytest.approx([BACKGROUND], abs=6)


def test_the_dim_rim_of_the_shaft_does_not_count_where_there_is_enough_inside():
    classes, image = scene()
    inside = ndi.distance_transform_edt(classes == 2, sampling=FINE.zyx) > 0.1 + 1e-9
    image[(classes == 2) & ~inside] = 300
    assert measured(classes, image)["shaft_C1_mean_int"] == [BACKGROUND + DYE]


def test_a_dendrite_of_two_voxels_still_has_a_shaft():
    classes = np.zeros((20, 30, 30), np.uint8)
    classes[10:12, 10:12] = 2
    classes[10:12, 12:16, 14:16] = 1
    found = measured(classes, BACKGROUND + DYE * (classes > 0))
    assert found["shaft_C1_mean_int"] == [BACKGROUND + DYE]


def test_only_the_shaft_near_the_base_counts():
    classes, image = scene(size=(4.0, 5.0, 9.0))
    far = np.abs(np.arange(classes.shape[2]) * 0.1 - 4.45) > SHAFT_UM + 0.1
    image[:, :, far] *= 5
    assert measured(classes, image)["shaft_C1_mean_int"] == [BACKGROUND + DYE]


def test_values_that_are_no_numbers_are_left_out():
    classes, image = scene()
    whole = measured(classes, image)
    holes = np.random.default_rng(3).random(image.shape) < 0.3
    image[holes] = np.nan
    image[np.roll(holes, 1, axis=0) & ~holes & (classes != 2)] = np.inf
    image[classes == 1] = np.where(np.arange((classes == 1).sum()) % 3, 1100, np.nan)
    found = measured(classes, image)
    assert found["head_C1_mean_int"] == whole["head_C1_mean_int"]
    assert found["head_C1_sum_int"] == pytest.approx(whole["head_C1_sum_int"])
    assert found["background_C1_int"] == whole["background_C1_int"]
    assert found["shaft_C1_mean_int"] == whole["shaft_C1_mean_int"]


def test_a_part_with_more_holes_than_numbers_is_missing():
    classes, image = scene()
    image[classes == 1] = np.where(np.arange((classes == 1).sum()) % 3, np.nan, 1100)
    found = measured(classes, image)
    for name in ("mean_int", "max_int", "sum_int", "int_density", "corrected_mean_int"):
        assert np.isnan(found[f"head_C1_{name}"]).all()
    assert np.isfinite(found["neck_C1_mean_int"]).all()


def test_without_background_whatever_needs_it_is_missing():
    classes, image = scene()
    classes[classes == 0] = 9
    found = measured(classes, image)
    missing = [name for name, column in found.items() if np.isnan(column).any()]
    assert missing == [
        "spine_C1_corrected_mean_int",
        "head_C1_corrected_mean_int",
        "neck_C1_corrected_mean_int",
        "background_C1_int",
        "spine_C1_shaft_ratio",
        "head_C1_shaft_ratio",
        "spine_intensity_vol",
        "uncertainty",
    ]


def test_a_shaft_darker_than_the_background_gives_no_ratio():
    classes, image = scene()
    image[classes == 2] = 50
    found = measured(classes, image)
    for name in ("spine_C1_shaft_ratio", "head_C1_shaft_ratio", "spine_intensity_vol"):
        assert np.isnan(found[name]).all()
    assert found["spine_C1_corrected_mean_int"] == [DYE]


def test_a_spine_without_a_neck_has_no_neck_values():
    classes, image = scene(gap_um=0.0)
    classes[classes == 4] = 1
    found = measured(classes, image)
    assert all(np.isnan(found[name]).all() for name in found if name.startswith("neck_"))


def test_an_inferred_neck_has_grey_values_but_no_sum():
    classes, image = scene()
    spines = spines_of(classes, FINE)
    spines.inferred, spines.attached = ~spines.in_head, {1: "inferred"}
    found = measured(classes, image, spines=spines)
    assert found["neck_C1_mean_int"] == [BACKGROUND + DYE]
    assert np.isnan(found["neck_C1_sum_int"]).all()
    assert np.isnan(found["neck_C1_int_density"]).all()
    assert found["spine_C1_sum_int"] == found["head_C1_sum_int"]


def test_each_channel_is_measured_for_itself_and_the_neurons_gives_the_volume():
    classes, image = scene()
    channels = np.stack([np.full_like(image, 7.0), image])
    found = measured(classes, channels, params=QuantificationParams(channel=2))
    alone = measured(classes, image)
    assert found["spine_C2_sum_int"] == alone["spine_C1_sum_int"]
    assert found["spine_C1_mean_int"] == [7.0]
    assert np.isnan(found["spine_C1_shaft_ratio"]).all()
    assert found["spine_intensity_vol"] == alone["spine_intensity_vol"]


def test_uncertainty_is_the_spines_mean():
    classes, image = scene()
    doubt = np.where(np.isin(classes, (1, 4)), 0.25, 0.9).astype(np.float32)
    assert measured(classes, image, uncertainty=doubt)["uncertainty"] == [0.25]


def test_a_single_plane_has_background_and_shaft_like_any_image():
    classes, image = scene(size=(4.0, 6.0, 6.0))
    found = measured(classes[20:21], image[20:21])
    assert found["background_C1_int"] == [BACKGROUND]
    assert found["shaft_C1_mean_int"] == [BACKGROUND + DYE]
    assert found["spine_C1_shaft_ratio"] == [1.0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipping_the_image_changes_nothing(axis):
    classes, image = scene(CONFOCAL)
    image = image + np.random.default_rng(4).normal(0, 20, image.shape)
    one = measured(classes, image, CONFOCAL)
    other = measured(np.ascontiguousarray(np.flip(classes, axis)), np.flip(image, axis), CONFOCAL)
    # The spine's foot is one of several voxels equally near, so shafts may differ by one voxel.
    for name in ("spine_C1_sum_int", "background_C1_int", "head_C1_corrected_mean_int"):
        assert other[name] == pytest.approx(one[name], rel=1e-9)
    assert other["spine_intensity_vol"] == pytest.approx(one["spine_intensity_vol"], rel=0.01)


def test_a_block_that_holds_the_surroundings_gives_the_same_numbers():
    classes, image = scene(CONFOCAL, size=(6.0, 6.0, 6.0))
    image = image + np.random.default_rng(5).normal(0, 20, image.shape)
    spines = spines_of(classes, CONFOCAL)
    places = np.vstack([spines.voxels.index_zyx, spines.bases[1].dendrite_zyx])
    low, high = places.min(axis=0), places.max(axis=0)
    tight = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    pairs = zip(reach_um(CONFOCAL, PARAMS), CONFOCAL.zyx, strict=True)
    margin = tuple(int(np.ceil(length / edge)) + 1 for length, edge in pairs)
    outer = grow(tight, margin, classes.shape)
    assert np.prod([part.stop - part.start for part in outer]) < classes.size / 2
    frame = Frame(outer, outer, classes.shape, CONFOCAL)
    one = measured(classes, image, CONFOCAL, spines=spines)
    other = measured(
        classes[outer], image[outer], CONFOCAL, frame=frame, spines=_moved(spines, outer)
    )
    for name, column in one.items():
        assert np.array_equal(column, other[name], equal_nan=True), name


def _moved(spines, box):
    corner = np.array([part.start for part in box], np.int32)
    bases = {
        number: replace(
            base,
            voxel_zyx=tuple(map(int, np.subtract(base.voxel_zyx, corner))),
            dendrite_zyx=tuple(map(int, np.subtract(base.dendrite_zyx, corner))),
        )
        for number, base in spines.bases.items()
    }
    voxels = replace(spines.voxels, index_zyx=spines.voxels.index_zyx - corner)
    return SimpleNamespace(**{**vars(spines), "voxels": voxels, "bases": bases})


def test_an_image_without_spines_has_empty_columns():
    classes, image = scene()
    classes[np.isin(classes, (1, 4))] = 0
    spines = SimpleNamespace(
        count=0,
        voxels=Voxels.of(np.zeros(classes.shape, np.uint32)),
        in_head=np.zeros(0, bool),
        inferred=np.zeros(0, bool),
        bases={},
        attached={},
    )
    found = measured(classes, image, spines=spines)
    assert len(found) == 3 * 5 + 4 + 2 + 3
    assert all(column.shape == (0,) for column in found.values())


def test_the_resolution_is_two_voxels_unless_it_is_said_and_never_below_one():
    assert resolution_um(CONFOCAL, PARAMS) == pytest.approx((0.6, 0.2, 0.2))
    fine = QuantificationParams(resolution_um=[0.7, 0.05, 0.3])
    assert resolution_um(CONFOCAL, fine) == (0.7, 0.1, 0.3)
