"""The routes of microticks: sessions are kept in the state, events are stored, and lists come from the store."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome.auth import keys
from metronome.auth.authorizer import Authorizer, Permissions
from metronome.auth.client_address import ClientAddress
from metronome.auth.keys import Key, key_from_record
from metronome.errors import Forbidden, Malformed, MetronomeError, RequestError, Unauthorized
from metronome.event import Event, generate_event_ids
from metronome.protocol import Reply, bearer_token
from metronome.protocols.microticks import reports
from metronome.protocols.microticks.protocol import (
    INACTIVE_CONSUMER,
    INVALID_CONSUMER_KEY,
    MISSING_KEY,
    WRONG_KEY,
    error_reply,
    parse_action,
    parse_consumer_key,
    parse_fields,
    parse_tick_timestamp,
    parse_token,
    success_reply,
)
from metronome.protocols.microticks.sessions import (
    SESSION_ALREADY_STOPPED,
    SESSION_KIND,
    Session,
    build_action_event,
    build_start_event,
    build_stop_event,
    check_not_stopped,
    idempotent_event_id,
    new_token,
)
from metronome.scopes import Scope, expand_scopes
from metronome.state.base import State
from metronome.stores.base import Store
from metronome.web.bodies import read_form_body
from metronome.web.handlers import (
    Handler,
    IngestContext,
    QueryContext,
    handle_errors,
    report_handler,
)
from metronome.web.negotiation import Content, uncached_response
from metronome.web.problems import allow_credentials, error_response, reply_response

SESSIONS_PATH: Final = "/sessions"
EVENTS_PATH: Final = "/events"
LIST_PATHS: Final = (SESSIONS_PATH, EVENTS_PATH)
"""The paths of the lists."""
INGEST_PATHS: Final = (SESSIONS_PATH, f"{SESSIONS_PATH}/stop", EVENTS_PATH)

_ListQuery = Callable[[Store, reports.SessionListQuery], Awaitable[dict[str, Any]]]

_READ_KEY_NAME: Final = "microticks"


class SessionRequest(NamedTuple):
    """What a request has besides its fields.

    Attributes:
        idempotency_key: may be empty.
        origin: the web origin, or empty.
        is_local: whether it comes from this machine, and not from a page of another site.

    """

    idempotency_key: str
    origin: str
    is_local: bool


class SessionService:
    """Run the requests of exhibits; each change is in the state and on disk before the reply.

    Args:
        ingest: where events go, and who may send.
        state: where sessions are kept.

    """

    def __init__(self, ingest: IngestContext, state: State) -> None:
        self._intake = ingest.intake
        self._authorizer = ingest.authorizer
        self._state = state
        self._event_ids = generate_event_ids()

    async def start(self, fields: Mapping[str, Any], request: SessionRequest) -> Reply:
        """Start a session and reply with its token.

        The session is added to the state before its event is stored: if this is interrupted in between, nobody knows
        the token, and the session is in no report.
        """
        consumer_key = parse_consumer_key(fields)
        consumer = await self._authorize_consumer(consumer_key, request)
        session = Session(consumer.name, parse_tick_timestamp(fields))
        token = new_token(consumer_key, request.idempotency_key)
        is_new = await self._state.add(SESSION_KIND, token, session.to_record())
        if not is_new:
            session = Session.from_record(await self._state.get(SESSION_KIND, token))
        try:
            await self._store(build_start_event(token, session), session, request)
        except RequestError:
            if is_new:
                await self._state.remove(SESSION_KIND, token)
            raise
        return success_reply(token=token)

    async def add_event(self, fields: Mapping[str, Any], request: SessionRequest) -> Reply:
        """Store an action of a session and reply with its event ID."""
        token, action = parse_token(fields), parse_action(fields)
        session = Session.from_record(await self._state.get(SESSION_KIND, token))
        check_not_stopped(session)
        key = await self._load_key(session.consumer)
        if key is None or not self._authorizer.is_key_active(key):
            raise Unauthorized(INACTIVE_CONSUMER)
        event_id = (
            idempotent_event_id(token, request.idempotency_key) if request.idempotency_key else next(self._event_ids)
        )
        await self._store(build_action_event(token, session, action, event_id), session, request)
        return success_reply(event_id=event_id)

    async def stop(self, fields: Mapping[str, Any], request: SessionRequest) -> Reply:
        """Stop a session, once.

        The state has the time of the stop before the event is stored, and is marked as closed after that. So a stop
        that was interrupted is completed by the next one, and of several concurrent ones exactly one succeeds.
        """
        token, timestamp = parse_token(fields), parse_tick_timestamp(fields)
        while True:
            record = await self._state.get(SESSION_KIND, token)
            session = Session.from_record(record)
            if session.closed:
                if session.was_closed_by(request.idempotency_key):
                    return success_reply()
                raise Malformed(SESSION_ALREADY_STOPPED)
            if not session.stopped:
                session, before = session.with_stop(timestamp), session.to_record()
                if not await self._state.compare_and_swap(SESSION_KIND, token, before, session.to_record()):
                    continue
            try:
                await self._store(build_stop_event(token, session), session, request)
            except RequestError:
                await self._state.compare_and_swap(
                    SESSION_KIND, token, session.to_record(), session.without_stop().to_record()
                )
                raise
            if await self._state.compare_and_swap(
                SESSION_KIND, token, session.to_record(), session.as_closed(request.idempotency_key).to_record()
            ):
                return success_reply()

    async def _store(self, event: Event, session: Session, request: SessionRequest) -> None:
        is_trusted = await self._is_trusted(session.consumer, request)
        result = await self._intake.store([event], is_trusted=is_trusted)
        result.raise_rejection()

    async def _authorize_consumer(self, consumer_key: str, request: SessionRequest) -> Key:
        """Return the consumer's key, which is required even if anonymous clients may send."""
        key = await self._authorizer.find_key(consumer_key)
        if key is None or Scope.TICK not in expand_scopes(key.scopes):
            raise Unauthorized(INVALID_CONSUMER_KEY)
        if not self._authorizer.is_key_active(key):
            raise Unauthorized(INACTIVE_CONSUMER)
        await self._authorizer.authorize(Scope.TICK, consumer_key, request.origin, is_local=request.is_local)
        return key

    async def _is_trusted(self, consumer: str, request: SessionRequest) -> bool:
        """Return whether the consumer, or an anonymous client, may send old events."""
        if Scope.IMPORT in self._authorizer.anonymous_permissions(is_local=request.is_local).scopes:
            return True
        key = await self._load_key(consumer)
        return key is not None and self._authorizer.is_key_active(key) and Scope.IMPORT in expand_scopes(key.scopes)

    async def _load_key(self, consumer: str) -> Key | None:
        record = await self._state.get(keys.KEY_KIND, consumer)
        try:
            return None if record is None else key_from_record(consumer, record)
        except Malformed:
            return None


def build_ingest_routes(ingest: IngestContext, state: State) -> list[web.RouteDef]:
    """Return the routes that exhibits send to."""
    service = SessionService(ingest, state)
    return [
        web.post(SESSIONS_PATH, _ingest_handler(ingest, service.start)),
        web.post(f"{SESSIONS_PATH}/stop", _ingest_handler(ingest, service.stop)),
        web.post(EVENTS_PATH, _ingest_handler(ingest, service.add_event)),
    ]


def build_list_routes(context: QueryContext, read_key: str) -> list[web.RouteDef]:
    """Return the routes of the lists.

    Args:
        context: the context of the routes.
        read_key: a key that may read lists, in addition to Metronome's own; may be empty.

    """
    authorizer = _ListAuthorizer(context.authorizer, context.client_address, read_key)
    return [
        web.get(SESSIONS_PATH, _list_handler(context, authorizer, reports.SESSION_COLUMNS, reports.list_sessions)),
        web.get(EVENTS_PATH, _list_handler(context, authorizer, reports.EVENT_COLUMNS, reports.list_events)),
    ]


def _ingest_handler(
    ingest: IngestContext, operation: Callable[[Mapping[str, Any], SessionRequest], Awaitable[Reply]]
) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        ingest.check_rate(request, ingest.authorizer.public_permissions)
        body, media_type = await read_form_body(request, ingest.config.body_max_bytes)
        fields = parse_fields(body, media_type)
        session_request = SessionRequest(
            request.headers.get("Idempotency-Key", ""),
            request.headers.get("Origin", ""),
            ingest.client_address.is_local(request),
        )
        return reply_response(await operation(fields, session_request))

    handle_all = handle_errors(ingest, handle, _error_response)

    async def handle_with_credentials(request: web.Request) -> web.StreamResponse:
        response = await handle_all(request)
        return allow_credentials(request, response) if isinstance(response, web.Response) else response

    return handle_with_credentials


def _list_handler(
    context: QueryContext, authorizer: "_ListAuthorizer", columns: Mapping[str, str], run_query: _ListQuery
) -> Handler:
    async def run(request: web.Request) -> Content:
        list_query = reports.parse_list_query(request.query, columns)
        async with context.slot(request):
            entries = await run_query(context.store, list_query)
            return Content(await asyncio.to_thread(orjson.dumps, entries))

    return report_handler(
        context, "microticks", authorizer.authorize, run, respond=uncached_response, error_response=_error_response
    )


class _ListAuthorizer(NamedTuple):
    """Decide who may read lists.

    Attributes:
        authorizer: finds keys and their scopes.
        client_address: finds the IP address of a request's client.
        read_key: if it is not empty, every client needs a key.

    """

    authorizer: Authorizer
    client_address: ClientAddress
    read_key: str

    async def authorize(self, request: web.Request) -> Permissions:
        """Return what a request may do, if it may read lists.

        Raises:
            Unauthorized: it needs a key and has none, or a wrong one.

        """
        token = request.query.get("key") or bearer_token(request.headers)
        origin, is_local = request.headers.get("Origin", ""), self.client_address.is_local(request)
        if self.read_key and compare_digest(_encode_key(token), _encode_key(self.read_key)):
            return Permissions(frozenset({Scope.QUERY}), _READ_KEY_NAME)
        is_public = Scope.QUERY in self.authorizer.anonymous_permissions(is_local=is_local).scopes
        if not token and (self.read_key or not is_public):
            raise Unauthorized(MISSING_KEY)
        if self.read_key and await self.authorizer.find_key(token) is None:
            raise Unauthorized(WRONG_KEY)
        try:
            return await self.authorizer.authorize(Scope.QUERY, token, origin, is_local=is_local)
        except (Unauthorized, Forbidden):
            raise Unauthorized(WRONG_KEY) from None


def _error_response(error: MetronomeError) -> web.Response:
    return error_response(error, error_reply(error))


def _encode_key(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
