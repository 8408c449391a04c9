"""What the handlers of HTTP routes share: authorization, errors as responses, and the skeleton of a report."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiohttp import hdrs, web

from metronome.auth.authorizer import Authorizer, Permissions
from metronome.auth.client_address import ClientAddress
from metronome.errors import MetronomeError, QueryTooExpensive, RateLimited, Unauthorized
from metronome.event import IngestConfig, generate_event_ids, idempotent_event_ids
from metronome.fields import decode_percent
from metronome.intake import Intake
from metronome.protocol import Endpoint, Request, bearer_token
from metronome.scopes import Scope
from metronome.server_client import PENDING_HEADER
from metronome.stores.base import Store
from metronome.telemetry import Telemetry
from metronome.times import format_timestamp
from metronome.visibility import Visibility
from metronome.web.bodies import read_form_body
from metronome.web.budget import BodyBudget, ByteBudget
from metronome.web.limits import ConcurrencyLimiter, RateLimiter, ReportSlots
from metronome.web.negotiation import Content, cached_response
from metronome.web.problems import allow_credentials, error_response, problem_response, reply_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NamedItems = Callable[[web.Request], Collection[str]]
"""Return the items that a report is about; none if it is about all events."""
Authorize = Callable[[web.Request], Awaitable[Permissions]]
"""Return what a request may do if it is allowed, else raise `Unauthorized` or `Forbidden`."""
_IS_PUBLIC: Final = ContextVar("is_public", default=True)
"""Whether the request that is being handled comes without a key; set by `report_handler`."""
_REPORT_SECONDS: Final = 50.0
"""Less than the minute that a worker waits for the main process."""


class _RateLimited:
    """A context whose routes limit how many requests a client sends."""

    __slots__ = ()
    rates: RateLimiter
    client_address: ClientAddress
    telemetry: Telemetry

    def check_rate(self, request: web.Request, permissions: Permissions) -> None:
        """Count a request, unless its client may import.

        Raises:
            RateLimited: its client sends too many.

        """
        if Scope.IMPORT not in permissions.scopes:
            self.rates.check(self.client_address.limited_client(request))

    def count_error(self, request: web.Request, error: MetronomeError) -> MetronomeError:
        """Count a request that failed, and return the error to respond with.

        It is the same one, unless the request had no valid key, which is found before `check_rate`, and its client
        sends too many of these.
        """
        if isinstance(error, Unauthorized):
            try:
                self.rates.check(self.client_address.limited_client(request))
            except RateLimited as limited:
                error = limited
        self.telemetry.count_rejection(error)
        return error


@dataclass(frozen=True, slots=True)
class IngestContext(_RateLimited):
    """What the routes that accept events share.

    Attributes:
        intake: where events go.
        authorizer: decides what a request may do.
        client_address: finds the IP address of a request's client.
        telemetry: counts rejected requests.
        config: limits, and how events are stored.
        clock: seconds since 1970.
        budget: limits the memory of requests that are being received.
        rates: limits how many requests a client sends.

    """

    intake: Intake
    authorizer: Authorizer
    client_address: ClientAddress
    telemetry: Telemetry
    config: IngestConfig
    clock: Callable[[], float]
    budget: ByteBudget = field(default_factory=ByteBudget)
    rates: RateLimiter = field(default_factory=RateLimiter)

    def body_budget(self) -> BodyBudget:
        """Return the budget for the bodies of HTTP requests."""
        return BodyBudget(self.budget, self.client_address.resolve_request)


def build_ingest_route(endpoint: Endpoint, context: IngestContext) -> web.RouteDef:
    """Return the route of an endpoint that accepts events."""
    handler = build_ingest_handler(endpoint, context)
    # By default, the route of a GET would also accept a HEAD, and count it.
    options = {"allow_head": False} if endpoint.method == hdrs.METH_GET else {}
    return web.route(endpoint.method, endpoint.prefix + endpoint.path, handler, **options)


def build_ingest_handler(endpoint: Endpoint, context: IngestContext) -> Handler:
    """Return the handler of an endpoint that accepts events in any protocol."""
    protocol, config, authorizer = endpoint.protocol, context.config, context.authorizer
    event_ids = generate_event_ids()

    async def handle(request: web.Request) -> web.Response:
        ingest_request = Request(
            body=b"",
            content_type="",
            max_events=config.batch_max_events,
            method=request.method,
            path=request.rel_url.raw_path[len(endpoint.prefix) :],
            query=request.rel_url.raw_query_string,
            headers=request.headers,
            client_ip=context.client_address.resolve_request(request),
            received_at=format_timestamp(datetime.fromtimestamp(context.clock(), UTC)),
            event_ids=event_ids,
            config=config,
        )

        async def authorize(token: str) -> None:
            nonlocal ingest_request
            permissions = await authorizer.authorize(
                endpoint.scope,
                token,
                request.headers.get("Origin", ""),
                is_local=context.client_address.is_local(request),
                ignore_invalid_key=endpoint.ignore_invalid_key,
            )
            context.check_rate(request, permissions)
            ingest_request = ingest_request._replace(is_trusted=Scope.IMPORT in permissions.scopes)

        try:
            # Before the body: nobody's bytes are read who may not send.
            early_token = protocol.extract_key(ingest_request)
            if early_token or not endpoint.key_in_body:
                await authorize(early_token)
            body, media_type = await read_form_body(request, config.body_max_bytes)
            ingest_request = ingest_request._replace(body=body, content_type=media_type)
            if idempotency_key := request.headers.get("Idempotency-Key"):
                ingest_request = ingest_request._replace(
                    event_ids=idempotent_event_ids(idempotency_key, request.rel_url.raw_path_qs, body)
                )
            if endpoint.key_in_body and not early_token:
                await authorize(protocol.extract_key(ingest_request))
            response = reply_response(await context.intake.ingest(protocol, ingest_request))
        except MetronomeError as error:
            error = context.count_error(request, error)
            response = error_response(error, protocol.reply_error(ingest_request, error))
        return allow_credentials(request, response) if endpoint.allow_credentials else response

    return handle


def parse_item_id(request: web.Request, prefix: str, suffix: str = "") -> str:
    """Return the item ID of a request's path; it may hold slashes and any Unicode.

    Args:
        request: the request.
        prefix: what precedes the ID in the path, such as ``/tock/``.
        suffix: what follows it, such as ``.json``.

    """
    path = request.rel_url.raw_path.partition("?")[0]
    return decode_percent(path).removeprefix(prefix).removesuffix(suffix)


@dataclass(frozen=True, slots=True)
class QueryContext(_RateLimited):
    """What the routes that return reports share.

    Attributes:
        store: runs the queries.
        authorizer: decides what a request may do.
        client_address: finds the IP address of a request's client.
        telemetry: counts rejected requests and measures reports.
        clock: seconds since 1970.
        limiter: limits how many expensive queries run at once.
        visibility: waits for accepted events; None to never wait.
        rates: limits how many requests a client sends.
        slots: those of reports; the lane of expensive ones is `limiter`.

    """

    store: Store
    authorizer: Authorizer
    client_address: ClientAddress
    telemetry: Telemetry
    clock: Callable[[], float]
    limiter: ConcurrencyLimiter = field(default_factory=ConcurrencyLimiter)
    visibility: Visibility | None = None
    rates: RateLimiter = field(default_factory=RateLimiter)
    slots: ReportSlots = field(init=False)

    def __post_init__(self) -> None:
        """Build the slots of reports around the limiter of expensive queries."""
        object.__setattr__(self, "slots", ReportSlots(self.limiter))

    @contextlib.asynccontextmanager
    async def slot(self, request: web.Request, *, is_cheap: bool = False) -> AsyncIterator[None]:
        """Hold a slot for a report while the block runs, for a limited time.

        Args:
            request: of a handler that `report_handler` has built.
            is_cheap: whether the store answers the report from its counts.

        Raises:
            Overloaded: too many other reports run.
            QueryTooExpensive: the report takes too long.

        """
        async with self.slots.acquire(request, is_public=_IS_PUBLIC.get(), is_cheap=is_cheap):
            try:
                async with asyncio.timeout(_REPORT_SECONDS):
                    yield
            except TimeoutError:
                raise QueryTooExpensive(f"the report takes over {_REPORT_SECONDS:g} s") from None

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def store_version(self) -> int:
        """Return a number that grows whenever queries see other events; always 0 without `visibility`."""
        return 0 if self.visibility is None else self.visibility.version

    def deletions(self) -> int:
        """Return how often stored events were forgotten or dropped; always 0 without `visibility`."""
        return 0 if self.visibility is None else self.visibility.deletions()

    async def wait_for(self, items: Collection[str] = ()) -> int:
        """Wait until queries see accepted events, and return how many they may not see yet.

        See `Visibility.wait_for`; call this before `limiter.acquire`, so that no slot is held meanwhile.
        """
        return 0 if self.visibility is None else await self.visibility.wait_for(items)

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
            is_local=self.client_address.is_local(request),
        )

    def require(self, scope: Scope | Callable[[web.Request], Scope], key_parameter: str = "") -> Authorize:
        """Return a function that authorizes requests.

        Args:
            scope: what requests need; or a function that finds it.
            key_parameter: a query parameter that may hold the key.

        """

        async def authorize(request: web.Request) -> Permissions:
            needed = scope if isinstance(scope, Scope) else scope(request)
            return await self.authorize(request, needed, request.query.get(key_parameter, "") if key_parameter else "")

        return authorize


def is_public(permissions: Permissions) -> bool:
    """Return whether a request with these permissions comes from neither a client with a key nor the operator."""
    return not permissions.key_name and Scope.ADMIN not in permissions.scopes


def all_items(_: web.Request) -> tuple[()]:
    """Return no item: a report about all events names none."""
    return ()


def report_handler(
    context: QueryContext,
    name: str,
    authorize: Authorize,
    run: Callable[[web.Request], Awaitable[Content]],
    *,
    named_items: NamedItems | None = all_items,
    respond: Callable[[web.Request, Content], web.Response] = cached_response,
    error_response: Callable[[MetronomeError], web.Response] = problem_response,
) -> Handler:
    """Return the handler of a report: authorize, wait for accepted events, run and measure the report, and respond.

    Args:
        context: the context of the route.
        name: label of the report in ``metronome_answer_seconds``.
        authorize: runs before any parameter is parsed.
        run: parses the parameters and returns the report; its time is measured, with any wait for a slot.
        named_items: returns the items for whose accepted events the report waits; None to not wait.
        respond: builds the response; by default one that caches must revalidate.
        error_response: builds the response for an error.

    """
    seconds = context.telemetry.report_seconds.labels(name)

    async def handle(request: web.Request) -> web.StreamResponse:
        permissions = await authorize(request)
        context.check_rate(request, permissions)
        _IS_PUBLIC.set(is_public(permissions))
        pending = 0 if named_items is None else await context.wait_for(named_items(request))
        with seconds.time():
            content = await run(request)
        response = respond(request, content)
        if pending:
            _announce_pending(response, pending)
        return response

    return handle_errors(context, handle, error_response)


def _announce_pending(response: web.Response, pending: int) -> None:
    exposed = response.headers.get(hdrs.ACCESS_CONTROL_EXPOSE_HEADERS)
    response.headers[PENDING_HEADER] = str(pending)
    response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = f"{exposed}, {PENDING_HEADER}" if exposed else PENDING_HEADER
    if "max-age" in response.headers.get(hdrs.CACHE_CONTROL, ""):
        response.headers[hdrs.CACHE_CONTROL] = "no-cache"


def handle_errors(
    context: IngestContext | QueryContext,
    handler: Handler,
    error_response: Callable[[MetronomeError], web.Response] = problem_response,
) -> Handler:
    """Return a handler that counts the errors of another one and responds with them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except MetronomeError as error:
            return error_response(context.count_error(request, error))

    return handle
