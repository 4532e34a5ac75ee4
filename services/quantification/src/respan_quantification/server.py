"""Messages in, messages out. The work is in `stage`."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from respan.v1 import quantification_pb2 as pb
from respan.v1 import quantification_pb2_grpc as rpc
from respan.v1 import stage_pb2
from respan_common.convert import from_proto
from respan_common.errors import InputError
from respan_common.params import QuantificationParams
from respan_common.serving import StageHost, answering
from respan_quantification.stage import QuantificationJob, run


class QuantificationServicer(rpc.QuantificationServiceServicer):
    """Answers the calls of QuantificationService."""

    def __init__(self, host: StageHost) -> None:
        self._host = host

    def Quantify(
        self, request: pb.QuantifyRequest, context: grpc.ServicerContext
    ) -> Iterator[stage_pb2.StageEvent]:
        """Find and measure all spines and dendrites of one image."""
        with answering(context):
            yield from self._host.stream(run, self._job(request), context)

    def Describe(
        self, request: stage_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> stage_pb2.DescribeResponse:
        """Say what this service is and how busy."""
        with answering(context):
            return self._host.describe()

    def _job(self, request: pb.QuantifyRequest) -> QuantificationJob:
        if request.volume.group:
            raise InputError(
                f"volume.group is '{request.volume.group}', but intensities are measured in the "
                "raw image: leave it empty"
            )
        return QuantificationJob(
            self._host.store(request.volume.uri),
            from_proto(request.params, QuantificationParams),
            self._host.settings.runtime,
        )
