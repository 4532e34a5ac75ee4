"""The orchestrator's side of a call, in a process of its own: two stages of one image.

`python caller.py HOST:PORT FOLDER IMAGE`; behaves as the probe's behaviors say.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from respan.v1 import segmentation_pb2 as pb
from respan.v1 import segmentation_pb2_grpc as pb_grpc
from respan_common.logs import configure_logging
from respan_orchestrator.analysis import call_stage
from respan_orchestrator.clients import Request, StageFailedError
from respan_orchestrator.services import ServicePool
from respan_orchestrator.settings import OrchestratorSettings
from respan_orchestrator.watching import watched_image


def main() -> None:
    """Call a stage that works, and one that refuses."""
    address, folder, image = sys.argv[1:]
    configure_logging("DEBUG", as_json=True)
    settings = OrchestratorSettings(segmentation_address=address)
    with ServicePool(settings, [Path(folder)]) as pool, watched_image("run 7", image):
        for stage, word in (("work", "0.1"), ("raise", "InputError")):
            message = pb.SegmentRequest(
                volume={"uri": f"{folder}/x.ome.zarr", "group": word}, params={"model": stage}
            )
            stub = pb_grpc.SegmentationServiceStub
            with suppress(StageFailedError):
                call_stage(image, stage, Request("segmentation", stub, "Segment", message), pool)


if __name__ == "__main__":
    main()
