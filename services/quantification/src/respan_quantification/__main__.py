"""Run the service: `RESPAN_PORT=50053 python -m respan_quantification`."""

from respan.v1 import quantification_pb2 as pb
from respan.v1 import quantification_pb2_grpc as rpc
from respan_common.serving import serve
from respan_common.settings import ServiceSettings, from_environment
from respan_quantification.server import QuantificationServicer


def main() -> None:
    """Serve until SIGTERM."""
    serve(
        "quantification",
        pb.DESCRIPTOR.services_by_name["QuantificationService"].full_name,
        rpc.add_QuantificationServiceServicer_to_server,
        QuantificationServicer,
        from_environment(ServiceSettings),
        demands_gpu=False,  # the processor does the same work
    )


# A stage's worker is spawned, and imports this module again.
if __name__ == "__main__":
    main()
