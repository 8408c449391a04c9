"""The route of ``POST /tick``."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from metronome.auth.client_address import FORWARDED_HEADER
from metronome.errors import MetronomeError
from metronome.event import idempotent_event_ids
from metronome.protocol import Request, bearer_token
from metronome.protocols.native import tick
from metronome.scopes import Scope
from metronome.web.bodies import read_body
from metronome.web.handlers import IngestContext, content_type
from metronome.web.problems import error_response, reply_response

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_AUTHORIZATION: Final = "Authorization"
_ORIGIN: Final = "Origin"
_NO_REQUEST: Final = Request(b"", "", 0)


def tick_route(context: IngestContext) -> web.RouteDef:
    """Return the route of ``POST /tick``: the general handler, but it prepares only what this protocol reads."""
    guard, intake, max_bytes, max_events = (
        context.authorizer,
        context.intake,
        context.config.body_max_bytes,
        context.config.batch_max_events,
    )

    async def post_tick(request: web.Request) -> web.Response:
        headers = request.headers
        try:
            body, sender = await read_body(request, max_bytes), ""
            grant = guard.anonymous_permissions()
            if _identifies_sender(headers) or Scope.TICK not in grant.scopes:
                sender, origin = context.client_address.resolve_request(request), headers.get(_ORIGIN, "")
                grant = await guard.authorize(Scope.TICK, bearer_token(headers), origin, client_address=sender)
            again = headers.get(_IDEMPOTENCY_KEY)
            read = Request(
                body,
                content_type(request),
                max_events,
                headers=headers,
                client_ip=sender,
                event_ids=idempotent_event_ids(again, request.rel_url.raw_path_qs, body) if again else None,
                is_trusted=Scope.IMPORT in grant.scopes,
            )
            return reply_response(await intake.ingest(tick, read))
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return error_response(error, tick.reply_error(_NO_REQUEST, error))

    return web.post("/tick", post_tick)


def _identifies_sender(headers: Mapping[str, str]) -> bool:
    """Tell whether a request says who sent it; else it is of nobody in particular, from right here if all is open."""
    return FORWARDED_HEADER in headers or _ORIGIN in headers or _AUTHORIZATION in headers
