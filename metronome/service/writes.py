"""The routes that take events."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from metronome.dialects import tick
from metronome.dialects.dialect import Request
from metronome.errors import MetronomeError
from metronome.intake import Intake
from metronome.service.bodies import read_body
from metronome.service.problems import problem
from metronome.telemetry import Telemetry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}


def tick_handler(intake: Intake, telemetry: Telemetry, max_bytes: int, max_events: int) -> Handler:
    """Make the handler of ``POST /tick``.

    Args:
        intake: where the events go.
        telemetry: where refused requests are counted.
        max_bytes: how large a body may be.
        max_events: how many events it may hold.

    """

    async def post_tick(request: web.Request) -> web.Response:
        try:
            body = await read_body(request, max_bytes)
            headers = request.headers
            content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
            read = Request(body, content_type, max_events)
            answer = await intake.take(tick, read, _printable(headers.get("Idempotency-Key", "")))
        except MetronomeError as error:
            telemetry.refuse(error)
            return problem(error)
        if answer.body:
            return web.Response(
                status=answer.status, body=answer.body, content_type=answer.content_type, headers=ANY_ORIGIN
            )
        return web.Response(status=answer.status, headers=ANY_ORIGIN)

    return post_tick


def _printable(key: str) -> str:
    """Write out the bytes of a header that are no UTF-8: they come as lone surrogates, which nothing can encode."""
    return key if key.isascii() else key.encode(errors="backslashreplace").decode()
