"""Import a model and die at the nth rename, as by kill -9: killed_import.py SOURCE ROOT N."""

import itertools
import os
import signal
import sys
from pathlib import Path

from respan_orchestrator.model_imports import import_model

source, root, fatal = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rename, count = os.rename, itertools.count(1)


def dying(*arguments):
    if next(count) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*arguments)


os.rename = dying
import_model(source, [root], name="mine", force=True)
