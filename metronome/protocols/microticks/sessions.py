"""The sessions of microticks: how each is kept while it goes on, and the events that it becomes.

All of a session's events have the fields that `MARK`, `SESSION`, `CONSUMER` and `STARTED` name:

* its start, ``event`` `START`;
* each thing that happened, with ``event`` and ``action`` as they were sent, ``data`` as its JSON text, and beside it
  each plain field of the data under its own name, so that an ``id`` is the item;
* its stop, ``event`` `STOP`, with ``duration`` in milliseconds.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import orjson

from metronome.errors import Malformed
from metronome.event import NAME_MAX_BYTES, TOP_LEVEL_MAX_FIELDS, Event, identities_of, is_plain

KIND: Final = "session"
"""What sessions are called in the state (see `metronome.state.base.State`), where they are known by their tokens."""

MARK: Final = ("protocol", "microticks")
"""The field that tells these events from all others, and its value."""
START: Final = "session_start"
STOP: Final = "session_stop"
SESSION: Final = "session"
CONSUMER: Final = "consumer"
STARTED: Final = "session_started"
"""When the session started, as a stamp."""
STOPPED: Final = "session_stopped"
"""When it was stopped, in milliseconds since 1970."""
CLICKED: Final = "session_clicked"
"""When a click was, in milliseconds since 1970."""
CLICKS: Final = "session_clicks"
"""On each click a 1, so that their sum counts them."""
ACTION: Final = "action"
DATA: Final = "data"

NOT_FOUND: Final = "Could not find session"
STOPPED_ALREADY: Final = "Session was already stopped."

_OWN: Final = frozenset(
    {"event", "event_id", MARK[0], SESSION, CONSUMER, STARTED, STOPPED, CLICKED, CLICKS, ACTION, DATA}
)
_CLICK: Final = "click"
_TOKEN_BYTES: Final = 16
_LONG_MAX: Final = 2**63


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it is kept under its token.

    Attributes:
        consumer: the name of the key that it was started with.
        started: when, as a stamp.
        stopped: when it was stopped, as a stamp; empty while it goes on.
        closed: whether its stop is on disk; what is stopped and not closed was cut off in the middle, or is under way.
        closed_by: a hash of the idempotency key of the request that closed it, or nothing.

    """

    consumer: str
    started: str
    stopped: str = ""
    closed: bool = False
    closed_by: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> Self:
        """Return the session that was kept as *record*.

        Raises:
            Malformed: there is none.

        """
        if record is None:
            raise Malformed(NOT_FOUND)
        return cls(**record)

    def record(self) -> dict[str, Any]:
        """Return what is kept of it; `of` reads it."""
        return asdict(self)

    def stopping(self, at: str) -> "Session":
        """Return it as it is while its stop is on the way to the disk."""
        return replace(self, stopped=at)

    def going_on(self) -> "Session":
        """Return it as it was before its stop, which turned out to be none."""
        return replace(self, stopped="")

    def closing(self, again: str) -> "Session":
        """Return it as it is for ever, closed by a request with that idempotency key, or with none."""
        return replace(self, closed=True, closed_by=_fingerprint(again))

    def was_closed_by(self, again: str) -> bool:
        """Tell whether a request with that idempotency key is the one that has closed it."""
        return bool(again) and self.closed_by == _fingerprint(again)


class Happening(NamedTuple):
    """An event as it was sent.

    Attributes:
        action: what happened.
        data: of what it happened to, as text, mostly of JSON.
        at: when, as a stamp.

    """

    action: str
    data: str
    at: str


def new_token(consumer_key: str, again: str) -> str:
    """Make the token of a new session.

    Args:
        consumer_key: whose it is; with this, nobody else can guess it.
        again: the idempotency key, with which the same consumer gets the same token again; or nothing.

    """
    if not again:
        return secrets.token_hex(_TOKEN_BYTES)
    seed = f"{consumer_key}\n{again}".encode(errors="backslashreplace")
    return hashlib.blake2b(seed, digest_size=_TOKEN_BYTES, person=b"microticks").hexdigest()


def identity_of(token: str, again: str) -> str:
    """Name the event that a session sends with an idempotency key."""
    return next(identities_of(f"{token}\n{again}"))


def check_running(session: Session) -> None:
    """Check that a session takes events.

    Raises:
        Malformed: it was stopped.

    """
    if session.stopped:
        raise Malformed(STOPPED_ALREADY)


def start_event(token: str, session: Session) -> Event:
    """Make the event of a session's start, the same however often it is made."""
    return Event(_fields(token, session, f"{token}-start", START, session.started))


def stop_event(token: str, session: Session) -> Event:
    """Make the event of a session's stop, the same however often it is made."""
    took = _milliseconds(session.stopped) - _milliseconds(session.started)
    fields = _fields(token, session, f"{token}-stop", STOP, session.stopped)
    fields[STOPPED] = _milliseconds(session.stopped)
    # An exhibit's clock may have been set back meanwhile.
    return Event(fields | {"duration": took} if took >= 0 else fields)


def happened(token: str, session: Session, happening: Happening, identity: str) -> Event:
    """Make the event of what happened in a session."""
    fields = _fields(token, session, identity, happening.action, happening.at)
    fields |= {ACTION: happening.action, DATA: happening.data}
    if happening.action == _CLICK:
        fields |= {CLICKS: 1, CLICKED: _milliseconds(happening.at)}
    room = TOP_LEVEL_MAX_FIELDS - len(fields)
    plain = [(name, value) for name, value in _object_in(happening.data).items() if _stands_alone(name, value)]
    return Event(fields | dict(plain[:room]))


def shown_data(text: str) -> Any:
    """Return an event's data as it is listed: what its text says if that is JSON, else the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _fields(token: str, session: Session, identity: str, event: str, at: str) -> dict[str, Any]:
    return {
        "@timestamp": at,
        "event_id": identity,
        "event": event,
        SESSION: token,
        CONSUMER: session.consumer,
        STARTED: session.started,
        MARK[0]: MARK[1],
    }


def _object_in(text: str) -> dict[str, Any]:
    found = shown_data(text)
    return found if isinstance(found, dict) else {}


def _stands_alone(name: str, value: object) -> bool:
    """Tell whether a field of the data becomes one of the event; all of them are in the data's text."""
    if name in _OWN or not is_plain(name):
        return False
    if isinstance(value, str):
        return len(value) <= NAME_MAX_BYTES and len(value.encode()) <= NAME_MAX_BYTES
    return isinstance(value, int | float) and -_LONG_MAX < value < _LONG_MAX


def _milliseconds(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1000)


def _fingerprint(again: str) -> str:
    return hashlib.blake2b(again.encode(errors="backslashreplace"), digest_size=16).hexdigest() if again else ""
