"""Images of another kind than a shipped model knows: the run says so."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from respan_common.drafts import drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing, whole
from respan_common.params import SegmentationParams, SynthesisParams
from respan_common.records import StageKey
from respan_common.settings import Runtime
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.stage import run
from respan_training.phantoms import make_phantom

MODELS = Path(__file__).parents[2] / "models"
KINDS = {
    "two-photon": ((20, 256, 256), VoxelSpacing(1.0, 0.102, 0.102)),
    "confocal": ((40, 256, 256), VoxelSpacing(0.15, 0.065, 0.065)),
}


def typical(kind):
    shape, spacing = KINDS[kind]
    params = SynthesisParams(
        kind=kind, shape=list(shape), spacing_um=list(spacing.zyx), snr="typical", seed=31
    )
    return make_phantom(params, 0).image[0].astype(np.float32), spacing


def inverted(image, spacing):
    return image.max() - image, spacing


def blank(image, spacing):
    dark = np.random.default_rng(0).normal(20, 3, image.shape)
    return np.clip(dark, 0, None).astype(np.float32), spacing


def blurred(image, spacing):
    """As a widefield microscope would show it: light from far above and below in every plane."""
    sigma = np.array([4.0, 1.2, 1.2]) / spacing.zyx
    noise = np.random.default_rng(1).normal(0, 1, image.shape)
    return (gaussian_filter(image, sigma) + noise).astype(np.float32), spacing


def voxels_four_times_too_large(image, spacing):
    """A small part: on the model's grid it has 64 times as many voxels."""
    return image[:8, 96:160, 96:160], VoxelSpacing(*(4 * edge for edge in spacing.zyx))


def warnings_for(folder, kind, image, spacing):
    store = folder / "image.ome.zarr"
    with drafting_store(store, StageKey("ingest", {}), SilentReporter()) as draft:
        writer = draft.image("", (1, *image.shape), spacing, np.float32, ["neuron"])
        writer.write(whole(image.shape), image)
        draft.publish()
    params = SegmentationParams(model=str(MODELS / kind))
    job = SegmentationJob(store, "", MODELS / kind, params, Runtime("cpu", 1))
    return run(job, SilentReporter()).warnings


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_like_those_of_the_training_is_segmented_without_a_word(tmp_path, kind):
    assert warnings_for(tmp_path, kind, *typical(kind)) == []


@pytest.mark.parametrize("change", [inverted, blank, blurred, voxels_four_times_too_large])
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_another_kind_is_said_to_be(tmp_path, kind, change):
    warnings = " ".join(warnings_for(tmp_path, kind, *change(*typical(kind))))
    assert "unlike what the model was trained on" in warnings or "was trained at" in warnings
