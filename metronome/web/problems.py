"""Send errors and protocols' replies as HTTP responses."""

from typing import Final

import structlog
from aiohttp import web

from metronome.errors import MetronomeError
from metronome.protocol import Protocol, Reply, Request, problem_reply

log = structlog.get_logger()

ALLOW_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}


def problem_response(error: MetronomeError) -> web.Response:
    """Return the response for an error as ``application/problem+json`` (RFC 9457)."""
    _log_operator_error(error)
    return reply_response(problem_reply(error))


def protocol_error_response(protocol: Protocol, request: Request, error: MetronomeError) -> web.Response:
    """Return the response for an error in the format of the request's protocol."""
    _log_operator_error(error)
    return reply_response(protocol.reply_error(request, error))


def reply_response(reply: Reply) -> web.Response:
    """Return a protocol's reply as a response; any origin may read it unless the reply says otherwise."""
    headers = {**ALLOW_ANY_ORIGIN, **reply.headers} if reply.headers else ALLOW_ANY_ORIGIN
    if reply.body:
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers)
    return web.Response(status=reply.status, headers=headers)


def _log_operator_error(error: MetronomeError) -> None:
    if error.public_message:
        log.warning("answered_with_error", kind=type(error).__name__, error=str(error), advice=error.advice)
