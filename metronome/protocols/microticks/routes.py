"""Microticks over HTTP: its sessions lie in the state, its events go into the spool, its lists come from the store."""

from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome.auth import keys
from metronome.auth.authorizer import Guard
from metronome.auth.client_address import Senders
from metronome.auth.keys import Key, key_of
from metronome.errors import CallerError, Malformed, MetronomeError, NoKey, NotAllowed
from metronome.event import own_identities
from metronome.protocol import Reply, Request, bearer
from metronome.protocols.microticks import reports as microticks
from metronome.protocols.microticks.protocol import (
    INACTIVE_CONSUMER,
    NO_KEY,
    UNKNOWN_CONSUMER,
    WRONG_KEY,
    Microtick,
    answer,
    consumer_key_of,
    happening_of,
    read_fields,
    time_of,
    token_of,
)
from metronome.protocols.microticks.sessions import (
    KIND,
    STOPPED_ALREADY,
    Session,
    check_running,
    happened,
    identity_of,
    new_token,
    start_event,
    stop_event,
)
from metronome.scopes import Scope, implied
from metronome.state.base import State
from metronome.stores.base import Store
from metronome.web.bodies import read_body
from metronome.web.handlers import Answering, Doorway, Handler
from metronome.web.problems import refusal, response

SESSIONS: Final = "/sessions"
EVENTS: Final = "/events"
LISTS: Final = (SESSIONS, EVENTS)
"""The addresses at which lists are read."""

_NO_REQUEST: Final = Request(b"", "", 0)
_REFUSING: Final = Microtick()
_NOT_CACHED: Final = {"Cache-Control": "no-store"}

_Asking = Callable[[Store, microticks.Asked], Awaitable[dict[str, Any]]]


class Sending(NamedTuple):
    """What is known of a request beside its fields.

    Attributes:
        again: its idempotency key, or nothing.
        origin: the web origin that it came from, or nothing.
        sender: the address that it came from, or nothing where that is not known.

    """

    again: str
    origin: str
    sender: str


class Exhibits:
    """Takes what exhibits send: each change is in the state and on disk before it is answered.

    Args:
        doorway: where events go, and who may send.
        state: where sessions are kept.

    """

    def __init__(self, doorway: Doorway, state: State) -> None:
        self._intake = doorway.intake
        self._guard = doorway.guard
        self._state = state
        self._identities = own_identities()

    async def start(self, fields: Mapping[str, Any], sending: Sending) -> Reply:
        """Start a session, and answer its token.

        It is in the state before its event is on disk: one that is cut off between has no token that anybody knows,
        and counts nowhere.
        """
        consumer_key = consumer_key_of(fields)
        consumer = await self._consumer(consumer_key, sending)
        session = Session(consumer.name, time_of(fields))
        token = new_token(consumer_key, sending.again)
        is_new = await self._state.add(KIND, token, session.record())
        if not is_new:
            session = Session.of(await self._state.get(KIND, token))
        try:
            return await self._take(Microtick(start_event(token, session), token=token), session, sending)
        except CallerError:
            if is_new:
                await self._state.remove(KIND, token)
            raise

    async def happen(self, fields: Mapping[str, Any], sending: Sending) -> Reply:
        """Take an event of a session, and answer its identity."""
        token, happening = token_of(fields), happening_of(fields)
        session = Session.of(await self._state.get(KIND, token))
        check_running(session)
        key = await self._key_of(session.consumer)
        if key is None or not self._guard.is_active(key):
            raise NoKey(INACTIVE_CONSUMER)
        identity = identity_of(token, sending.again) if sending.again else next(self._identities)
        microtick = Microtick(happened(token, session, happening, identity), event_id=identity)
        return await self._take(microtick, session, sending)

    async def stop(self, fields: Mapping[str, Any], sending: Sending) -> Reply:
        """Stop a session, once.

        The state has the time of the stop before its event is on disk, and learns after that it is. So whoever comes
        upon a stop that was cut off between finishes that same stop, and of several at once one is answered with yes.
        """
        token, at = token_of(fields), time_of(fields)
        while True:
            record = await self._state.get(KIND, token)
            session = Session.of(record)
            if session.closed:
                if session.was_closed_by(sending.again):
                    return answer()
                raise Malformed(STOPPED_ALREADY)
            if not session.stopped:
                session, before = session.stopping(at), session.record()
                if not await self._state.swap(KIND, token, before, session.record()):
                    continue
            try:
                reply = await self._take(Microtick(stop_event(token, session)), session, sending)
            except CallerError:
                await self._state.swap(KIND, token, session.record(), session.going_on().record())
                raise
            if await self._state.swap(KIND, token, session.record(), session.closing(sending.again).record()):
                return reply

    async def _take(self, microtick: Microtick, session: Session, sending: Sending) -> Reply:
        believed = await self._is_believed(session.consumer, sending)
        return await self._intake.take(microtick, _NO_REQUEST._replace(believed=believed))

    async def _consumer(self, consumer_key: str, sending: Sending) -> Key:
        """Return the consumer of a key, which has to be one even where everyone may send without."""
        key = await self._guard.find(consumer_key)
        # What is public is not enough.
        if key is None or Scope.TICK not in implied(key.scopes):
            raise NoKey(UNKNOWN_CONSUMER)
        if not self._guard.is_active(key):
            raise NoKey(INACTIVE_CONSUMER)
        await self._guard.admit(Scope.TICK, consumer_key, sending.origin, sender=sending.sender)
        return key

    async def _is_believed(self, consumer: str, sending: Sending) -> bool:
        """Tell whether a consumer may send old events now, by the right that it has or that all have."""
        if Scope.IMPORT in self._guard.anonymous(sending.origin, sending.sender).scopes:
            return True
        key = await self._key_of(consumer)
        return key is not None and self._guard.is_active(key) and Scope.IMPORT in implied(key.scopes)

    async def _key_of(self, consumer: str) -> Key | None:
        record = await self._state.get(keys.KIND, consumer)
        try:
            return None if record is None else key_of(consumer, record)
        except Malformed:
            return None


def write_routes(doorway: Doorway, state: State) -> list[web.RouteDef]:
    """List the routes that exhibits send to."""
    exhibits = Exhibits(doorway, state)
    return [
        web.post(SESSIONS, _taking(doorway, exhibits.start)),
        web.post(f"{SESSIONS}/stop", _taking(doorway, exhibits.stop)),
        web.post(EVENTS, _taking(doorway, exhibits.happen)),
    ]


def list_routes(answering: Answering, read_key: str) -> list[web.RouteDef]:
    """List the routes that answer lists.

    Args:
        answering: whom to ask.
        read_key: a key that lists can be read with, beside those that were made here; empty for none.

    """
    reading = _Reading(answering.guard, answering.senders, read_key)
    return [
        web.get(SESSIONS, _listing(answering, reading, microticks.SESSION_COLUMNS, microticks.sessions)),
        web.get(EVENTS, _listing(answering, reading, microticks.EVENT_COLUMNS, microticks.events)),
    ]


def _taking(doorway: Doorway, work: Callable[[Mapping[str, Any], Sending], Awaitable[Reply]]) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        try:
            body = await read_body(request, doorway.max_bytes)
            fields = read_fields(Request(body, request.content_type.lower(), doorway.max_events))
            sending = Sending(
                request.headers.get("Idempotency-Key", ""),
                request.headers.get("Origin", ""),
                doorway.senders.address(request),
            )
            return response(await work(fields, sending))
        except MetronomeError as error:
            doorway.telemetry.refuse(error)
            return refusal(_REFUSING, _NO_REQUEST, error)

    return handle


def _listing(answering: Answering, reading: "_Reading", columns: Mapping[str, str], ask: _Asking) -> Handler:
    took = answering.telemetry.answers.labels("microticks")

    async def handle(request: web.Request) -> web.Response:
        try:
            await reading.admit(request)
            asked = microticks.read_list(request.query, columns)
            with took.time():
                body = orjson.dumps(await ask(answering.store, asked))
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return refusal(_REFUSING, _NO_REQUEST, error)
        return response(Reply(200, body, "application/json", _NOT_CACHED))

    return handle


class _Reading(NamedTuple):
    """Says who may read lists.

    Attributes:
        guard: knows the keys.
        senders: tells where a request came from.
        read_key: where there is one, everyone needs a key, even where all else is open.

    """

    guard: Guard
    senders: Senders
    read_key: str

    async def admit(self, request: web.Request) -> None:
        """Let a request pass that may read.

        Raises:
            NoKey: it brings no key that it needs, or a wrong one.

        """
        given = request.query.get("key") or bearer(request.headers)
        origin, sender = request.headers.get("Origin", ""), self.senders.address(request)
        if self.read_key and compare_digest(_bytes(given), _bytes(self.read_key)):
            return
        anyone = Scope.QUERY in self.guard.anonymous(origin, sender).scopes
        if not given and (self.read_key or not anyone):
            raise NoKey(NO_KEY)
        if self.read_key and await self.guard.find(given) is None:
            raise NoKey(WRONG_KEY)
        try:
            await self.guard.admit(Scope.QUERY, given, origin, sender=sender)
        except (NoKey, NotAllowed):
            raise NoKey(WRONG_KEY) from None


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
