"""Run the service: `RESPAN_PORT=50053 python -m respan_quantification`."""


def main() -> None:
    """Serve until SIGTERM."""
    # Here: a stage's worker is spawned, imports this module again, and needs none of that.
    from respan.v1 import quantification_pb2 as pb
    from respan.v1 import quantification_pb2_grpc as rpc
    from respan_common.serving import serve
    from respan_common.settings import ServiceSettings, from_environment
    from respan_quantification.server import QuantificationServicer

    serve(
        "quantification",
        pb.DESCRIPTOR.services_by_name["QuantificationService"].full_name,
        rpc.add_QuantificationServiceServicer_to_server,
        QuantificationServicer,
        from_environment(ServiceSettings),
        demands_gpu=False,  # the processor does the same work
    )


if __name__ == "__main__":
    main()
