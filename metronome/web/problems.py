"""Errors as answers over HTTP: the one place where an error gets its status."""

from typing import Final

import structlog
from aiohttp import web

from metronome import protocol as problems
from metronome.errors import (
    Forbidden,
    InvalidQuery,
    Malformed,
    MethodNotAllowed,
    MetronomeError,
    NotFound,
    OperatorError,
    PayloadTooLarge,
    RequestError,
    RequestTimeout,
    SpoolFull,
    Unauthorized,
    Unavailable,
    UnsupportedEncoding,
)
from metronome.protocol import Protocol, Reply, Request

log = structlog.get_logger()

_STATUS_BY_ERROR: Final[tuple[tuple[type[MetronomeError], int], ...]] = (
    (Malformed, 400),
    (InvalidQuery, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (MethodNotAllowed, 405),
    (RequestTimeout, 408),
    (PayloadTooLarge, 413),
    (UnsupportedEncoding, 415),
    (RequestError, 400),
    (SpoolFull, 503),
    (Unavailable, 503),
    (OperatorError, 503),
    (MetronomeError, 500),
)
ALLOW_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}


def http_status(error: MetronomeError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in _STATUS_BY_ERROR if isinstance(error, kind))


def problem_response(error: MetronomeError) -> web.Response:
    """Answer with an error as ``application/problem+json`` (RFC 9457)."""
    _log_operator_error(error)
    return reply_response(problems.problem_reply(error, http_status(error)))


def protocol_error_response(protocol: Protocol, request: Request, error: MetronomeError) -> web.Response:
    """Answer with an error in the way of the protocol that the request is in."""
    _log_operator_error(error)
    return reply_response(protocol.reply_error(request, error, http_status(error)))


def reply_response(reply: Reply) -> web.Response:
    """Answer over HTTP with what a dialect replies; any origin may read it unless the reply says otherwise."""
    headers = {**ALLOW_ANY_ORIGIN, **reply.headers} if reply.headers else ALLOW_ANY_ORIGIN
    if reply.body:
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers)
    return web.Response(status=reply.status, headers=headers)


def _log_operator_error(error: MetronomeError) -> None:
    if error.public_message:
        log.warning("answered_with_error", kind=type(error).__name__, error=str(error), advice=error.advice)
