"""What the handlers of HTTP routes share: authorization, errors as responses, and the skeleton of a report."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiohttp import hdrs, web

from metronome.auth.authorizer import Authorizer, Permissions
from metronome.auth.client_address import ClientAddress
from metronome.errors import MetronomeError
from metronome.event import IngestConfig, generate_event_ids, idempotent_event_ids
from metronome.intake import Intake
from metronome.protocol import Endpoint, Request, bearer_token
from metronome.scopes import Scope
from metronome.stores.base import Store
from metronome.telemetry import Telemetry
from metronome.times import format_timestamp
from metronome.web.bodies import read_body
from metronome.web.limits import ConcurrencyLimiter
from metronome.web.negotiation import Content, cached_response
from metronome.web.problems import error_response, problem_response, reply_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Authorize = Callable[[web.Request], Awaitable[object]]
"""Return if a request is allowed, else raise `Unauthorized` or `Forbidden`."""

_IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
_ORIGIN_HEADER: Final = "Origin"


@dataclass(frozen=True, slots=True)
class IngestContext:
    """What every route that takes events needs.

    Attributes:
        intake: where the events go.
        guard: says who may send.
        senders: tells where a request came from.
        telemetry: where refused requests are counted.
        config: limits, and how events are stored.
        clock: seconds since 1970.

    """

    intake: Intake
    authorizer: Authorizer
    client_address: ClientAddress
    telemetry: Telemetry
    config: IngestConfig
    clock: Callable[[], float]


def build_ingest_route(address: Endpoint, context: IngestContext) -> web.RouteDef:
    """Make the route of an address that takes events."""
    handler = build_ingest_handler(address, context)
    # A GET's route would take a HEAD as well, and count it.
    more = {"allow_head": False} if address.method == hdrs.METH_GET else {}
    return web.route(address.method, address.prefix + address.path, handler, **more)


def build_ingest_handler(address: Endpoint, context: IngestContext) -> Handler:
    """Make the handler of an address at which any dialect is spoken."""
    dialect, guard = address.protocol, context.authorizer
    identities = generate_event_ids()

    async def handle(request: web.Request) -> web.Response:
        again = request.headers.get(_IDEMPOTENCY_HEADER)
        read = Request(
            b"",
            content_type(request),
            context.config.batch_max_events,
            request.method,
            request.rel_url.raw_path[len(address.prefix) :],
            request.rel_url.raw_query_string,
            request.headers,
            context.client_address.resolve_request(request),
            format_timestamp(datetime.fromtimestamp(context.clock(), UTC)),
            identities,
            config=context.config,
        )
        try:
            read = read._replace(body=await read_body(request, context.config.body_max_bytes))
            if again:
                read = read._replace(event_ids=idempotent_event_ids(again, request.rel_url.raw_path_qs, read.body))
            origin = request.headers.get(_ORIGIN_HEADER, "")
            grant = await guard.authorize(
                address.scope,
                dialect.extract_key(read),
                origin,
                client_address=read.client_ip,
                ignore_invalid_key=address.ignore_invalid_key,
            )
            read = read._replace(is_trusted=Scope.IMPORT in grant.scopes)
            return reply_response(await context.intake.ingest(dialect, read))
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return error_response(error, dialect.reply_error(read, error))

    return handle


def content_type(request: web.Request) -> str:
    """Return the media type of a request in lower case, without parameters; may be empty."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class QueryContext:
    """What the routes that return reports share.

    Attributes:
        store: runs the queries.
        authorizer: decides what a request may do.
        client_address: finds the IP address of a request's client.
        telemetry: counts rejected requests and measures reports.
        clock: seconds since 1970.
        limiter: limits how many expensive queries run at once.

    """

    store: Store
    authorizer: Authorizer
    client_address: ClientAddress
    telemetry: Telemetry
    clock: Callable[[], float]
    limiter: ConcurrencyLimiter = field(default_factory=ConcurrencyLimiter)

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    async def authorize(self, request: web.Request, scope: Scope, token: str = "") -> Permissions:
        """Return what a request may do.

        Args:
            request: the request.
            scope: what it needs.
            token: a key from another place, for requests without ``Authorization``.

        Raises:
            Unauthorized: a valid key is needed.
            Forbidden: the key does not allow *scope*, or not from this origin.
            StoreUnavailable: the key is unknown, and the keys cannot be read.

        """
        return await self.authorizer.authorize(
            scope,
            bearer_token(request.headers) or token,
            request.headers.get("Origin", ""),
            client_address=self.client_address.resolve_request(request),
        )

    def require(self, scope: Scope | Callable[[web.Request], Scope], key_parameter: str = "") -> Authorize:
        """Return a function that authorizes requests.

        Args:
            scope: what requests need; or a function that finds it.
            key_parameter: a query parameter that may hold the key.

        """

        async def authorize(request: web.Request) -> None:
            needed = scope if isinstance(scope, Scope) else scope(request)
            await self.authorize(request, needed, request.query.get(key_parameter, "") if key_parameter else "")

        return authorize


def report_handler(
    context: QueryContext,
    name: str,
    authorize: Authorize,
    run: Callable[[web.Request], Awaitable[Content]],
    *,
    respond: Callable[[web.Request, Content], web.Response] = cached_response,
    error_response: Callable[[MetronomeError], web.Response] = problem_response,
) -> Handler:
    """Return the handler of a report: authorize the request, run and measure the report, and respond.

    Args:
        context: the context of the route.
        name: label of the report in ``metronome_answer_seconds``.
        authorize: runs before any parameter is parsed.
        run: parses the parameters and returns the report; its time is measured, with any wait for a slot.
        respond: builds the response; by default one that caches must revalidate.
        error_response: builds the response for an error.

    """
    seconds = context.telemetry.report_seconds.labels(name)

    async def handle(request: web.Request) -> web.StreamResponse:
        await authorize(request)
        with seconds.time():
            content = await run(request)
        return respond(request, content)

    return handle_errors(context.telemetry, handle, error_response)


def handle_errors(
    telemetry: Telemetry, handler: Handler, error_response: Callable[[MetronomeError], web.Response] = problem_response
) -> Handler:
    """Return a handler that counts the errors of another one and responds with them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except MetronomeError as error:
            telemetry.count_rejection(error)
            return error_response(error)

    return handle
