"""Run the service: `RESPAN_PORT=50052 python -m respan_segmentation`."""


def main() -> None:
    """Serve until SIGTERM."""
    # Here: a stage's worker is spawned, imports this module again, and needs none of that.
    from respan.v1 import segmentation_pb2 as pb
    from respan.v1 import segmentation_pb2_grpc as rpc
    from respan_common.serving import serve
    from respan_common.settings import ServiceSettings, from_environment
    from respan_segmentation.server import SegmentationServicer

    serve(
        "segmentation",
        pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name,
        rpc.add_SegmentationServiceServicer_to_server,
        SegmentationServicer,
        from_environment(ServiceSettings),
    )


if __name__ == "__main__":
    main()
