"""Messages in, messages out. The work is in `stage`."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from respan.v1 import restoration_pb2 as pb
from respan.v1 import restoration_pb2_grpc as rpc
from respan.v1 import stage_pb2
from respan_common.convert import from_proto
from respan_common.errors import InputError
from respan_common.params import RestorationParams
from respan_common.serving import StageHost, answering
from respan_restoration import models
from respan_restoration.stage import RestorationJob, run


class RestorationServicer(rpc.RestorationServiceServicer):
    """Answers the calls of RestorationService."""

    def __init__(self, host: StageHost) -> None:
        self._host = host
        host.models = lambda: models.offered(host.settings.model_roots)

    def Restore(
        self, request: pb.RestoreRequest, context: grpc.ServicerContext
    ) -> Iterator[stage_pb2.StageEvent]:
        """Restore one image."""
        with answering(context):
            yield from self._host.stream(run, self._job(request), context)

    def Describe(
        self, request: stage_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> stage_pb2.DescribeResponse:
        """Say what this service is and how busy."""
        with answering(context):
            return self._host.describe()

    def _job(self, request: pb.RestoreRequest) -> RestorationJob:
        if request.volume.group:
            raise InputError(
                f"volume.group is '{request.volume.group}', but restoration starts from the raw "
                "image: leave it empty"
            )
        params = from_proto(request.params, RestorationParams)
        host = self._host
        care_models = {
            channel: str(host.model_path(path, f"params.care_models[{channel}]"))
            for channel, path in params.care_models.items()
        }
        axial_model = params.axial_model and str(
            host.model_path(params.axial_model, "params.axial_model")
        )
        resolved = params.model_copy(
            update={"care_models": care_models, "axial_model": axial_model}
        )
        return RestorationJob(host.store(request.volume.uri), resolved, host.settings.runtime)
