"""Log lines as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
import time

from respan_common.call_context import about


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time (UTC), level, logger, what it is about, message, traceback if there is one."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + "Z",
            "level": record.levelname,
            "logger": record.name,
            **about(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


_seen_to: list[logging.Handler] = []


def is_configured() -> bool:
    """Whether `configure_logging` has seen to this process's lines."""
    return bool(_seen_to)


def configure_logging(level: str = "INFO", as_json: bool = False) -> None:
    """Send log lines to standard error; standard output belongs to results."""
    handler = logging.StreamHandler(sys.stderr)
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(text))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    _seen_to[:] = [handler]
