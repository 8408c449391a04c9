"""Send errors and protocols' replies as HTTP responses."""

from typing import Final

import structlog
from aiohttp import web

from metronome.errors import MetronomeError
from metronome.protocol import Reply, problem_reply

log = structlog.get_logger()

ALLOW_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}


def allow_credentials(request: web.Request, response: web.Response) -> web.Response:
    """Let the page that sent a request read the response though the browser sent cookies with it, as beacons do.

    Only for routes that accept events: none of them reads cookies. Browsers do not accept ``*`` for such requests.
    """
    response.headers.update(credentials_headers(request.headers.get("Origin", "")))
    return response


def credentials_headers(origin: str) -> dict[str, str]:
    """Return the headers that allow an origin to send cookies; none for an invalid origin."""
    if not (origin and origin.isascii() and origin.isprintable()):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}


def problem_response(error: MetronomeError) -> web.Response:
    """Return the response for an error as ``application/problem+json`` (RFC 9457)."""
    return error_response(error, problem_reply(error))


def error_response(error: MetronomeError, reply: Reply) -> web.Response:
    """Return a protocol's reply to an error as a response, and log an error that only the operator can fix."""
    if error.public_message:
        log.warning("answered_with_error", kind=type(error).__name__, error=str(error), advice=error.advice)
    return reply_response(reply)


def reply_response(reply: Reply) -> web.Response:
    """Return a protocol's reply as a response; any origin may read it unless the reply says otherwise."""
    headers = {**ALLOW_ANY_ORIGIN, **reply.headers} if reply.headers else ALLOW_ANY_ORIGIN
    if reply.body:
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type, headers=headers)
    return web.Response(status=reply.status, headers=headers)
