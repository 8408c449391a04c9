"""The sessions of microticks: how each is kept while it goes on, and the events that it becomes.

All of a session's events have the fields that `PROTOCOL_MARKER`, `SESSION_FIELD`, `CONSUMER_FIELD` and
`STARTED_FIELD` name:

* its start, ``event`` `START_EVENT`;
* each thing that happened, with ``event`` and ``action`` as they were sent, ``data`` as its JSON text, and beside it
  each plain field of the data under its own name, so that an ``id`` is the item;
* its stop, ``event`` `STOP_EVENT`, with ``duration`` in milliseconds.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, Self

import orjson

from metronome.errors import Malformed
from metronome.event import TOP_LEVEL_MAX_FIELDS, Event, derive_event_ids
from metronome.fields import NAME_MAX_BYTES, is_top_level_name

SESSION_KIND: Final = "session"
"""What sessions are called in the state (see `metronome.state.base.State`), where they are known by their tokens."""

PROTOCOL_MARKER: Final = ("protocol", "microticks")
"""The field that tells these events from all others, and its value."""
START_EVENT: Final = "session_start"
STOP_EVENT: Final = "session_stop"
SESSION_FIELD: Final = "session"
CONSUMER_FIELD: Final = "consumer"
STARTED_FIELD: Final = "session_started"
"""When the session started, as a stamp."""
STOPPED_FIELD: Final = "session_stopped"
"""When it was stopped, in milliseconds since 1970."""
CLICKED_FIELD: Final = "session_clicked"
"""When a click was, in milliseconds since 1970."""
CLICKS_FIELD: Final = "session_clicks"
"""On each click a 1, so that their sum counts them."""
ACTION_FIELD: Final = "action"
DATA_FIELD: Final = "data"

SESSION_NOT_FOUND: Final = "Could not find session"
SESSION_ALREADY_STOPPED: Final = "Session was already stopped."

_RESERVED_FIELDS: Final = frozenset(
    {
        "event",
        "event_id",
        PROTOCOL_MARKER[0],
        SESSION_FIELD,
        CONSUMER_FIELD,
        STARTED_FIELD,
        STOPPED_FIELD,
        CLICKED_FIELD,
        CLICKS_FIELD,
        ACTION_FIELD,
        DATA_FIELD,
    }
)
_CLICK_ACTION: Final = "click"
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
    def from_record(cls, record: Mapping[str, Any] | None) -> Self:
        """Return the session that was kept as *record*.

        Raises:
            Malformed: there is none.

        """
        if record is None:
            raise Malformed(SESSION_NOT_FOUND)
        return cls(**record)

    def to_record(self) -> dict[str, Any]:
        """Return what is kept of it; `of` reads it."""
        return asdict(self)

    def with_stop(self, timestamp: str) -> "Session":
        """Return it as it is while its stop is on the way to the disk."""
        return replace(self, stopped=timestamp)

    def without_stop(self) -> "Session":
        """Return it as it was before its stop, which turned out to be none."""
        return replace(self, stopped="")

    def as_closed(self, idempotency_key: str) -> "Session":
        """Return it as it is for ever, closed by a request with that idempotency key, or with none."""
        return replace(self, closed=True, closed_by=_hash_idempotency_key(idempotency_key))

    def was_closed_by(self, idempotency_key: str) -> bool:
        """Tell whether a request with that idempotency key is the one that has closed it."""
        return bool(idempotency_key) and self.closed_by == _hash_idempotency_key(idempotency_key)


class SessionAction(NamedTuple):
    """An event as it was sent.

    Attributes:
        action: what happened.
        data: of what it happened to, as text, mostly of JSON.
        at: when, as a stamp.

    """

    action: str
    data: str
    timestamp: str


def new_token(consumer_key: str, idempotency_key: str) -> str:
    """Make the token of a new session.

    Args:
        consumer_key: whose it is; with this, nobody else can guess it.
        idempotency_key: the idempotency key, with which the same consumer gets the same token again; or nothing.

    """
    if not idempotency_key:
        return secrets.token_hex(_TOKEN_BYTES)
    seed = f"{consumer_key}\n{idempotency_key}".encode(errors="backslashreplace")
    return hashlib.blake2b(seed, digest_size=_TOKEN_BYTES, person=b"microticks").hexdigest()


def idempotent_event_id(token: str, idempotency_key: str) -> str:
    """Name the event that a session sends with an idempotency key."""
    return next(derive_event_ids(f"{token}\n{idempotency_key}"))


def check_not_stopped(session: Session) -> None:
    """Check that a session takes events.

    Raises:
        Malformed: it was stopped.

    """
    if session.stopped:
        raise Malformed(SESSION_ALREADY_STOPPED)


def build_start_event(token: str, session: Session) -> Event:
    """Make the event of a session's start, the same however often it is made."""
    return Event(_common_fields(token, session, f"{token}-start", START_EVENT, session.started))


def build_stop_event(token: str, session: Session) -> Event:
    """Make the event of a session's stop, the same however often it is made."""
    took = _to_epoch_milliseconds(session.stopped) - _to_epoch_milliseconds(session.started)
    fields = _common_fields(token, session, f"{token}-stop", STOP_EVENT, session.stopped)
    fields[STOPPED_FIELD] = _to_epoch_milliseconds(session.stopped)
    # An exhibit's clock may have been set back meanwhile.
    return Event(fields | {"duration": took} if took >= 0 else fields)


def build_action_event(token: str, session: Session, action: SessionAction, event_id: str) -> Event:
    """Make the event of what happened in a session."""
    fields = _common_fields(token, session, event_id, action.action, action.timestamp)
    fields |= {ACTION_FIELD: action.action, DATA_FIELD: action.data}
    if action.action == _CLICK_ACTION:
        fields |= {CLICKS_FIELD: 1, CLICKED_FIELD: _to_epoch_milliseconds(action.timestamp)}
    room = TOP_LEVEL_MAX_FIELDS - len(fields)
    plain = [(name, value) for name, value in _data_fields(action.data).items() if _is_plain_field(name, value)]
    return Event(fields | dict(plain[:room]))


def decode_data(text: str) -> Any:
    """Return an event's data as it is listed: what its text says if that is JSON, else the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _common_fields(token: str, session: Session, event_id: str, event: str, timestamp: str) -> dict[str, Any]:
    return {
        "@timestamp": timestamp,
        "event_id": event_id,
        "event": event,
        SESSION_FIELD: token,
        CONSUMER_FIELD: session.consumer,
        STARTED_FIELD: session.started,
        PROTOCOL_MARKER[0]: PROTOCOL_MARKER[1],
    }


def _data_fields(text: str) -> dict[str, Any]:
    found = decode_data(text)
    return found if isinstance(found, dict) else {}


def _is_plain_field(name: str, value: object) -> bool:
    """Tell whether a field of the data becomes one of the event; all of them are in the data's text."""
    if name in _RESERVED_FIELDS or not is_top_level_name(name):
        return False
    if isinstance(value, str):
        return len(value) <= NAME_MAX_BYTES and len(value.encode()) <= NAME_MAX_BYTES
    return isinstance(value, int | float) and -_LONG_MAX < value < _LONG_MAX


def _to_epoch_milliseconds(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1000)


def _hash_idempotency_key(idempotency_key: str) -> str:
    return (
        hashlib.blake2b(idempotency_key.encode(errors="backslashreplace"), digest_size=16).hexdigest()
        if idempotency_key
        else ""
    )
