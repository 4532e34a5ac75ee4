"""Segment an image of a store, and look at what was found."""

from pathlib import Path

import numpy as np
from tests.unit.respan_segmentation.prediction import textured

from respan_common.drafts import drafting_store
from respan_common.events import SilentReporter
from respan_common.geometry import VoxelSpacing
from respan_common.params import SegmentationParams
from respan_common.records import StageKey
from respan_common.settings import Runtime
from respan_common.volumes import open_volume
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.stage import run

CPU = Runtime(device="cpu", threads=1)
SPACING = VoxelSpacing(1.0, 0.12, 0.12)
IMAGE = textured((10, 60, 50))


def publish(store, images, group=""):
    """A new store with one image group; every image is one channel."""
    with drafting_store(store, StageKey("ingest", {}), SilentReporter()) as draft:
        names = [str(n) for n in range(len(images))]
        writer = draft.image(group, (len(images), *images[0].shape), SPACING, np.uint16, names)
        for n, values in enumerate(images):
            writer.write(tuple(slice(0, size) for size in values.shape), values, n + 1)
        draft.publish()
    return store


def segment(store, model, report=None, group="", runtime=CPU, region=None, **params):
    # As in single precision, so that results can be compared; every tile, as nothing is empty.
    exactly = {"precision": "full", "skip_empty": False}
    params = {"channel": 2, "model": str(model)} | exactly | params
    wanted = SegmentationParams(**params)
    refiner = Path(wanted.refinement_model) if wanted.refinement_model else None
    job = SegmentationJob(store, group, model, wanted, runtime, refiner, region)
    return run(job, report or SilentReporter())


def classes_of(store):
    return open_volume(store, "labels/classes").read()


def rows_of(start, stop):
    return (slice(0, 6), slice(start, stop), slice(0, 40))


def in_an_empty_surround(image):
    """The image inside an ellipsoid; 0 outside."""
    places = np.meshgrid(*[np.linspace(-1.1, 1.2, size) for size in image.shape], indexing="ij")
    return np.where(sum(place**2 for place in places) < 1, image, 0).astype(image.dtype)
