"""Requests, before they are sent."""

from pathlib import Path

from respan_common.buckets import BucketPath
from respan_common.params import QuantificationParams, SegmentationParams
from respan_orchestrator.clients import quantify, segment


def test_replicas_share_an_image_on_a_common_disk_but_not_one_in_a_bucket():
    folder, bucket = Path("/data/a.ome.zarr"), BucketPath("bucket", "a.ome.zarr")
    for store, shareable in ((folder, 1000), (bucket, 0)):
        assert segment(store, "", SegmentationParams(), 1000).shareable_voxels == shareable
        assert quantify(store, QuantificationParams(), 1000).shareable_voxels == shareable
