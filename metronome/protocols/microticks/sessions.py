"""The sessions of microticks: the record in the state while a session lasts, and the events of a session.

All events of a session have the fields `PROTOCOL_MARKER`, `SESSION_FIELD`, `CONSUMER_FIELD` and `STARTED_FIELD`:

* its start, with the ``event`` `START_EVENT`;
* each action, with ``event`` and ``action`` as they were sent, ``data`` as JSON text, and each top-level field of the
  data as a field of the event, so that an ``id`` is the item;
* its stop, with the ``event`` `STOP_EVENT` and ``duration`` in milliseconds.
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
from metronome.times import to_milliseconds

SESSION_KIND: Final = "session"
"""The kind of sessions in the state (see `metronome.state.base.State`); their names there are their tokens."""

PROTOCOL_MARKER: Final = ("protocol", "microticks")
"""The field that marks these events, and its value."""
START_EVENT: Final = "session_start"
STOP_EVENT: Final = "session_stop"
SESSION_FIELD: Final = "session"
CONSUMER_FIELD: Final = "consumer"
STARTED_FIELD: Final = "session_started"
"""The timestamp of the session's start."""
STOPPED_FIELD: Final = "session_stopped"
"""The time of the session's stop, in milliseconds since 1970."""
CLICKED_FIELD: Final = "session_clicked"
"""The time of a click, in milliseconds since 1970."""
CLICKS_FIELD: Final = "session_clicks"
"""1 in each click, so that the sum is their number."""
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
    """A session in the state.

    Attributes:
        consumer: the name of the key that it was started with.
        started: the timestamp of its start.
        stopped: the timestamp of its stop; empty while it lasts.
        closed: whether the event of its stop is on disk; a session that is stopped and not closed is being stopped,
            or its stop was interrupted.
        closed_by: a hash of the idempotency key of the request that closed it, or empty.

    """

    consumer: str
    started: str
    stopped: str = ""
    closed: bool = False
    closed_by: str = ""

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Self:
        """Return the session of a record in the state.

        Raises:
            Malformed: there is no record.

        """
        if record is None:
            raise Malformed(SESSION_NOT_FOUND)
        return cls(**record)

    def to_record(self) -> dict[str, Any]:
        """Return the record in the state; `from_record` reads it."""
        return asdict(self)

    def with_stop(self, timestamp: str) -> "Session":
        """Return the session while its stop is being stored."""
        return replace(self, stopped=timestamp)

    def without_stop(self) -> "Session":
        """Return the session as it was before a stop that was rejected."""
        return replace(self, stopped="")

    def as_closed(self, idempotency_key: str) -> "Session":
        """Return the closed session; *idempotency_key* is that of the request that closed it, or empty."""
        return replace(self, closed=True, closed_by=_hash_idempotency_key(idempotency_key))

    def was_closed_by(self, idempotency_key: str) -> bool:
        """Return whether the request that closed the session had this idempotency key."""
        return bool(idempotency_key) and self.closed_by == _hash_idempotency_key(idempotency_key)


class SessionAction(NamedTuple):
    """An action in a session.

    Attributes:
        action: its name, such as ``click``.
        data: what the consumer sent with it, as text; usually JSON.
        timestamp: its time.

    """

    action: str
    data: str
    timestamp: str


def new_token(consumer_key: str, idempotency_key: str) -> str:
    """Return the token of a new session.

    Args:
        consumer_key: the key of the consumer; makes the token impossible to guess.
        idempotency_key: with the same one, a consumer gets the same token again; may be empty.

    """
    if not idempotency_key:
        return secrets.token_hex(_TOKEN_BYTES)
    seed = f"{consumer_key}\n{idempotency_key}".encode(errors="backslashreplace")
    return hashlib.blake2b(seed, digest_size=_TOKEN_BYTES, person=b"microticks").hexdigest()


def idempotent_event_id(token: str, idempotency_key: str) -> str:
    """Return the ID of an event that is sent with an idempotency key."""
    return next(derive_event_ids(f"{token}\n{idempotency_key}"))


def check_not_stopped(session: Session) -> None:
    """Check that a session accepts events.

    Raises:
        Malformed: it was stopped.

    """
    if session.stopped:
        raise Malformed(SESSION_ALREADY_STOPPED)


def build_start_event(token: str, session: Session) -> Event:
    """Return the event of a session's start; it is always the same for a session."""
    return Event(_common_fields(token, session, f"{token}-start", START_EVENT, session.started))


def build_stop_event(token: str, session: Session) -> Event:
    """Return the event of a session's stop; it is always the same for a session."""
    duration = _to_epoch_milliseconds(session.stopped) - _to_epoch_milliseconds(session.started)
    fields = _common_fields(token, session, f"{token}-stop", STOP_EVENT, session.stopped)
    fields[STOPPED_FIELD] = _to_epoch_milliseconds(session.stopped)
    # The exhibit's clock may have been set back during the session.
    return Event(fields | {"duration": duration} if duration >= 0 else fields)


def build_action_event(token: str, session: Session, action: SessionAction, event_id: str) -> Event:
    """Return the event of an action."""
    fields = _common_fields(token, session, event_id, action.action, action.timestamp)
    fields |= {ACTION_FIELD: action.action, DATA_FIELD: action.data}
    if action.action == _CLICK_ACTION:
        fields |= {CLICKS_FIELD: 1, CLICKED_FIELD: _to_epoch_milliseconds(action.timestamp)}
    data = decode_data(action.data)
    if isinstance(data, dict):
        top_level = [(name, value) for name, value in data.items() if _is_top_level_field(name, value)]
        fields |= dict(top_level[: TOP_LEVEL_MAX_FIELDS - len(fields)])
    return Event(fields)


def decode_data(text: str) -> Any:
    """Return an action's data as lists have it: parsed if it is JSON, otherwise as text."""
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


def _is_top_level_field(name: str, value: object) -> bool:
    """Return whether a field of the data becomes one of the event; all of them are in the text of the data."""
    if name in _RESERVED_FIELDS or not is_top_level_name(name):
        return False
    if isinstance(value, str):
        return len(value) <= NAME_MAX_BYTES and len(value.encode()) <= NAME_MAX_BYTES
    return isinstance(value, int | float) and -_LONG_MAX < value < _LONG_MAX


def _to_epoch_milliseconds(timestamp: str) -> int:
    return to_milliseconds(datetime.fromisoformat(timestamp))


def _hash_idempotency_key(idempotency_key: str) -> str:
    return (
        hashlib.blake2b(idempotency_key.encode(errors="backslashreplace"), digest_size=16).hexdigest()
        if idempotency_key
        else ""
    )
