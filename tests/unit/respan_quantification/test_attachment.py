import numpy as np
from tests.unit.respan_quantification.phantoms import FINE, TENFOLD

from respan_quantification.attachment import bases
from respan_quantification.frame import Frame
from respan_quantification.objects import Voxels
from respan_quantification.surface import Surface


def based(spines, dendrites, spacing=FINE):
    frame = Frame.of_whole(spines.shape, spacing)
    voxels = Voxels.of(spines.astype(np.uint32))
    surface = Surface.of_labels(dendrites.astype(np.uint32), frame)
    return bases(voxels, surface.nearest(voxels.index_zyx), spacing)


def empty():
    return np.zeros((2, 9, 9, 9), np.uint32)


def test_a_spine_belongs_to_the_dendrite_that_it_touches_with_most_voxels():
    spines, dendrites = empty()
    dendrites[:, 0], dendrites[4, 5, 2] = 1, 2
    spines[4, 1:5, 2:5] = 7
    assert based(spines, dendrites)[7].dendrite_id == 1


def test_a_spine_that_touches_none_belongs_to_the_nearest_in_micrometers():
    spines, dendrites = empty()
    dendrites[2], dendrites[4, :, 8] = 1, 2
    spines[4, 4, 3] = 1
    assert based(spines, dendrites, FINE)[1].dendrite_id == 1
    found = based(spines, dendrites, TENFOLD)[1]
    assert (found.dendrite_id, found.touches) == (2, False)
    assert np.isclose(found.gap_um, 0.4)


def test_a_thick_neck_stands_on_its_middle():
    spines, dendrites = empty()
    dendrites[:, 0] = 1
    spines[2:7, 1:6, 1:8] = 1
    found = based(spines, dendrites)[1]
    assert (found.voxel_zyx, found.dendrite_zyx) == ((4, 1, 4), (4, 0, 4))
    assert (found.touches, found.gap_um) == (True, 0)
