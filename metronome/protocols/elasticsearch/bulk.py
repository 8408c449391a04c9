"""What became of each document of a request: how they are read, and how that is answered.

Answers are put together of ready-made parts: most documents are taken, and of those one answer is like another.

The lines of a ``_bulk`` request: an action, then the document that it is about, and so on.

Source: Elasticsearch's documentation of its bulk API, and what its parser takes.

The documents of a request, read as events, each with the name that it is answered with.

What of an answer a client wants to see: the ``filter_path`` of its query.

Source: Elasticsearch's documentation of response filtering. Beats, Logstash and Fluent Bit ask for
``errors,items.*.error,items.*.status``, others for ``errors`` alone; these forms are followed. What excludes
(``-took``) or is written in another way shows everything, of which clients take what they need.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from operator import length_hint
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, TooLarge
from metronome.event import EVENT_ID_MAX_BYTES, REPEATED, TIME_NAMES, identities_of, own_identities
from metronome.protocol import Outcome, Reading, Request, Site
from metronome.protocols.elasticsearch.errors import BUSY, CONFLICT, busy_cause, conflict_cause, item_cause
from metronome.protocols.elasticsearch.known import Known, Name
from metronome.protocols.records import record_event

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


_IDENTITY: Final = "event_id"
_OTHER_IDENTITY: Final = "record_event_id"
_TIMES: Final = tuple(f'"{name}":'.encode() for name in TIME_NAMES)
_MILLISECONDS_FROM: Final = 100_000_000_000
"""Numbers from here on are milliseconds (see `metronome.times`)."""


def identities_for(request: Request, steps: list[Step]) -> Iterator[str]:
    """Return the names for documents that bring none.

    A shipper that hears no answer sends the same again. Where the request is surely one that no other is equal to,
    since its documents tell when they happened and there are several of them, or the time of the only one is finer
    than a second, it is named by what it is, so that nothing counts twice. Else each document gets a new name: two
    equal ones are two.
    """
    identities = request.identities or own_identities()
    sources = [source for action, source in steps if source is not None and action.id is None]
    if "Idempotency-Key" in request.headers or not (sources and _all_may_have_times(sources)):
        return identities
    if len(sources) == 1 and not _is_finely_timed(sources[0]):
        return identities
    return identities_of(b"%b\n%b" % (request.path.encode(errors="replace"), request.body))


def read_sources(steps: Iterable[Step], site: Site, identities: Iterator[str], names: list[str]) -> Iterator[Reading]:
    """Read the documents of actions one by one, as they are asked for.

    Args:
        steps: the actions, each with its document.
        site: what the operator says of what they publish.
        identities: for documents that bring none.
        names: here each document's name is put, or nothing where it has none.

    """
    last: Action | None = None
    given: str | None = None
    wrong = ""
    for action, source in steps:
        if action is not last:
            last, given, wrong = action, action.id, action.wrong
        try:
            found = orjson.loads(source or b"")
        except orjson.JSONDecodeError as error:
            found = error
        if wrong or type(found) is not dict:
            names.append(given or "")
            yield _no_event(action, source, found)
            continue
        if source is not None and source.count(b'":') != len(found):
            _mark_repeated(found, source)
        event = record_event(found, site, source)
        # It was read here, so that nobody else has the fields.
        fields: Any = event.fields
        identity = _named(fields, given) if _IDENTITY in fields else given
        if identity is None:
            identity = next(identities)
        fields[_IDENTITY] = identity
        names.append(identity)
        yield event


def _no_event(action: Action, source: bytes | None, found: object) -> Malformed:
    if action.wrong:
        return Malformed(action.wrong)
    if not source:
        return Malformed("the line of its document is missing")
    if isinstance(found, ValueError):
        return Malformed(f"not JSON: {found}; numbers are finite, texts UTF-8 without lone surrogates")
    return Malformed(f"a document is a JSON object, and this is {type(found).__name__}")


def _named(fields: dict[str, Any], given: str | None) -> str | None:
    """Settle the name of an event that names itself: its action's counts, and its own is kept beside that."""
    own = fields.pop(_IDENTITY)
    if given is None:
        return str(own) if type(own) in (str, int) and own != "" else None
    if own not in (None, "", given):
        fields[_OTHER_IDENTITY] = own
    return given


def _mark_repeated(found: dict[str, Any], source: bytes) -> None:
    """List the fields that a document has twice, of which the parser gives the last only.

    A document with objects or lists inside is kept whole anyway, as it came.
    """
    if {dict, list} & set(map(type, found.values())):
        return
    pairs = json.loads(source, object_pairs_hook=list, parse_int=float)
    repeated = sorted(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    if repeated:
        found[REPEATED] = repeated


def _all_may_have_times(sources: list[bytes]) -> bool:
    """Tell whether every document has a time, as far as that shows without reading it.

    It may be one that lies deeper inside: such a document says well enough that it is itself and no other.
    """
    likely = next((name for name in _TIMES if name in sources[0]), None)
    if likely is None:
        return False
    others = [source for source in sources if likely not in source]
    return all(any(name in source for name in _TIMES) for source in others)


def _is_finely_timed(source: bytes) -> bool:
    try:
        found = orjson.loads(source)
    except orjson.JSONDecodeError:
        return False
    if type(found) is not dict:
        return False
    time = next((found[name] for name in TIME_NAMES if found.get(name) is not None), None)
    if isinstance(time, str):
        fraction = time.partition(".")[2].rstrip("Zz").partition("+")[0]
        return fraction.strip("0") != ""
    return isinstance(time, (int, float)) and time % (1000 if time >= _MILLISECONDS_FROM else 1) != 0


_PARAMETER: Final = "filter_path"
_TOP: Final = frozenset({"took", "errors"})
_WHOLE: Final = frozenset({"items", "items.*", "items.**", "**", "*"})
_SHOWN_OPERATIONS: Final = frozenset({"*", "create", "index"})
_FIELDS: Final = frozenset({"_index", "_id", "_version", "result", "_shards", "status", "error"})
_MAX_CHARACTERS: Final = 500
_ITEM_DEPTH: Final = 3


class Shown(NamedTuple):
    """What an answer shows.

    Attributes:
        top: what stands beside the items.
        fields: of each item, or None for all.

    """

    top: frozenset[str]
    fields: frozenset[str] | None


_ALL: Final = Shown(_TOP, None)


def shown_by(query: str) -> Shown:
    """Return what a request's query wants to see."""
    return _shown_by(query) if _PARAMETER in query and len(query) <= _MAX_CHARACTERS else _ALL


@lru_cache(maxsize=256)
def _shown_by(query: str) -> Shown:
    given = next((value for name, value in parse_qsl(query) if name == _PARAMETER), "")
    paths = [path.strip() for path in given.split(",") if path.strip()]
    fields: set[str] = set()
    for path in paths:
        if path in _TOP:
            continue
        parts = path.split(".")
        if path in _WHOLE or len(parts) < _ITEM_DEPTH or parts[0] != "items" or parts[1] not in _SHOWN_OPERATIONS:
            return _ALL if path not in {"items", "items.*", "items.**"} else Shown(_TOP & set(paths), None)
        if parts[2] not in _FIELDS:
            return _ALL
        fields.add(parts[2])
    return Shown(_TOP & set(paths), frozenset(fields)) if paths else _ALL


_AFTER_ID: Final = AFTER_ID.decode()
_REFUSED: Final = 400
_TWIN: Final = "another document of this _id in the same request was refused: send this one again"


class Failure:
    """Why a document was not taken."""

    __slots__ = ("cause", "status")

    def __init__(self, status: int, cause: Mapping[str, str]) -> None:
        self.status = status
        self.cause = cause


class Items:
    """The documents of one request.

    Args:
        steps: the actions, each with its document.
        known: which documents are on disk already.

    Attributes:
        noops: positions of documents that ``index`` would change, which nothing does; known in full once it is settled.

    """

    def __init__(self, steps: list[Step], known: Known) -> None:
        self.steps = steps
        self.identities: list[str] = []
        self._known = known
        self._first: dict[Name, int] = {}
        self._twins: dict[int, int] = {}
        self._conflicts: set[int] = set()
        self.noops: set[int] = set()
        self._find_known()
        self._left_out = self._conflicts | self.noops | self._twins.keys()

    def _find_known(self) -> None:
        """Find what is there already: ``create`` may not make it again, and ``index`` changes nothing of it."""
        for position, (action, _) in enumerate(self.steps):
            if action.id is None or action.wrong:
                continue
            name = (action.into, action.id)
            earlier = self._first.setdefault(name, position)
            if name in self._known:
                (self._conflicts if action.operation == CREATE else self.noops).add(position)
            elif earlier != position:
                self._twins[position] = earlier

    def readings(self, site: Site, identities: Iterator[str]) -> Iterator[Reading]:
        """Read the documents one by one, but those that are known."""
        if not self._left_out:
            return read_sources(self.steps, site, identities, self.identities)
        return self._but_those(site, identities)

    def _but_those(self, site: Site, identities: Iterator[str]) -> Iterator[Reading]:
        for position, step in enumerate(self.steps):
            if position in self._left_out:
                self.identities.append(step[0].id or "")
            else:
                yield from read_sources((step,), site, identities, self.identities)

    def settle(self, outcome: Outcome) -> dict[int, Failure]:
        """Note what is on disk now, and return why the other documents are not, by their position."""
        failures = self._failures(outcome)
        for name, position in self._first.items():
            if position not in failures:
                self._known.add(name)
        return failures

    def _failures(self, outcome: Outcome) -> dict[int, Failure]:
        failures: dict[int, Failure] = {}
        if outcome.rejected:
            read = [position for position in range(len(self.steps)) if position not in self._left_out]
            for index, error in outcome.rejected.items():
                position = read[index]
                failures[position] = Failure(_REFUSED, item_cause(error, self.steps[position][0].wrong))
        for position in self._conflicts:
            failures[position] = Failure(CONFLICT, conflict_cause(self.identities[position]))
        for position, earlier in self._twins.items():
            # Only where the first one is on disk is the second one there already.
            if earlier in failures and failures[earlier].status != CONFLICT:
                failures[position] = Failure(BUSY, busy_cause(_TWIN))
            elif self.steps[position][0].operation == CREATE:
                failures[position] = Failure(CONFLICT, conflict_cause(self.identities[position]))
            else:
                self.noops.add(position)
        return failures


def answer(items: Items, failures: Mapping[int, Failure], shown: Shown) -> bytes:
    """Put together the answer to a bulk request."""
    heads = [b'"took":0'] if "took" in shown.top else []
    if "errors" in shown.top:
        heads.append(b'"errors":true' if failures else b'"errors":false')
    if shown.fields is None and not failures and not items.noops and _are_alike(items):
        before = items.steps[0][0].before_id.decode()
        text = f'"{_AFTER_ID},{before}"'.join(items.identities)
        heads.append(f'"items":[{before}"{text}"{_AFTER_ID}]'.encode())
        return b"{%b}" % b",".join(heads)
    parts = _taken(items, shown.fields)
    for position in items.noops:
        action, identity = items.steps[position][0], items.identities[position]
        found = unchanged(action, identity)
        parts[position] = _part(action, found if shown.fields is None else _only(found, shown.fields))
    for position, failure in failures.items():
        action, identity = items.steps[position][0], items.identities[position]
        parts[position] = _failed(action, identity, failure, shown.fields)
    if shown.fields is not None:
        parts = [part for part in parts if part]
    if parts:
        heads.append(b'"items":[%b]' % b",".join(parts))
    return b"{%b}" % b",".join(heads)


def _are_alike(items: Items) -> bool:
    """Tell whether all documents came by one and the same action, and have names that are written as they are."""
    action, names = items.steps[0][0], "".join(items.identities)
    plain = names.isascii() and names.isprintable() and '"' not in names and "\\" not in names
    return plain and all(other is action for other, _ in items.steps)


def _taken(items: Items, fields: frozenset[str] | None) -> list[bytes]:
    """Answer each document as one that was taken."""
    if fields is None:
        dumps = orjson.dumps
        return [
            b"%b%b%b" % (action.before_id, dumps(identity), AFTER_ID)
            for (action, _), identity in zip(items.steps, items.identities, strict=True)
        ]
    if fields <= {"status", "error"}:
        part = b'{"%b":{"status":201}}' if "status" in fields else b""
        ready = {action.operation: part for action, _ in items.steps}
        ready = {name: part % name.encode() if part else b"" for name, part in ready.items()}
        return [ready[action.operation] for action, _ in items.steps]
    return [
        _part(action, _only(_result(action, identity), fields))
        for (action, _), identity in zip(items.steps, items.identities, strict=True)
    ]


def _result(action: Action, identity: str) -> dict[str, Any]:
    whole: dict[str, Any] = orjson.loads(action.before_id + orjson.dumps(identity) + AFTER_ID)
    result: dict[str, Any] = whole[action.operation]
    return result


def _failed(action: Action, identity: str, failure: Failure, fields: frozenset[str] | None) -> bytes:
    found = {"_index": action.into, "_id": identity or None, "status": failure.status, "error": failure.cause}
    return _part(action, found if fields is None else _only(found, fields))


def _only(found: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in fields}


def _part(action: Action, found: Mapping[str, Any]) -> bytes:
    return orjson.dumps({action.operation: found}) if found else b""


def created(action: Action, identity: str) -> dict[str, Any]:
    """Describe a single document that was taken."""
    return single(_result(action, identity))


def single(found: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a document that stands alone, as it is described among others; some clients need a sequence number."""
    return {**{name: value for name, value in found.items() if name != "status"}, "_seq_no": 0, "_primary_term": 1}


def unchanged(action: Action, identity: str) -> dict[str, Any]:
    """Describe a document that is there already, and is what it was."""
    return {**_result(action, identity), "result": "noop", "status": 200}
