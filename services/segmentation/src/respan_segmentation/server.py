"""Messages in, messages out. The work is in `stage`."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from respan.v1 import segmentation_pb2 as pb
from respan.v1 import segmentation_pb2_grpc as rpc
from respan.v1 import stage_pb2
from respan_common.convert import from_proto
from respan_common.errors import InputError
from respan_common.geometry import Box
from respan_common.model_folders import find
from respan_common.params import SegmentationParams
from respan_common.serving import StageHost, answering
from respan_segmentation.jobs import SegmentationJob
from respan_segmentation.stage import run


class SegmentationServicer(rpc.SegmentationServiceServicer):
    """Answers the calls of SegmentationService."""

    def __init__(self, host: StageHost) -> None:
        self._host = host
        roots = host.settings.model_roots
        host.models = lambda: [str(path) for root in roots for path in find(root)]

    def Segment(
        self, request: pb.SegmentRequest, context: grpc.ServicerContext
    ) -> Iterator[stage_pb2.StageEvent]:
        """Segment one image; the stream ends with the result."""
        with answering(context):
            yield from self._host.stream(run, self._job(request), context)

    def Describe(
        self, request: stage_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> stage_pb2.DescribeResponse:
        """Say what this service is and how busy."""
        with answering(context):
            return self._host.describe()

    def _job(self, request: pb.SegmentRequest) -> SegmentationJob:
        params = from_proto(request.params, SegmentationParams)
        refiner = None
        if params.refinement_model:
            refiner = self._host.model_path(params.refinement_model, "params.refinement_model")
        return SegmentationJob(
            store=self._host.store(request.volume.uri),
            group=request.volume.group,
            model=self._host.model_path(params.model),
            params=params,
            runtime=self._host.settings.runtime,
            refinement_model=refiner,
            region=_region(request.region) if request.HasField("region") else None,
        )


def _region(message: pb.Region) -> Box:
    if len(message.start) != 3 or len(message.stop) != 3:
        raise InputError("region: start and stop must be three whole numbers each (z, y, x)")
    z, y, x = (slice(a, b) for a, b in zip(message.start, message.stop, strict=True))
    if any(part.start < 0 or part.start >= part.stop for part in (z, y, x)):
        raise InputError(
            f"region: {list(message.start)} to {list(message.stop)} holds no voxel: every start "
            "must be at least 0 and less than its stop"
        )
    return (z, y, x)
