"""A real server on the real segmentation contract, whose stage is a probe.

The model of a request is the behavior to show, its group the behavior's word.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import probe_stage

from respan.v1 import segmentation_pb2 as pb
from respan.v1 import segmentation_pb2_grpc as pb_grpc
from respan.v1 import stage_pb2
from respan_common.convert import from_proto
from respan_common.params import SegmentationParams
from respan_common.serving import StageHost, answering, serve
from respan_common.settings import ServiceSettings, from_environment


class Probe(pb_grpc.SegmentationServiceServicer):
    """Messages in, messages out."""

    def __init__(self, host: StageHost) -> None:
        self._host = host

    def Segment(
        self, request: pb.SegmentRequest, context: grpc.ServicerContext
    ) -> Iterator[stage_pb2.StageEvent]:
        """Show a behavior."""
        with answering(context):
            params = from_proto(request.params, SegmentationParams)
            self._host.store(request.volume.uri)
            job = probe_stage.Job(params.model, request.volume.group, self._host.settings.runtime)
            yield from self._host.stream(probe_stage.run, job, context)

    def Describe(
        self, request: stage_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> stage_pb2.DescribeResponse:
        """Say how busy."""
        with answering(context):
            return self._host.describe()


def main() -> None:
    """Serve until SIGTERM."""
    name = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name
    add = pb_grpc.add_SegmentationServiceServicer_to_server
    serve("segmentation", name, add, Probe, from_environment(ServiceSettings))
