"""A `logging.Handler` that reports a host's log records as events."""

import logging
import threading
import traceback
from typing import Any, Final

from metronome.middleware.current_request import CURRENT_REQUEST, TrackedEvent
from metronome.middleware.reporter import Reporter
from metronome.middleware.transport import LOGGER_NAME, THREAD_NAME

_STANDARD_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_RESERVED_FIELDS: Final = frozenset(
    {"event", "event_id", "level", "logger", "error_type", "error_stack", "@timestamp", "timestamp", "ts", "time"}
)
_SCALAR_TYPES: Final = (str, int, float, bool)


class ReportingHandler(logging.Handler):
    """Reports log records as ``log`` events, and those of level `ERROR` and above as ``error`` events.

    Records of the middleware itself are skipped, so that a report never causes another.

    Args:
        reporter: receives the events.
        level: the lowest level to report.

    """

    def __init__(self, reporter: Reporter, level: int | str = logging.INFO) -> None:
        super().__init__(level)
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record; errors are counted, never raised."""
        if record.name == LOGGER_NAME or record.name.startswith(f"{LOGGER_NAME}."):
            return
        if threading.current_thread().name == THREAD_NAME:
            return
        try:
            request = CURRENT_REQUEST.get()
            snapshot = None if request is None else request.snapshot()
            self.reporter.report(TrackedEvent(record.created, record_fields(record), snapshot))
        except Exception as error:  # noqa: BLE001  # logging must not break the host
            self.reporter.count_error(error)


def record_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return a log record as the fields of an event.

    Values of ``extra`` that are texts, numbers or booleans keep their names, except those that an event reserves:
    ``time`` becomes ``record_time``.
    """
    fields: dict[str, Any] = {
        f"record_{name}" if name in _RESERVED_FIELDS else name: value
        for name, value in record.__dict__.items()
        if name not in _STANDARD_ATTRIBUTES and isinstance(value, _SCALAR_TYPES)
    }
    fields |= {
        "event": "error" if record.levelno >= logging.ERROR else "log",
        "message": record.getMessage(),
        "level": record.levelname,
        "logger": record.name,
    }
    if record.exc_info and record.exc_info[1] is not None:
        kind, error, trace = record.exc_info
        fields["error_type"] = (kind or type(error)).__name__
        fields["error_stack"] = "".join(traceback.format_exception(kind, error, trace))
    return fields
