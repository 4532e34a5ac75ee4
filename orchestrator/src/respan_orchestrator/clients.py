"""Call the stage services and follow their streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from respan.v1 import (
    quantification_pb2,
    quantification_pb2_grpc,
    restoration_pb2,
    restoration_pb2_grpc,
    segmentation_pb2,
    segmentation_pb2_grpc,
    stage_pb2,
    training_pb2,
    training_pb2_grpc,
)
from respan_common.buckets import Location
from respan_common.convert import to_proto
from respan_common.errors import RETRY_AFTER, RespanError
from respan_common.params import (
    NnunetTrainingParams,
    QuantificationParams,
    RestorationParams,
    SegmentationParams,
    SynthesisParams,
)
from respan_orchestrator import encryption, watching
from respan_orchestrator.addresses import Replica
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.side_by_side import check_stopped, when_stopped

Event = stage_pb2.StageEvent
Result = stage_pb2.StageResult
Listener = Callable[[Event], None]
Stream = Iterator[Event]

_STUBS = {
    "restoration": restoration_pb2_grpc.RestorationServiceStub,
    "segmentation": segmentation_pb2_grpc.SegmentationServiceStub,
    "quantification": quantification_pb2_grpc.QuantificationServiceStub,
    "training": training_pb2_grpc.TrainingServiceStub,
}
CONNECT_TIMEOUT_S = 60.0
"""How long to wait for a service that starts."""
_LOOK_TIMEOUT_S = 3.0
_LOOK_CLOSER_S = 2.0
"""A service that is up has answered by then; else it is asked why not."""
_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class StageFailedError(RespanError):
    """A service refused a request or could not do it; the text is the service's own."""


class StageUnavailableError(StageFailedError):
    """The service or its worker went away. The same request resumes: the one failure to retry."""


class StageBugError(StageFailedError):
    """Something in the service went wrong that nobody foresaw; its log has the traceback."""


class StageBusyError(StageFailedError):
    """The service, or the GPU that it needs, is busy with others; the same request may go later."""

    def __init__(self, text: str, retry_after_s: float) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Request:
    """One stage call, ready to be sent."""

    service: str
    stub: Callable[[grpc.Channel], object]
    method: str
    message: Message
    shareable_voxels: int = 0
    """Size of the image, if several replicas may work on it at the same time."""

    def send(self, channel: grpc.Channel, settings: OrchestratorSettings) -> Stream:
        """Call the service; the stream's end is the stage's end."""
        method = getattr(self.stub(channel), self.method)
        stream: Stream = method(
            self.message, timeout=settings.stage_timeout_s, metadata=_metadata(settings)
        )
        return stream


def restore(store: Location, params: RestorationParams) -> Request:
    """Request to restore an image."""
    message = restoration_pb2.RestoreRequest(
        volume=stage_pb2.Volume(uri=str(store)),
        params=to_proto(params, restoration_pb2.RestorationParams),
    )
    return Request("restoration", restoration_pb2_grpc.RestorationServiceStub, "Restore", message)


def segment(store: Location, group: str, params: SegmentationParams, voxels: int) -> Request:
    """Request to segment an image's group ("" or "restored") of so many voxels."""
    message = segmentation_pb2.SegmentRequest(
        volume=stage_pb2.Volume(uri=str(store), group=group),
        params=to_proto(params, segmentation_pb2.SegmentationParams),
    )
    stub = segmentation_pb2_grpc.SegmentationServiceStub
    return Request("segmentation", stub, "Segment", message, _shareable(store, voxels))


def quantify(store: Location, params: QuantificationParams, voxels: int) -> Request:
    """Request to measure a segmented image of so many voxels."""
    message = quantification_pb2.QuantifyRequest(
        volume=stage_pb2.Volume(uri=str(store)),
        params=to_proto(params, quantification_pb2.QuantificationParams),
    )
    stub = quantification_pb2_grpc.QuantificationServiceStub
    return Request("quantification", stub, "Quantify", message, _shareable(store, voxels))


def _shareable(store: Location, voxels: int) -> int:
    """None where the store lies in a bucket: there, every replica has its unfinished work alone."""
    return voxels if isinstance(store, Path) else 0


def synthesize(out: Path, params: SynthesisParams) -> Request:
    """Request for phantoms."""
    message = training_pb2.SynthesizeRequest(
        out_uri=str(out), params=to_proto(params, training_pb2.SynthesisParams)
    )
    return Request("training", training_pb2_grpc.TrainingServiceStub, "Synthesize", message)


def train_nnunet(data: Path, out: Path, params: NnunetTrainingParams) -> Request:
    """Request to train, or to go on training, an nnU-Net model."""
    message = training_pb2.TrainNnunetRequest(
        data_uri=str(data),
        out_uri=str(out),
        params=to_proto(params, training_pb2.NnunetTrainingParams),
    )
    return Request("training", training_pb2_grpc.TrainingServiceStub, "TrainNnunet", message)


def follow(
    request: Request, replica: Replica, settings: OrchestratorSettings, listener: Listener
) -> Result:
    """Send a request and follow its stream to the result.

    Leaving this function in any other way (an exception in `listener`, an interrupt) closes the
    stream, and so ends the stage.

    Raises
    ------
    StageUnavailableError
        If the service cannot be reached or was lost on the way.
    StageBugError
        If something unforeseen happened in it.
    StageBusyError
        If others are first.
    StageFailedError
        If the service answered with any other status.
    """
    with opened_channel(replica.address, settings, authority=replica.authority) as channel:
        check_stopped()
        stream = request.send(channel, settings)
        cancel = getattr(stream, "cancel", lambda: None)
        try:
            with when_stopped(cancel):
                return _result_of(stream, listener)
        except grpc.RpcError as error:
            check_stopped()
            raise _failure(request.service, replica.address, error) from error
        finally:
            cancel()


def load(service: str, replica: Replica, settings: OrchestratorSettings) -> int | None:
    """Stages that a replica has to do, with those that wait; absent if it does not answer.

    One that answers with a refusal has nothing to do, as far as anybody knows: the stage that is
    sent to it will tell what is wrong.
    """
    try:
        with _channel(replica.address, settings, replica.authority) as channel:
            answer = _described(service, channel, settings, _LOOK_TIMEOUT_S)
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        is_away = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return None if is_away else 0
    return int(answer.queue_length) + int(answer.busy)


def describe(
    service: str,
    address: str,
    settings: OrchestratorSettings,
    timeout_s: float = CONNECT_TIMEOUT_S,
    authority: str = "",
) -> stage_pb2.DescribeResponse:
    """What a service says about itself.

    Raises
    ------
    StageUnavailableError
        If the service cannot be reached.
    StageFailedError
        If it does not answer that question.
    """
    with opened_channel(address, settings, timeout_s, authority) as channel:
        try:
            return _described(service, channel, settings, timeout_s)
        except grpc.RpcError as error:
            raise _failure(service, address, error) from error


def uses_gpu(service: str, replica: Replica, settings: OrchestratorSettings) -> bool:
    """Whether a service computes on a GPU, as far as it knows; raises what `describe` does."""
    answer = describe(service, replica.address, settings, authority=replica.authority)
    return answer.device.startswith("cuda")


@contextmanager
def opened_channel(
    address: str,
    settings: OrchestratorSettings,
    timeout_s: float = CONNECT_TIMEOUT_S,
    authority: str = "",
) -> Iterator[grpc.Channel]:
    """Channel to a service that answers, with TLS if the settings have it.

    Parameters
    ----------
    authority
        host:port that its certificate is for, if it is not the address.

    Raises
    ------
    StageUnavailableError
        If nobody answers in time.
    StageFailedError
        If certificates keep the two apart: waiting would not help.
    """
    channel = _channel(address, settings, authority)
    try:
        ready = grpc.channel_ready_future(channel)
        try:
            ready.result(timeout=min(_LOOK_CLOSER_S, timeout_s))
        except grpc.FutureTimeoutError:
            if problem := encryption.problem(address, settings, authority):
                raise StageFailedError(f"{address}: {problem}") from None
            _wait(ready, address, timeout_s - _LOOK_CLOSER_S)
        yield channel
    finally:
        channel.close()


def _wait(ready: grpc.Future[None], address: str, timeout_s: float) -> None:
    try:
        ready.result(timeout=max(timeout_s, 0.0))
    except grpc.FutureTimeoutError as error:
        raise StageUnavailableError(
            f"nothing answers at {address}: is the service up? (`respan status` tells)"
        ) from error


def ailment(
    address: str,
    settings: OrchestratorSettings,
    timeout_s: float = _LOOK_TIMEOUT_S,
    authority: str = "",
) -> str:
    """What is wrong with a service; empty if it is healthy. Does not wait for one that starts."""
    try:
        with _channel(address, settings, authority) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except StageFailedError as error:
        return str(error)
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        silence = f"does not answer ({code.name if code else error})"
        return encryption.problem(address, settings, authority) or silence
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        return "answers that it does not serve"
    return ""


def _described(
    service: str, channel: grpc.Channel, settings: OrchestratorSettings, timeout_s: float
) -> stage_pb2.DescribeResponse:
    ask = _STUBS[service](channel).Describe
    answer: stage_pb2.DescribeResponse = ask(
        stage_pb2.DescribeRequest(), timeout=timeout_s, metadata=_metadata(settings)
    )
    return answer


def _channel(address: str, settings: OrchestratorSettings, authority: str) -> grpc.Channel:
    # By the certificate's host, not by the number that its name stands for, TLS knows a replica.
    options = [*_OPTIONS, *([("grpc.default_authority", authority)] if authority else [])]
    if settings.tls_ca is None:
        return grpc.insecure_channel(address, options)
    if problem := encryption.own_problem(settings):
        raise StageFailedError(problem)
    certificate, key = (
        path.read_bytes() if path else None
        for path in (settings.tls_client_certificate, settings.tls_client_key)
    )
    credentials = grpc.ssl_channel_credentials(settings.tls_ca.read_bytes(), key, certificate)
    return grpc.secure_channel(address, credentials, options)


def _metadata(settings: OrchestratorSettings) -> list[tuple[str, str | bytes]]:
    token = settings.token
    bearer = [("authorization", f"Bearer {token.get_secret_value()}")] if token else []
    return [*bearer, *watching.metadata()]


def _retry_after_s(error: grpc.RpcError) -> float:
    """Seconds until it is worth asking again; 0 for a refusal that is final."""
    found = [item.value for item in error.trailing_metadata() or () if item.key == RETRY_AFTER]
    try:
        return max(float(found[0]), 0.0) if found else 0.0
    except ValueError:
        return 0.0


def _result_of(stream: Stream, listener: Listener) -> Result:
    for event in stream:
        listener(event)
        if event.WhichOneof("event") == "result":
            return event.result
    raise StageFailedError("the stage ended without a result")


def _failure(service: str, address: str, error: grpc.RpcError) -> StageFailedError:
    code = error.code() if isinstance(error, grpc.Call) else None
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    if code is grpc.StatusCode.UNAVAILABLE:
        return StageUnavailableError(f"{service} at {address} went away: {text}")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return StageFailedError(f"{service} at {address}: {text}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return StageFailedError(f"{service} took longer than its deadline (RESPAN_STAGE_TIMEOUT_S)")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (wait_s := _retry_after_s(error)):
        return StageBusyError(f"{service}: {text}", wait_s)
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return StageBugError(f"{service}: {text}")
    return StageFailedError(text or str(code))
