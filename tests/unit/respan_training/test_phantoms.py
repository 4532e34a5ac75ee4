from dataclasses import replace

import numpy as np
import pytest
import trimesh

from respan_common.errors import CapacityError, InputError
from respan_common.geometry import VoxelSpacing
from respan_common.params import SynthesisParams
from respan_common.schemes import SCHEMES
from respan_training.phantoms import field, make_phantom, scene, swc_text
from respan_training.phantoms.field import Field
from respan_training.phantoms.paths import Path
from respan_training.phantoms.phantom import picture
from respan_training.phantoms.recipe import draw_recipe
from respan_training.phantoms.scene import Dendrite, Scene, draw_scene
from respan_training.phantoms.solids import Spheroid, together, tube
from respan_training.phantoms.spines import Spine
from respan_training.phantoms.surfaces import spine_surface

SMALL = [
    SynthesisParams(kind="confocal", shape=[24, 128, 128], seed=3),
    SynthesisParams(kind="two-photon", shape=[16, 128, 128], seed=3),
    SynthesisParams(kind="two-photon", shape=[16, 120, 128], snr="mixed", seed=4),
    SynthesisParams(kind="confocal", shape=[40, 96, 96], spacing_um=[0.1, 0.1, 0.1], snr="easy"),
    SynthesisParams(kind="confocal", shape=[24, 96, 96], snr="mixed", channels=2, seed=5),
]
HEAD, DENDRITE, SOMA, NECK = 1, 2, 3, 4


@pytest.fixture(scope="module", params=range(len(SMALL)), ids=lambda i: f"{SMALL[i].kind}-{i}")
def phantom(request):
    return make_phantom(SMALL[request.param], 1)


def test_images_and_labels_have_one_shape(phantom):
    assert phantom.image.shape[1:] == phantom.labels.shape == phantom.instances.shape
    assert phantom.image.dtype in (np.uint8, np.uint16)
    assert (phantom.labels.dtype, phantom.instances.dtype) == (np.uint8, np.uint32)
    assert phantom.image[0].std() > 0


def test_numbered_voxels_are_head_or_neck_and_nothing_else(phantom):
    of_spines = np.isin(phantom.labels, (HEAD, NECK))
    np.testing.assert_array_equal(phantom.instances > 0, of_spines)


def test_exactly_the_resolvable_spines_have_voxels(phantom):
    table = phantom.spines
    counts = np.bincount(phantom.instances.ravel(), minlength=len(table) + 1)[1:]
    np.testing.assert_array_equal(counts, table.voxels)
    np.testing.assert_array_equal(counts > 0, table.resolvable)
    assert table.spine_id.tolist() == list(range(1, len(table) + 1))


def test_every_resolvable_spine_has_a_head(phantom):
    with_head = np.unique(phantom.instances[phantom.labels == HEAD])
    assert set(with_head) == set(phantom.spines.spine_id[phantom.spines.resolvable])


def test_the_table_says_as_which_spine_each_is_seen(phantom):
    seen_as = phantom.spines.seen_as.to_numpy()
    own = phantom.spines.spine_id.to_numpy()
    np.testing.assert_array_equal(seen_as == own, phantom.spines.resolvable)
    assert set(seen_as) - {0} <= set(own[phantom.spines.resolvable])


def test_every_trunk_and_branch_gives_more_light_than_any_axon(monkeypatch):
    def even(nodes_um, radius_um, *_):
        return Path(nodes_um, np.full(len(nodes_um), radius_um))

    monkeypatch.setattr(scene, "varicose", even)  # before they taper and swell
    rng = np.random.default_rng(0)
    recipe = draw_recipe(SMALL[2], rng)
    thin = replace(
        recipe.scenery, dendrites=6, dimmest=0.15, thinnest_um=0.22, thickest_um=0.23, branch=1.0
    )
    dendrites = draw_scene(replace(recipe, scenery=thin), rng).dendrites
    assert max(len(dendrite.paths) for dendrite in dendrites) == 2
    for dendrite in dendrites:
        assert dendrite.brightness * thin.thickest_um**2 >= scene.FAINTEST_UM2
        for path in dendrite.paths:
            light_um2 = dendrite.brightness * path.radius_um.max() ** 2
            assert light_um2 >= (1 - 1e-9) * scene.FAINTEST_UM2


@pytest.mark.parametrize("draw", [lambda *of: scene._draw_axon(*of)[1], scene._draw_ghost])
def test_no_fiber_that_is_not_labeled_gives_as_much_light_as_a_trunk(draw):
    rng = np.random.default_rng(0)
    field = draw_recipe(SMALL[2], rng).field
    for _ in range(50):
        cones = draw(field, rng)
        is_fiber = np.linalg.norm(cones.end_um - cones.start_um, axis=1) > 0
        light = cones.brightness * cones.start_radius_um**2
        assert 2.5 * np.median(light[is_fiber]) < scene.FAINTEST_UM2


def test_bodies_of_other_cells_lie_beside_what_is_labelled():
    rng = np.random.default_rng(0)
    recipe = draw_recipe(SMALL[2], rng)
    crowded = replace(
        recipe.scenery, dendrites=4, axons=0, ghosts=0, bumps_per_um=0, puncta_per_um3=0, bodies=60
    )
    drawn = draw_scene(replace(recipe, scenery=crowded), rng)
    bodies = drawn.distractors
    assert len(bodies) > 60, "none but a few were left"
    assert bodies.brightness.max() <= 1
    assert np.median(bodies.brightness[bodies.start_radius_um > 0.5]) < 0.15
    for spine in drawn.spines:
        away_um = np.linalg.norm(bodies.start_um - spine.head.center_um, axis=1)
        assert (away_um > bodies.start_radius_um).all()
    for path in (path for dendrite in drawn.dendrites for path in dendrite.paths):
        away_um = np.linalg.norm(bodies.start_um[:, None] - path.nodes_um, axis=2)
        assert (away_um > bodies.start_radius_um[:, None] + path.radius_um).all()


@pytest.mark.parametrize("snr", ["easy", "typical", "hard", "extreme"])
@pytest.mark.parametrize("kind", ["confocal", "two-photon"])
def test_presets_have_no_bodies_of_other_cells(kind, snr):
    params = SynthesisParams(kind=kind, snr=snr)
    assert draw_recipe(params, np.random.default_rng(0)).scenery.bodies == 0


def test_labels_of_a_spine_lie_at_the_spine(phantom):
    for row in phantom.spines[phantom.spines.resolvable].itertuples():
        at_um = phantom.spacing.points_um(np.argwhere(phantom.instances == row.spine_id))
        nearest_um = np.linalg.norm(at_um - (row.z_um, row.y_um, row.x_um), axis=1).min()
        assert nearest_um < row.length_um + phantom.spacing.z_um


def test_centerlines_lie_in_labels(phantom):
    for centerline in phantom.centerlines:
        index = np.rint(centerline[:, :3] / phantom.spacing.zyx).astype(int)
        found = phantom.labels[tuple(index.T)]
        assert (found > 0).all()
        assert not len(found) or np.isin(found, (DENDRITE, SOMA)).mean() > 0.9


def test_centerlines_are_as_long_as_the_table_says(phantom):
    for row, line in zip(phantom.dendrites.itertuples(), phantom.centerlines, strict=True):
        parents = line[:, 4].astype(int)
        steps_um = (line[:, :3] - line[parents, :3])[parents >= 0]
        # Clipping at the faces loses at most one step at each end of each branch.
        length_um = np.linalg.norm(steps_um, axis=1).sum()
        assert length_um <= row.length_um + 0.3
        assert length_um >= row.length_um - 0.6 * row.branches - 0.6
        assert row.length_um <= row.path_length_um


def test_parents_come_before_their_children(phantom):
    for line in phantom.centerlines:
        assert (line[:, 4] < np.arange(len(line))).all()


def test_swc_has_one_row_per_node_in_x_y_z_order(phantom):
    rows = [line.split() for line in swc_text(phantom).splitlines() if not line.startswith("#")]
    nodes = np.concatenate(phantom.centerlines)
    assert [int(row[0]) for row in rows] == list(range(1, len(nodes) + 1))
    assert all(int(row[6]) < int(row[0]) for row in rows)
    numbers = np.array([[float(value) for value in row[2:6]] for row in rows]).reshape(-1, 4)
    np.testing.assert_allclose(numbers, nodes[:, [2, 1, 0, 3]], atol=1e-4)


def test_the_same_seed_and_number_give_the_same_phantom():
    first, again = (make_phantom(SMALL[1], 7) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.spines.equals(again.spines)


@pytest.mark.parametrize("params", [SMALL[2], SMALL[4]], ids=["two-photon", "two channels"])
def test_a_phantom_is_the_same_in_pieces_and_in_files(params, monkeypatch, tmp_path):
    usual = make_phantom(params, 1)
    monkeypatch.setattr(field, "SLAB_VOXELS", 3 * 120 * 128)
    monkeypatch.setattr(field, "MOST_BYTES_IN_MEMORY", 0)
    again = make_phantom(params, 1, tmp_path)
    assert isinstance(again.labels.base, np.memmap)
    assert not any(tmp_path.iterdir())
    for part in ("image", "labels", "instances"):
        np.testing.assert_array_equal(getattr(again, part), getattr(usual, part))
    assert again.spines.equals(usual.spines)


def test_a_phantom_that_the_disk_cannot_hold_is_an_error_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(field, "MOST_BYTES_IN_MEMORY", 0)
    huge = Field((2**20, 2**20, 2**10), VoxelSpacing(1, 0.1, 0.1), tmp_path)
    with pytest.raises(CapacityError, match="GB more than the disk"):
        huge.zeros(np.float32)


def test_another_number_gives_another_phantom():
    assert (make_phantom(SMALL[1], 7).image != make_phantom(SMALL[1], 8).image).any()


def test_spacing_and_shape_are_kept_when_given():
    phantom = make_phantom(SMALL[3], 0)
    assert phantom.spacing.zyx == (0.1, 0.1, 0.1)
    assert phantom.image.shape == (1, 40, 96, 96)


def test_further_channels_shine_in_heads():
    phantom = make_phantom(SMALL[4].model_copy(update={"snr": "easy"}), 2)
    heads = phantom.labels == HEAD
    assert phantom.image.shape[0] == 2
    assert phantom.image[1][heads].mean() > 2 * phantom.image[1][phantom.labels == 0].mean()


def test_more_photons_show_more_spines():
    shares = [
        make_phantom(SMALL[1].model_copy(update={"snr": snr}), 1).spines.resolvable.mean()
        for snr in ("extreme", "easy")
    ]
    assert shares[0] < shares[1]


@pytest.fixture(scope="module", params=[SMALL[0], SMALL[1]], ids=["confocal", "two-photon"])
def in_schemes(request):
    """One phantom in each of the four label schemes."""
    params = request.param.model_copy(update={"snr": "easy"})
    return {n: make_phantom(params.model_copy(update={"label_scheme": n}), 3) for n in SCHEMES}


def test_every_scheme_says_the_same_about_the_same_image(in_schemes):
    usual = in_schemes[3]
    for scheme, phantom in in_schemes.items():
        np.testing.assert_array_equal(phantom.image, usual.image)
        np.testing.assert_array_equal(phantom.instances, usual.instances)
        for role in {"dendrite", "soma"}:
            np.testing.assert_array_equal(
                phantom.labels == SCHEMES[scheme][role], usual.labels == SCHEMES[3][role]
            )


def test_spines_of_scheme_1_have_their_necks_and_scheme_2_knows_none(in_schemes):
    spines = in_schemes[3].instances > 0
    np.testing.assert_array_equal(in_schemes[1].labels == SCHEMES[1]["spine"], spines)
    assert set(np.unique(in_schemes[2].labels)) <= {0, *SCHEMES[2].values()}
    assert not in_schemes[2].labels[spines].any()


def test_core_and_shell_of_scheme_4_make_up_the_heads(in_schemes):
    values, heads = SCHEMES[4], in_schemes[3].labels == HEAD
    core = in_schemes[4].labels == values["spine_core"]
    shell = in_schemes[4].labels == values["spine_shell"]
    np.testing.assert_array_equal(core | shell, heads)
    numbers = in_schemes[4].instances
    assert set(np.unique(numbers[core])) == set(np.unique(numbers[heads]))
    assert 0.02 < core.sum() / heads.sum() < 0.8


def test_axons_are_labelled_in_scheme_4_where_they_stand_out_of_the_noise():
    spineless = replace(scene_with_one_spine((0, 1, 0), 0.3, 0.5), spines=())
    nodes_um = np.column_stack([np.full(101, 4.0), np.full(101, 3.0), np.linspace(-6, 19, 101)])
    path = Path(nodes_um, np.full(101, 0.12))
    shares = []
    for brightness in (1.0, 1e-3):
        fiber = tube(nodes_um, path.radius_um, brightness)
        phantom = phantom_of(replace(spineless, distractors=fiber, axons=(path,)), scheme=4)
        y, x = int(3.0 / 0.102), slice(10, 120)
        shares.append((phantom.labels[4, y, x] == SCHEMES[4]["axon"]).mean())
        assert (phantom.labels[8, 64, x] == SCHEMES[4]["dendrite"]).all()
    assert shares[0] > 0.95
    assert shares[1] == 0


@pytest.mark.parametrize("towards", [(0, 1, 0), (0.6, -0.64, 0.48)])
def test_a_spines_surface_is_closed_and_holds_its_volume(towards):
    one = scene_with_one_spine(towards, 0.3, 0.5)
    mesh = as_mesh(spine_surface(one.spines[0], one.shafts))
    assert mesh.is_watertight
    head_um3, neck_um3 = 4 / 3 * np.pi * 0.3**3, np.pi * 0.075**2 * 0.5
    assert mesh.volume == pytest.approx(head_um3 + neck_um3, rel=0.02)
    np.testing.assert_allclose(mesh.vertices[:, ::-1].max(0), one.spines[0].high_um, atol=0.31)


def test_surfaces_end_at_the_shaft():
    one = scene_with_one_spine((0, 1, 0), 0.3, 0.0001)
    inside = replace(one.spines[0].head, center_um=np.array([8.0, 7.1, 6.5]))
    spine = replace(one.spines[0], head=inside)
    mesh = as_mesh(spine_surface(spine, one.shafts))
    assert mesh.is_watertight
    # The ball's middle lies on the shaft's surface: half of it stands out, and a little more as
    # the shaft is round.
    half_um3 = 2 / 3 * np.pi * 0.3**3
    assert half_um3 < mesh.volume < 1.3 * half_um3


def as_mesh(surface):
    return trimesh.Trimesh(surface.vertices_um[:, ::-1], surface.faces)


def test_surfaces_are_made_when_they_are_asked_for():
    asked = SMALL[1].model_copy(update={"meshes": True})
    phantom = make_phantom(asked, 1)
    assert len([*phantom.surfaces]) == len(phantom.spines)
    assert not [*make_phantom(SMALL[1], 1).surfaces]


def test_time_series_are_refused():
    with pytest.raises(InputError, match="1 time point"):
        make_phantom(SynthesisParams(timepoints=2), 0)


def scene_with_one_spine(towards, head_radius_um, neck_um):
    """Straight shaft along x at z = 8, y = 6.5 µm with one spine in a direction."""
    nodes_um = np.column_stack([np.full(101, 8.0), np.full(101, 6.5), np.linspace(-6, 19, 101)])
    axis = np.array(towards, dtype=float)
    base_um = np.array([8.0, 6.5, 6.5]) + 0.6 * axis
    neck = np.array([base_um, base_um + neck_um * axis])
    head = Spheroid(neck[1] + head_radius_um * axis, axis, head_radius_um, head_radius_um)
    spine = Spine(
        spine_class="thin",
        dendrite_id=1,
        position_um=12.5,
        brightness=1.0,
        base_um=base_um,
        neck_um=neck,
        neck_diameter_um=0.15,
        neck_length_um=neck_um,
        head=head,
        head_volume_um3=head.volume_um3,
        volume_um3=head.volume_um3,
        length_um=neck_um + 2 * head_radius_um,
        tip_um=head.center_um + head_radius_um * axis,
    )
    dendrite = Dendrite(1, (Path(nodes_um, np.full(101, 0.6)),), (), 1.0)
    return Scene((dendrite,), (spine,), together([]), together([]), np.zeros((0, 5)))


def phantom_of(scene, scheme=3):
    rng = np.random.default_rng(0)
    recipe = draw_recipe(SMALL[1], rng)
    detector = replace(recipe.detector, jitter_voxels=0.0)
    return picture(replace(recipe, detector=detector), scene, 1, rng, scheme)


def test_a_spine_beside_its_shaft_is_labelled_where_its_head_is():
    phantom = phantom_of(scene_with_one_spine((0, 1, 0), 0.3, 0.5))
    assert phantom.spines.resolvable.tolist() == [True]
    head = phantom.spines.iloc[0]
    index = np.rint(np.array([head.z_um, head.y_um, head.x_um]) / phantom.spacing.zyx).astype(int)
    assert phantom.labels[tuple(index)] == HEAD


def test_a_spine_hidden_above_its_shaft_is_known_but_not_labelled():
    phantom = phantom_of(scene_with_one_spine((1, 0, 0), 0.2, 0.2))
    assert phantom.spines.resolvable.tolist() == [False]
    assert not np.isin(phantom.labels, (HEAD, NECK)).any()


def test_the_shaft_label_is_about_as_wide_as_the_shaft():
    phantom = phantom_of(scene_with_one_spine((0, 1, 0), 0.3, 0.5))
    width_um = (phantom.labels[8, :, 20] == DENDRITE).sum() * phantom.spacing.y_um
    assert width_um == pytest.approx(1.2, abs=0.25)


def two_spines(apart_um):
    """Two like spines beside a shaft, with heads of 0.5 µm."""
    one = scene_with_one_spine((0, 1, 0), 0.25, 0.5)
    shift = np.array([0, 0, apart_um])
    spine = one.spines[0]
    moved = replace(
        spine,
        base_um=spine.base_um + shift,
        neck_um=spine.neck_um + shift,
        tip_um=spine.tip_um + shift,
        head=replace(spine.head, center_um=spine.head.center_um + shift),
        brightness=0.9,
    )
    return replace(one, spines=(spine, moved))


def test_spines_between_which_the_light_does_not_dip_are_one():
    phantom = phantom_of(two_spines(0.3))
    assert phantom.spines.seen_as.tolist() == [1, 1]
    assert phantom.spines.resolvable.tolist() == [True, False]
    assert phantom.spines.voxels.tolist()[1] == 0
    assert set(np.unique(phantom.instances)) == {0, 1}


def test_spines_between_which_the_light_dips_are_two():
    phantom = phantom_of(two_spines(0.9))
    assert phantom.spines.seen_as.tolist() == [1, 2]
