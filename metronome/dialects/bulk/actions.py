"""The lines of a ``_bulk`` request: an action, then the document that it is about, and so on.

Source: Elasticsearch's documentation of its bulk API, and what its parser takes.
"""

from functools import lru_cache
from operator import length_hint
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import Malformed, TooLarge
from metronome.event import EVENT_ID_MAX_BYTES

CREATE: Final = "create"
INDEX: Final = "index"
UNNAMED_INDEX: Final = "metronome"
"""What is answered as the index of a document whose sender named none: there are none here."""

_WITH_SOURCE: Final = frozenset({CREATE, INDEX, "update"})
_OPERATIONS: Final = frozenset({*_WITH_SOURCE, "delete"})
_INDEX_MAX_BYTES: Final = 255
_SURELY_SHORT: Final = _INDEX_MAX_BYTES // 4
"""So many characters are within every limit here."""
_CONDITIONS: Final = frozenset({"if_seq_no", "if_primary_term"})
_WHITE: Final = b" \t\r\n"
_SHARDS: Final = b'"_shards":{"total":1,"successful":1,"failed":0}'

AFTER_ID: Final = b',"_version":1,"result":"created",' + _SHARDS + b',"status":201}}'
"""What follows the ``_id`` in the answer to a document that was taken."""


class Action(NamedTuple):
    """What is to be done with a document.

    Attributes:
        operation: ``create`` or ``index``, or what cannot be done here.
        into: the index, as its sender named it.
        id: the document's name, or None if its sender gave it none.
        wrong: why it cannot be done, or nothing.
        before_id: what the answer to it begins with.

    """

    operation: str
    into: str
    id: str | None
    wrong: str
    before_id: bytes


Step = tuple[Action, bytes | None]
"""An action and its document, as it came; None where the action has none."""


def action_of(operation: str, index: str, identity: str | None, wrong: str = "") -> Action:
    """Make an action."""
    return Action(operation, index, identity, wrong, _before_id(operation, index))


@lru_cache(maxsize=256)
def _before_id(operation: str, index: str) -> bytes:
    return b'{"%b":{"_index":%b,"_id":' % (operation.encode(), orjson.dumps(index))


def read_steps(body: bytes, index: str, most: int) -> list[Step]:
    """Read a request's lines.

    Documents are not looked into. Where an action cannot be done but is surely one, so that the lines that follow can
    be told apart, it alone is wrong; else nobody knows what is a document and what is an action.

    Args:
        body: of the request.
        index: what actions mean that name none.
        most: how many actions there may be.

    Raises:
        Malformed: a line that must be an action is none, or there is none at all.
        TooLarge: there are more than *most*.

    """
    lines = body.split(b"\n")
    rest = iter(lines)
    steps: list[Step] = []
    seen: dict[bytes, Action] = {}
    for line in rest:
        action = seen.get(line)
        if action is None:
            if not line.strip(_WHITE):
                continue
            action = _read_action(line, index, len(lines) - length_hint(rest))
            if action.id is None:
                seen[line] = action
        steps.append((action, next(rest, b"") if action.operation in _WITH_SOURCE else None))
        if len(steps) > most:
            raise TooLarge(f"the body holds over {most} actions: send fewer at once, or raise batch_max_events")
    if not steps:
        raise Malformed("the body holds no action: send lines, an action and then its document, and so on")
    return steps


def _read_action(line: bytes, index: str, number: int) -> Action:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"Malformed action/metadata line [{number}]: it is no JSON: {error}") from None
    if type(found) is dict:
        # Beside the action, a client may have notes of its own: winston's say "attempts".
        names = found if len(found) == 1 else [name for name in found if name in _OPERATIONS]
        if len(names) == 1:
            (operation,) = names
            about = found[operation]
            if operation in _OPERATIONS and type(about) is dict:
                return _described(operation, about, index)
    raise Malformed(
        f"Malformed action/metadata line [{number}]: "
        'expected one of create, index, update and delete, as in {"create":{"_index":"x"}}'
    )


def _described(operation: str, about: dict[str, Any], index: str) -> Action:
    """Make the action of what its line says; keys that change nothing here, such as a pipeline, may be any."""
    named = about.get("_index")
    identity = about.get("_id")
    if type(identity) is int:
        identity = str(identity)
    if operation == INDEX and about.get("op_type") == CREATE:
        operation = CREATE
    into = named if type(named) is str and named else index
    if operation not in {CREATE, INDEX}:
        wrong = f"{operation} cannot be done here: events are only added, by create or index"
    elif identity is not None and type(identity) is not str:
        return action_of(operation, into, None, "_id is no text")
    else:
        wrong = _wrong_name(named, identity) or _wrong_condition(about)
    return action_of(operation, into, identity if type(identity) is str and identity else None, wrong)


def _wrong_name(index: object, identity: str | None) -> str:
    if type(index) is str:
        if len(index) > _SURELY_SHORT and len(index.encode()) > _INDEX_MAX_BYTES:
            return f"_index is over {_INDEX_MAX_BYTES} bytes"
    elif index is not None:
        return "_index is no text"
    return "" if identity is None else wrong_identity(identity)


def wrong_identity(identity: str) -> str:
    """Return why no document can be named so, or nothing."""
    if not identity:
        return "if _id is specified it must not be empty"
    if len(identity) > _SURELY_SHORT and len(identity.encode(errors="replace")) > EVENT_ID_MAX_BYTES:
        return f"_id is over {EVENT_ID_MAX_BYTES} bytes: send a hash of it"
    return ""


def _wrong_condition(about: dict[str, Any]) -> str:
    given = _CONDITIONS & about.keys()
    return f"{', '.join(sorted(given))} cannot be upheld here: events are only added, never changed" if given else ""
