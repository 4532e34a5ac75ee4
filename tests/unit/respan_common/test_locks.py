from __future__ import annotations

import subprocess
import sys

from respan_common.locks import exclusive

HOLDER = """
import sys, time
from pathlib import Path
from respan_common.locks import exclusive
with exclusive(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(1000)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    path = tmp_path / "folder" / "stage.lock"
    path.parent.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    waited = []

    def check() -> None:
        waited.append(1)
        holder.kill()

    with exclusive(path, check):
        assert waited
    holder.communicate()


def test_a_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        with exclusive(tmp_path / "x.lock", lambda: None):
            pass
