"""The route of ``POST /tick``."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from metronome.auth.client_address import FORWARDED
from metronome.errors import MetronomeError
from metronome.event import identities_again
from metronome.protocol import Request, bearer
from metronome.protocols.native import tick
from metronome.scopes import Scope
from metronome.web.bodies import read_body
from metronome.web.handlers import Doorway, content_type
from metronome.web.problems import refusal, response

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_AUTHORIZATION: Final = "Authorization"
_ORIGIN: Final = "Origin"
_NO_REQUEST: Final = Request(b"", "", 0)


def tick_route(doorway: Doorway) -> web.RouteDef:
    """Return the route of ``POST /tick``: the general handler, but it prepares only what this protocol reads."""
    guard, intake, max_bytes, max_events = doorway.guard, doorway.intake, doorway.max_bytes, doorway.max_events

    async def post_tick(request: web.Request) -> web.Response:
        headers = request.headers
        try:
            body, sender = await read_body(request, max_bytes), ""
            grant = guard.anonymous()
            if _tells_of_its_sender(headers) or Scope.TICK not in grant.scopes:
                sender, origin = doorway.senders.address(request), headers.get(_ORIGIN, "")
                grant = await guard.admit(Scope.TICK, bearer(headers), origin, sender=sender)
            again = headers.get(_IDEMPOTENCY_KEY)
            read = Request(
                body,
                content_type(request),
                max_events,
                headers=headers,
                sender=sender,
                identities=identities_again(again, request.rel_url.raw_path_qs, body) if again else None,
                believed=Scope.IMPORT in grant.scopes,
            )
            return response(await intake.take(tick, read))
        except MetronomeError as error:
            doorway.telemetry.refuse(error)
            return refusal(tick, _NO_REQUEST, error)

    return web.post("/tick", post_tick)


def _tells_of_its_sender(headers: Mapping[str, str]) -> bool:
    """Tell whether a request says who sent it; else it is of nobody in particular, from right here if all is open."""
    return FORWARDED in headers or _ORIGIN in headers or _AUTHORIZATION in headers
