"""Structured logs, of Metronome and of the libraries it uses."""

import logging
import sys
from typing import Final

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from metronome.config import Settings

_LOG_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(settings: Settings) -> None:
    """Log to standard error: one JSON line per event, or colored text in a terminal."""
    is_text = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    level = _LOG_LEVELS[settings.log_level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if is_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # A line is one write: those of several workers are not to be mixed.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    remove_metadata = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_metadata, *renderers])
    )
    handler.addFilter(_should_log)
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    # Each of its warnings leads to an error that the shipper logs with its consequences.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)


def _should_log(record: logging.LogRecord) -> bool:
    """Omit requests that are not HTTP: any client can send them, as often as it likes."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
