"""Structured logs, of Metronome and of the libraries under it."""

import logging
import sys
from typing import Final

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from metronome.config import Settings

_LOG_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(settings: Settings) -> None:
    """Log to standard error: a line of JSON for each event, or colours for people in a terminal."""
    people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, last] if not people else [*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(_LOG_LEVELS[settings.log_level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([] if people else [structlog.processors.format_exc_info]),
                last,
            ],
        )
    )
    handler.addFilter(_should_log)
    logging.basicConfig(handlers=[handler], level=max(_LOG_LEVELS[settings.log_level], logging.WARNING), force=True)
    # Each of its warnings is an error that the shipper logs with what follows from it.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)


def _should_log(record: logging.LogRecord) -> bool:
    """Leave out what is no HTTP at all: anybody can send that, as often as they like."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
