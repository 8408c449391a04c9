"""A `logging.Handler` by which a host's log records are events, beside its requests."""

import logging
import threading
import traceback
from typing import Any, Final

from metronome.middleware.background_sender import THREAD_NAME
from metronome.middleware.current_request import CURRENT_REQUEST, TrackedEvent
from metronome.middleware.reporter import Reporter
from metronome.middleware.stats import LOGGER_NAME

_STANDARD_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_RESERVED_FIELDS: Final = frozenset(
    {"event", "event_id", "level", "logger", "error_type", "error_stack", "@timestamp", "timestamp", "ts", "time"}
)
_SCALAR_TYPES: Final = (str, int, float, bool)


class ReportingHandler(logging.Handler):
    """Reports log records: those from `ERROR` on as ``error``, others as ``log``.

    What the clients themselves log is left out, so that no report makes another.

    Args:
        reporter: where to.
        level: the lowest that is reported.

    """

    def __init__(self, reporter: Reporter, level: int | str = logging.INFO) -> None:
        super().__init__(level)
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record; whatever is wrong with it, nothing is raised."""
        if record.name == LOGGER_NAME or record.name.startswith(f"{LOGGER_NAME}."):
            return
        if threading.current_thread().name == THREAD_NAME:
            return
        try:
            handled = CURRENT_REQUEST.get()
            during = None if handled is None else handled.snapshot()
            self.reporter.report(TrackedEvent(record.created, record_fields(record), during))
        except Exception as error:  # noqa: BLE001  # a host is not to fail because of what it logs
            self.reporter.count_error(error)


def record_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return a log record as the fields of an event.

    What was given as ``extra`` and is a text, a number or a truth value is kept under its own name; where that would
    say of the event what is not meant of it, as ``record_time``.
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
