"""The routes that take events."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import hdrs, web

from metronome.dialects import tick
from metronome.dialects.credentials import bearer
from metronome.dialects.dialect import Request
from metronome.dialects.protocols import TICK, Address
from metronome.dialects.site import Site
from metronome.errors import MetronomeError
from metronome.identities import identities_again, own_identities
from metronome.intake import Intake
from metronome.keys import Scope
from metronome.service.bodies import read_body
from metronome.service.guard import Guard
from metronome.service.problems import refusal, response
from metronome.service.senders import FORWARDED, Senders
from metronome.telemetry import Telemetry
from metronome.timestamps import stamp_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_AUTHORIZATION: Final = "Authorization"
_ORIGIN: Final = "Origin"
_NO_REQUEST: Final = Request(b"", "", 0)


@dataclass(frozen=True, slots=True)
class Doorway:
    """What every route that takes events needs.

    Attributes:
        intake: where the events go.
        guard: says who may send.
        senders: tells where a request came from.
        telemetry: where refused requests are counted.
        site: what the operator says of what they publish.
        clock: seconds since 1970.
        max_bytes: how large a body may be.
        max_events: how many events it may hold.

    """

    intake: Intake
    guard: Guard
    senders: Senders
    telemetry: Telemetry
    site: Site
    clock: Callable[[], float]
    max_bytes: int
    max_events: int


def route_of(address: Address, doorway: Doorway) -> web.RouteDef:
    """Make the route of an address that takes events."""
    handler = _tick_handler(doorway) if address is TICK else dialect_handler(address, doorway)
    # A GET's route would take a HEAD as well, and count it.
    more = {"allow_head": False} if address.method == hdrs.METH_GET else {}
    return web.route(address.method, address.prefix + address.path, handler, **more)


def dialect_handler(address: Address, doorway: Doorway) -> Handler:
    """Make the handler of an address at which any dialect is spoken."""
    dialect, guard = address.dialect, doorway.guard
    identities = own_identities()

    async def handle(request: web.Request) -> web.Response:
        again = request.headers.get(_IDEMPOTENCY_KEY)
        read = Request(
            b"",
            _content_type(request),
            doorway.max_events,
            request.method,
            request.rel_url.raw_path[len(address.prefix) :],
            request.rel_url.raw_query_string,
            request.headers,
            doorway.senders.address(request),
            stamp_of(datetime.fromtimestamp(doorway.clock(), UTC)),
            identities,
            site=doorway.site,
        )
        try:
            read = read._replace(body=await read_body(request, doorway.max_bytes))
            if again:
                read = read._replace(identities=identities_again(again, request.rel_url.raw_path_qs, read.body))
            origin = request.headers.get(_ORIGIN, "")
            grant = await guard.admit(
                address.scope, dialect.key(read), origin, sender=read.sender, lenient=address.lenient
            )
            read = read._replace(believed=Scope.IMPORT in grant.scopes)
            return response(await doorway.intake.take(dialect, read))
        except MetronomeError as error:
            doorway.telemetry.refuse(error)
            return refusal(dialect, read, error)

    return handle


def _tick_handler(doorway: Doorway) -> Handler:
    """Make the handler of ``POST /tick``: as any dialect's, but it prepares only what that one looks at."""
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
                _content_type(request),
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

    return post_tick


def _tells_of_its_sender(headers: Mapping[str, str]) -> bool:
    """Tell whether a request says who sent it; else it is of nobody in particular, from right here if all is open."""
    return FORWARDED in headers or _ORIGIN in headers or _AUTHORIZATION in headers


def _content_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
