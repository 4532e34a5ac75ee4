"""Messages in, messages out. The work is in `stage`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc

from respan.v1 import stage_pb2
from respan.v1 import training_pb2 as pb
from respan.v1 import training_pb2_grpc as rpc
from respan_common.convert import from_proto
from respan_common.model_folders import find
from respan_common.params import NnunetTrainingParams, SynthesisParams
from respan_common.serving import StageHost, answering
from respan_training.jobs import SynthesisJob, TrainingJob
from respan_training.stage import run_synthesis, run_training


class TrainingServicer(rpc.TrainingServiceServicer):
    """Answers the calls of TrainingService."""

    def __init__(self, host: StageHost) -> None:
        self._host = host
        host.models = lambda: [
            str(path) for root in host.settings.model_roots for path in find(root)
        ]

    def Synthesize(
        self, request: pb.SynthesizeRequest, context: grpc.ServicerContext
    ) -> Iterator[stage_pb2.StageEvent]:
        """Write phantom volumes."""
        with answering(context):
            params = from_proto(request.params, SynthesisParams)
            job = SynthesisJob(self._host.data_path(request.out_uri, "out_uri"), params)
            yield from self._host.stream(run_synthesis, job, context)

    def TrainNnunet(
        self, request: pb.TrainNnunetRequest, context: grpc.ServicerContext
    ) -> Iterator[stage_pb2.StageEvent]:
        """Train a model."""
        with answering(context):
            yield from self._host.stream(run_training, self._job(request), context)

    def Describe(
        self, request: stage_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> stage_pb2.DescribeResponse:
        """Say what this service is and how busy."""
        with answering(context):
            return self._host.describe()

    def _job(self, request: pb.TrainNnunetRequest) -> TrainingJob:
        params = from_proto(request.params, NnunetTrainingParams)
        host = self._host
        start: Path | None = None
        if params.initial_model:
            start = host.model_path(params.initial_model, "params.initial_model")
        return TrainingJob(
            host.data_path(request.data_uri, "data_uri"),
            host.data_path(request.out_uri, "out_uri"),
            params,
            start,
            host.settings.runtime,
        )
