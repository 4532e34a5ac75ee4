"""A stage that says which block it wrote, for a test that kills it.

Usage: killed_stage.py STORE SECONDS_PER_BLOCK
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from respan_common.blocks import grid
from respan_common.drafts import drafting
from respan_common.events import SilentReporter

sys.path.insert(0, str(Path(__file__).parent))
from stores import FOUR_SHARDS, KEY, SPACING, ramp


def main() -> None:
    store, pause_s = Path(sys.argv[1]), float(sys.argv[2])
    values = ramp(FOUR_SHARDS)
    print("started", flush=True)
    with drafting(store, KEY, SilentReporter()) as draft:
        if draft.finished is not None:
            print("skipped", flush=True)
            return
        labels = draft.labels("labels/classes", FOUR_SHARDS, SPACING, values.dtype)
        for block in grid(FOUR_SHARDS, labels.block_zyx):
            if not draft.is_done(str(block.number)):
                labels.write(block.inner, values[block.inner])
                draft.mark_done(str(block.number))
                print(block.number, flush=True)
                time.sleep(pause_s)
        draft.publish()
        print("published", flush=True)


if __name__ == "__main__":
    main()
