"""Stage services that do nothing, but say what they were asked and answer as told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from respan.v1 import (
    quantification_pb2_grpc,
    restoration_pb2_grpc,
    segmentation_pb2_grpc,
    stage_pb2,
)

NUMBERS = {"spines": 3.0, "dendrites": 1.0, "dendrite_length_um": 9.5}


class FakeServices:
    """Answers every stage at once, or with the statuses that a test has lined up."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.requests: list[Any] = []
        self.device = "cpu"
        self.when_called: Callable[[str], None] = lambda stage: None
        self._refusals: dict[tuple[str, str], list[tuple[grpc.StatusCode, str, str]]] = {}

    def refuse(
        self,
        stage: str,
        image: str,
        status: grpc.StatusCode,
        text: str = "",
        retry_after_s: str = "",
    ) -> None:
        """Have the next call of a stage on an image end with a status."""
        refusal = (status, text, retry_after_s)
        self._refusals.setdefault((stage, image), []).append(refusal)

    def stages_of(self, image: str) -> list[str]:
        """Stages that an image was sent through, in order."""
        return [stage for stage, name in self.calls if name == image]

    def Restore(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from self._answer("restore", request, context)

    def Segment(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from self._answer("segment", request, context)

    def Quantify(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from self._answer("quantify", request, context, **NUMBERS)

    def Describe(self, request: Any, context: grpc.ServicerContext) -> stage_pb2.DescribeResponse:
        return stage_pb2.DescribeResponse(service="fake", device=self.device)

    def _answer(
        self, stage: str, request: Any, context: grpc.ServicerContext, **numbers: float
    ) -> Iterator[Any]:
        image = Path(request.volume.uri).name.removesuffix(".ome.zarr")
        self.calls.append((stage, image))
        self.requests.append(request)
        lined_up = self._refusals.get((stage, image))
        self.when_called(stage)
        if lined_up:
            status, text, retry_after_s = lined_up.pop(0)
            if retry_after_s:
                context.set_trailing_metadata((("retry-after-s", retry_after_s),))
            context.abort(status, text)
        yield stage_pb2.StageEvent(accepted=stage_pb2.Accepted(device="cpu", blocks=1))
        yield stage_pb2.StageEvent(progress=stage_pb2.Progress(done=1, total=1))
        result = stage_pb2.StageResult(numbers=numbers, seconds=0.5, warnings=[f"{stage} warns"])
        yield stage_pb2.StageEvent(result=result)


@contextmanager
def served(fake: FakeServices) -> Iterator[str]:
    """host:port where the fake answers for every service."""
    # As with real ones, a client that asks often whether they are there is no attacker.
    options = [("grpc.http2.max_ping_strikes", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    restoration_pb2_grpc.add_RestorationServiceServicer_to_server(fake, server)
    segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(fake, server)
    quantification_pb2_grpc.add_QuantificationServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
