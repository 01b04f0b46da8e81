"""Logs: one JSON object a line, or a readable line, each with the id of the request that it belongs to."""

import json
import logging
import math
import sys
import time
from contextvars import ContextVar
from typing import Literal

request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")  # where requests are traced


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if _id_of(record):
            entry["request_id"] = _id_of(record)
            if trace_id.get():
                entry["trace_id"] = trace_id.get()
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        line = super().formatMessage(record)
        return f"{line} [{_id_of(record)}]" if _id_of(record) else line


def _id_of(record: logging.LogRecord) -> str:
    """The request that a line is about: the one given with it, or the one that this task answers."""
    given: str | None = getattr(record, "request_id", None)
    return request_id.get() if given is None else given


def log_for_request(log: logging.Logger, concerned: str, message: str, error: BaseException) -> None:
    """An error of the request ``concerned``, with its cause; for work that is not done in the request's own task."""
    cause = error.__cause__ or error
    log.error("%s: %s", message, cause, exc_info=cause, extra={"request_id": concerned})


class LimitedLog:
    """Lines that may come by the thousand: one of a kind in ``seconds``, which says how many were left out."""

    def __init__(self, log: logging.Logger, seconds: float = 10.0) -> None:
        self._log, self._seconds = log, seconds
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, kind: str, message: str, *given: object) -> None:
        """``kind`` must be one of few."""
        now = time.monotonic()
        if now - self._last.get(kind, -math.inf) < self._seconds:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        left_out = self._left_out.pop(kind, 0)
        self._last[kind] = now
        more = f" (and {left_out} more like it since the last such line)" if left_out else ""
        self._log.warning(message + "%s", *given, more)


def configure(level: str, style: Literal["auto", "json", "text"]) -> None:
    """Send everything to stderr in one form, uvicorn's own lines included."""
    handler = logging.StreamHandler(sys.stderr)
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        # The metrics count requests; a line each costs more.
        logging.getLogger(name).propagate = name != "uvicorn.access"
