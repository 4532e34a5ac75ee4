"""Ask a service whether it is well: `python -m respan_common.health [HOST:PORT]`.

Exit code 0 if it serves, 1 if not. This is what containers are probed with, so it imports little.
"""

from __future__ import annotations

import os
import socket
import sys

_TIMEOUT_S = 5.0


def is_serving(address: str, timeout_s: float = _TIMEOUT_S) -> bool:
    """Whether the gRPC server at host:port says that it serves; False if nothing answers."""
    # A starting container is probed every few seconds, and importing gRPC is most of a probe.
    if not is_listening(address, timeout_s):
        return False
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def is_listening(address: str, timeout_s: float = _TIMEOUT_S) -> bool:
    """Whether anything accepts connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout_s).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Probe the address given, or the service that this environment describes."""
    port = os.environ.get("RESPAN_PORT", "50051")
    address = sys.argv[1] if len(sys.argv) > 1 else f"127.0.0.1:{port}"
    # A certificate names the host that callers use, which is not the loopback address, and may
    # demand one of theirs: with TLS, the probe asks for no more than an open port.
    well = is_listening if os.environ.get("RESPAN_TLS_CERTIFICATE") else is_serving
    sys.exit(0 if well(address) else 1)


if __name__ == "__main__":
    main()
