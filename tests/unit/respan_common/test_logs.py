from __future__ import annotations

import json
import logging
import sys

from respan_common.logs import JsonFormatter


def test_a_json_line_is_one_line_and_carries_the_traceback():
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "", 1, "%s µm", (3,), sys.exc_info())
    text = JsonFormatter().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert (line["level"], line["logger"], line["message"]) == ("ERROR", "a.b", "3 µm")
    assert "ValueError: first" in line["traceback"]
