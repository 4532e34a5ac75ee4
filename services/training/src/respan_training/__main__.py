"""Run the service: `RESPAN_PORT=50054 python -m respan_training`."""


def main() -> None:
    """Serve until SIGTERM."""
    # Here: a stage's worker is spawned, imports this module again, and needs none of that.
    from respan.v1 import training_pb2 as pb
    from respan.v1 import training_pb2_grpc as rpc
    from respan_common.serving import serve
    from respan_common.settings import ServiceSettings, from_environment
    from respan_training.server import TrainingServicer

    serve(
        "training",
        pb.DESCRIPTOR.services_by_name["TrainingService"].full_name,
        rpc.add_TrainingServiceServicer_to_server,
        TrainingServicer,
        from_environment(ServiceSettings),
    )


if __name__ == "__main__":
    main()
