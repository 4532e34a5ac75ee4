"""Start the probe service and talk to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from tests.waiting import becomes_true

from respan.v1 import segmentation_pb2 as pb
from respan.v1 import segmentation_pb2_grpc as pb_grpc
from respan.v1 import stage_pb2

SERVICE = Path(__file__).with_name("probe_service.py")


@dataclass
class Probed:
    """A running probe service."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    @property
    def log(self) -> str:
        """What the service has logged."""
        return (self.folder / "log").read_text()

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A connection without TLS."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            yield channel

    @contextmanager
    def stub(self) -> Iterator[pb_grpc.SegmentationServiceStub]:
        """A client without TLS."""
        with self.channel() as channel:
            yield pb_grpc.SegmentationServiceStub(channel)

    def request(self, behavior: str, word: str = "") -> pb.SegmentRequest:
        """Ask for a behavior."""
        return pb.SegmentRequest(
            volume={"uri": str(self.folder / "x.ome.zarr"), "group": word},
            params={"model": behavior},
        )

    def describe(self) -> stage_pb2.DescribeResponse:
        """What the service says about itself."""
        with self.stub() as stub:
            return stub.Describe(stage_pb2.DescribeRequest(), timeout=5)

    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        answer = self.describe()
        return not answer.busy and answer.queue_length == 0

    def stop(self) -> int:
        """Exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def probe_service(folder: Path, **settings: Any) -> Iterator[Probed]:
    """A probe service whose data root is `folder`; settings by their names without prefix."""
    port_file = folder / "port"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RESPAN_")}
    environment |= {"RESPAN_DATA_ROOTS": str(folder), "RESPAN_PORT_FILE": str(port_file)}
    environment |= {f"RESPAN_{name.upper()}": str(value) for name, value in settings.items()}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, SERVICE], env=environment, stderr=log)
    try:
        ready = becomes_true(lambda: port_file.exists() or process.poll() is not None, 60)
        assert ready, "the service did not start"
        assert process.poll() is None, (folder / "log").read_text()
        yield Probed(process, int(port_file.read_text()), folder)
    finally:
        process.kill()
        process.wait()
