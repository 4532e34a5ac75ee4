"""Run the service: `RESPAN_PORT=50051 python -m respan_restoration`."""


def main() -> None:
    """Serve until SIGTERM."""
    # Here: a stage's worker is spawned, imports this module again, and needs none of that.
    from respan.v1 import restoration_pb2 as pb
    from respan.v1 import restoration_pb2_grpc as rpc
    from respan_common.serving import serve
    from respan_common.settings import ServiceSettings, from_environment
    from respan_restoration.server import RestorationServicer

    serve(
        "restoration",
        pb.DESCRIPTOR.services_by_name["RestorationService"].full_name,
        rpc.add_RestorationServiceServicer_to_server,
        RestorationServicer,
        from_environment(ServiceSettings),
    )


if __name__ == "__main__":
    main()
