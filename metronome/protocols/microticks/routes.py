"""Microticks over HTTP: its sessions lie in the state, its events go into the spool, its lists come from the store."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from hmac import compare_digest
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome.auth import keys
from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import ClientAddress
from metronome.auth.keys import Key, key_from_record
from metronome.errors import Forbidden, Malformed, RequestError, Unauthorized
from metronome.event import generate_event_ids
from metronome.protocol import Reply, Request, bearer_token
from metronome.protocols.microticks import reports as microticks
from metronome.protocols.microticks.protocol import (
    INACTIVE_CONSUMER,
    INVALID_CONSUMER_KEY,
    MISSING_KEY,
    WRONG_KEY,
    PreparedReplyProtocol,
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
from metronome.web.bodies import read_body
from metronome.web.handlers import Handler, IngestContext, QueryContext, handle_errors, report_handler
from metronome.web.negotiation import Content, uncached_response
from metronome.web.problems import protocol_error_response, reply_response

SESSIONS_PATH: Final = "/sessions"
EVENTS_PATH: Final = "/events"
LIST_PATHS: Final = (SESSIONS_PATH, EVENTS_PATH)
"""The addresses at which lists are read."""

_EMPTY_REQUEST: Final = Request(b"", "", 0)
_ERROR_PROTOCOL: Final = PreparedReplyProtocol()
_error_response: Final = partial(protocol_error_response, _ERROR_PROTOCOL, _EMPTY_REQUEST)

_ListQuery = Callable[[Store, microticks.SessionListQuery], Awaitable[dict[str, Any]]]


class SessionRequest(NamedTuple):
    """What is known of a request beside its fields.

    Attributes:
        again: its idempotency key, or nothing.
        origin: the web origin that it came from, or nothing.
        sender: the address that it came from, or nothing where that is not known.

    """

    idempotency_key: str
    origin: str
    client_ip: str


class SessionService:
    """Takes what exhibits send: each change is in the state and on disk before it is answered.

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
        """Start a session, and answer its token.

        It is in the state before its event is on disk: one that is cut off between has no token that anybody knows,
        and counts nowhere.
        """
        consumer_key = parse_consumer_key(fields)
        consumer = await self._authorize_consumer(consumer_key, request)
        session = Session(consumer.name, parse_tick_timestamp(fields))
        token = new_token(consumer_key, request.idempotency_key)
        is_new = await self._state.add(SESSION_KIND, token, session.to_record())
        if not is_new:
            session = Session.from_record(await self._state.get(SESSION_KIND, token))
        try:
            return await self._ingest_event(
                PreparedReplyProtocol(build_start_event(token, session), token=token), session, request
            )
        except RequestError:
            if is_new:
                await self._state.remove(SESSION_KIND, token)
            raise

    async def add_event(self, fields: Mapping[str, Any], request: SessionRequest) -> Reply:
        """Take an event of a session, and answer its identity."""
        token, happening = parse_token(fields), parse_action(fields)
        session = Session.from_record(await self._state.get(SESSION_KIND, token))
        check_not_stopped(session)
        key = await self._load_key(session.consumer)
        if key is None or not self._authorizer.is_key_active(key):
            raise Unauthorized(INACTIVE_CONSUMER)
        identity = (
            idempotent_event_id(token, request.idempotency_key) if request.idempotency_key else next(self._event_ids)
        )
        microtick = PreparedReplyProtocol(build_action_event(token, session, happening, identity), event_id=identity)
        return await self._ingest_event(microtick, session, request)

    async def stop(self, fields: Mapping[str, Any], request: SessionRequest) -> Reply:
        """Stop a session, once.

        The state has the time of the stop before its event is on disk, and learns after that it is. So whoever comes
        upon a stop that was cut off between finishes that same stop, and of several at once one is answered with yes.
        """
        token, at = parse_token(fields), parse_tick_timestamp(fields)
        while True:
            record = await self._state.get(SESSION_KIND, token)
            session = Session.from_record(record)
            if session.closed:
                if session.was_closed_by(request.idempotency_key):
                    return success_reply()
                raise Malformed(SESSION_ALREADY_STOPPED)
            if not session.stopped:
                session, before = session.with_stop(at), session.to_record()
                if not await self._state.compare_and_swap(SESSION_KIND, token, before, session.to_record()):
                    continue
            try:
                reply = await self._ingest_event(
                    PreparedReplyProtocol(build_stop_event(token, session)), session, request
                )
            except RequestError:
                await self._state.compare_and_swap(
                    SESSION_KIND, token, session.to_record(), session.without_stop().to_record()
                )
                raise
            if await self._state.compare_and_swap(
                SESSION_KIND, token, session.to_record(), session.as_closed(request.idempotency_key).to_record()
            ):
                return reply

    async def _ingest_event(self, protocol: PreparedReplyProtocol, session: Session, request: SessionRequest) -> Reply:
        believed = await self._is_trusted(session.consumer, request)
        return await self._intake.ingest(protocol, _EMPTY_REQUEST._replace(is_trusted=believed))

    async def _authorize_consumer(self, consumer_key: str, request: SessionRequest) -> Key:
        """Return the consumer of a key, which has to be one even where everyone may send without."""
        key = await self._authorizer.find_key(consumer_key)
        # What is public is not enough.
        if key is None or Scope.TICK not in expand_scopes(key.scopes):
            raise Unauthorized(INVALID_CONSUMER_KEY)
        if not self._authorizer.is_key_active(key):
            raise Unauthorized(INACTIVE_CONSUMER)
        await self._authorizer.authorize(Scope.TICK, consumer_key, request.origin, client_address=request.client_ip)
        return key

    async def _is_trusted(self, consumer: str, request: SessionRequest) -> bool:
        """Tell whether a consumer may send old events now, by the right that it has or that all have."""
        if Scope.IMPORT in self._authorizer.anonymous_permissions(request.origin, request.client_ip).scopes:
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
    """List the routes that exhibits send to."""
    exhibits = SessionService(ingest, state)
    return [
        web.post(SESSIONS_PATH, _ingest_handler(ingest, exhibits.start)),
        web.post(f"{SESSIONS_PATH}/stop", _ingest_handler(ingest, exhibits.stop)),
        web.post(EVENTS_PATH, _ingest_handler(ingest, exhibits.add_event)),
    ]


def build_list_routes(context: QueryContext, read_key: str) -> list[web.RouteDef]:
    """List the routes that answer lists.

    Args:
        context: whom to ask.
        read_key: a key that lists can be read with, beside those that were made here; empty for none.

    """
    reading = _ListAuthorizer(context.authorizer, context.client_address, read_key)
    return [
        web.get(SESSIONS_PATH, _list_handler(context, reading, microticks.SESSION_COLUMNS, microticks.list_sessions)),
        web.get(EVENTS_PATH, _list_handler(context, reading, microticks.EVENT_COLUMNS, microticks.list_events)),
    ]


def _ingest_handler(
    ingest: IngestContext, operation: Callable[[Mapping[str, Any], SessionRequest], Awaitable[Reply]]
) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        body = await read_body(request, ingest.config.body_max_bytes)
        fields = parse_fields(Request(body, request.content_type.lower(), ingest.config.batch_max_events))
        sending = SessionRequest(
            request.headers.get("Idempotency-Key", ""),
            request.headers.get("Origin", ""),
            ingest.client_address.resolve_request(request),
        )
        return reply_response(await operation(fields, sending))

    return handle_errors(ingest.telemetry, handle, _error_response)


def _list_handler(
    context: QueryContext, authorizer: "_ListAuthorizer", columns: Mapping[str, str], run_query: _ListQuery
) -> Handler:
    async def run(request: web.Request) -> Content:
        list_query = microticks.parse_list_query(request.query, columns)
        return Content(orjson.dumps(await run_query(context.store, list_query)))

    return report_handler(
        context, "microticks", authorizer.authorize, run, respond=uncached_response, error_response=_error_response
    )


class _ListAuthorizer(NamedTuple):
    """Says who may read lists.

    Attributes:
        guard: knows the keys.
        senders: tells where a request came from.
        read_key: where there is one, everyone needs a key, even where all else is open.

    """

    authorizer: Authorizer
    client_address: ClientAddress
    read_key: str

    async def authorize(self, request: web.Request) -> None:
        """Let a request pass that may read.

        Raises:
            Unauthorized: it brings no key that it needs, or a wrong one.

        """
        given = request.query.get("key") or bearer_token(request.headers)
        origin, sender = request.headers.get("Origin", ""), self.client_address.resolve_request(request)
        if self.read_key and compare_digest(_encode_key(given), _encode_key(self.read_key)):
            return
        anyone = Scope.QUERY in self.authorizer.anonymous_permissions(origin, sender).scopes
        if not given and (self.read_key or not anyone):
            raise Unauthorized(MISSING_KEY)
        if self.read_key and await self.authorizer.find_key(given) is None:
            raise Unauthorized(WRONG_KEY)
        try:
            await self.authorizer.authorize(Scope.QUERY, given, origin, client_address=sender)
        except (Unauthorized, Forbidden):
            raise Unauthorized(WRONG_KEY) from None


def _encode_key(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
