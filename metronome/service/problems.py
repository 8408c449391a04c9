"""Errors as answers over HTTP: the one place where an error gets its status."""

from typing import Final

import orjson
import structlog
from aiohttp import web

from metronome.errors import (
    Away,
    CallerError,
    Malformed,
    MetronomeError,
    NoSuchPage,
    OperatorError,
    SpoolFull,
    TooLarge,
    TooSlow,
    Unaskable,
    UnknownEncoding,
    WrongMethod,
)

log = structlog.get_logger()

_STATUS: Final[tuple[tuple[type[MetronomeError], int], ...]] = (
    (Malformed, 400),
    (Unaskable, 400),
    (NoSuchPage, 404),
    (WrongMethod, 405),
    (TooSlow, 408),
    (TooLarge, 413),
    (UnknownEncoding, 415),
    (CallerError, 400),
    (SpoolFull, 503),
    (Away, 503),
    (OperatorError, 503),
    (MetronomeError, 500),
)
_RETRY_AFTER_SECONDS: Final = 5


def status_of(error: MetronomeError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def problem(error: MetronomeError) -> web.Response:
    """Answer with an error as ``application/problem+json`` (RFC 9457)."""
    status = status_of(error)
    headers = {"Access-Control-Allow-Origin": "*"}
    if error.retry:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    name = type(error).__name__
    detail = error.in_public or f"{error}; {error.advice}"
    if error.in_public:
        log.warning("answered_with_error", kind=name, error=str(error), advice=error.advice)
    body = {
        "type": f"urn:metronome:error:{name}",
        "title": name,
        "status": status,
        # What the message quotes may hold lone surrogates, which have no bytes.
        "detail": detail.encode(errors="backslashreplace").decode(),
    }
    return web.Response(
        status=status, body=orjson.dumps(body), content_type="application/problem+json", headers=headers
    )
