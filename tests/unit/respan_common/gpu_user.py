"""A process that takes GPUs, says which, and does as it is told: `MOST SERVICE`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from respan_common import gpu_lease
from respan_common.errors import RespanError
from respan_common.events import SilentReporter
from respan_common.settings import Runtime

most = int(sys.argv[1]) or None
runtime = Runtime("auto", 1, Path(os.environ["LEASES"]), float(os.environ.get("WAIT_S", "0")))
try:
    gpu_lease.hold_gpu(sys.argv[2], runtime, SilentReporter(), most=most)
except RespanError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
print(os.environ.get("CUDA_VISIBLE_DEVICES", "as they are"), flush=True)
for line in sys.stdin:
    if "over" in line:
        gpu_lease._TURN_S = 0
    wanted = gpu_lease.is_wanted(after_turn="turn" in line)
    print("wanted" if wanted else "not wanted", flush=True)
