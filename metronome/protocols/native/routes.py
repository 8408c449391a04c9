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
from metronome.web.bodies import read_form_body
from metronome.web.handlers import IngestContext
from metronome.web.problems import allow_credentials, error_response, reply_response

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_ORIGIN: Final = "Origin"
_AUTHORIZATION: Final = "Authorization"
_EMPTY_REQUEST: Final = Request(b"", "", 0)


def tick_route(context: IngestContext) -> web.RouteDef:
    """Return the route of ``POST /tick``.

    It does the same as `metronome.web.handlers.build_ingest_handler`, but prepares only the parts of a request that the
    protocol reads: most requests come without any header that identifies their sender, and are answered sooner.
    """
    authorizer, intake = context.authorizer, context.intake
    max_bytes, max_events = context.config.body_max_bytes, context.config.batch_max_events

    async def post_tick(request: web.Request) -> web.Response:
        headers = request.headers
        try:
            client_ip, permissions = "", authorizer.public_permissions
            if _identifies_sender(headers):
                client_ip = context.client_address.resolve_request(request)
            if _AUTHORIZATION in headers or authorizer.is_unrestricted or Scope.TICK not in permissions.scopes:
                permissions = await authorizer.authorize(
                    Scope.TICK,
                    bearer_token(headers),
                    headers.get(_ORIGIN, ""),
                    is_local=context.client_address.is_local(request),
                )
            context.check_rate(request, permissions)
            body, media_type = await read_form_body(request, max_bytes)
            key = headers.get(_IDEMPOTENCY_KEY)
            parsed_request = Request(
                body,
                media_type,
                max_events,
                headers=headers,
                client_ip=client_ip,
                event_ids=idempotent_event_ids(key, request.rel_url.raw_path_qs, body) if key else None,
                is_trusted=Scope.IMPORT in permissions.scopes,
            )
            response = reply_response(await intake.ingest(tick, parsed_request))
        except MetronomeError as error:
            error = context.count_error(request, error)
            response = error_response(error, tick.reply_error(_EMPTY_REQUEST, error))
        return allow_credentials(request, response) if _ORIGIN in headers else response

    return web.post("/tick", post_tick)


def _identifies_sender(headers: Mapping[str, str]) -> bool:
    return FORWARDED_HEADER in headers or _ORIGIN in headers or _AUTHORIZATION in headers
