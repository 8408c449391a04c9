"""Errors as answers over HTTP: the one place where an error gets its status."""

from typing import Final

import structlog
from aiohttp import web

from metronome import protocol as problems
from metronome.errors import (
    Away,
    CallerError,
    Malformed,
    MetronomeError,
    NoKey,
    NoSuchPage,
    NotAllowed,
    OperatorError,
    SpoolFull,
    TooLarge,
    TooSlow,
    Unaskable,
    UnknownEncoding,
    WrongMethod,
)
from metronome.protocol import Dialect, Reply, Request

log = structlog.get_logger()

_STATUS: Final[tuple[tuple[type[MetronomeError], int], ...]] = (
    (Malformed, 400),
    (Unaskable, 400),
    (NoKey, 401),
    (NotAllowed, 403),
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
ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}


def status_of(error: MetronomeError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def problem(error: MetronomeError) -> web.Response:
    """Answer with an error as ``application/problem+json`` (RFC 9457)."""
    _log(error)
    return response(problems.problem(error, status_of(error)))


def refusal(dialect: Dialect, request: Request, error: MetronomeError) -> web.Response:
    """Answer with an error in the way of the protocol that the request is in."""
    _log(error)
    return response(dialect.refuse(request, error, status_of(error)))


def response(reply: Reply) -> web.Response:
    """Answer over HTTP with what a dialect replies; any origin may read it unless the reply says otherwise."""
    headers = {**ANY_ORIGIN, **reply.headers} if reply.headers else ANY_ORIGIN
    if reply.body:
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers)
    return web.Response(status=reply.status, headers=headers)


def _log(error: MetronomeError) -> None:
    if error.in_public:
        log.warning("answered_with_error", kind=type(error).__name__, error=str(error), advice=error.advice)
