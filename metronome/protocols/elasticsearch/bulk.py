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

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import REPEATED_FIELDS, derive_event_ids, generate_event_ids
from metronome.fields import EVENT_ID_MAX_BYTES, TIMESTAMP_FIELDS
from metronome.protocol import IngestResult, ParsedEvent, Request, SiteConfig
from metronome.protocols.elasticsearch.errors import (
    CONFLICT,
    TOO_MANY_REQUESTS,
    conflict_error,
    item_error,
    rejected_execution_error,
)
from metronome.protocols.elasticsearch.known import DocumentKey, RecentDocumentIds
from metronome.protocols.records import event_from_record

CREATE: Final = "create"
INDEX: Final = "index"
DEFAULT_INDEX: Final = "metronome"
"""What is answered as the index of a document whose sender named none: there are none here."""

_OPERATIONS_WITH_SOURCE: Final = frozenset({CREATE, INDEX, "update"})
_OPERATIONS: Final = frozenset({*_OPERATIONS_WITH_SOURCE, "delete"})
_INDEX_MAX_BYTES: Final = 255
_ALWAYS_WITHIN_LIMIT: Final = _INDEX_MAX_BYTES // 4
"""So many characters are within every limit here."""
_CONDITION_PARAMETERS: Final = frozenset({"if_seq_no", "if_primary_term"})
_WHITESPACE: Final = b" \t\r\n"
_SHARDS_JSON: Final = b'"_shards":{"total":1,"successful":1,"failed":0}'

CREATED_ITEM_SUFFIX: Final = b',"_version":1,"result":"created",' + _SHARDS_JSON + b',"status":201}}'
"""What follows the ``_id`` in the answer to a document that was taken."""


class BulkAction(NamedTuple):
    """What is to be done with a document.

    Attributes:
        operation: ``create`` or ``index``, or what cannot be done here.
        into: the index, as its sender named it.
        id: the document's name, or None if its sender gave it none.
        wrong: why it cannot be done, or nothing.
        before_id: what the answer to it begins with.

    """

    operation: str
    index_name: str
    document_id: str | None
    error: str
    item_prefix: bytes


BulkOperation = tuple[BulkAction, bytes | None]
"""An action and its document, as it came; None where the action has none."""


def build_action(operation: str, index_name: str, document_id: str | None, error: str = "") -> BulkAction:
    """Make an action."""
    return BulkAction(operation, index_name, document_id, error, _item_prefix(operation, index_name))


@lru_cache(maxsize=256)
def _item_prefix(operation: str, index: str) -> bytes:
    return b'{"%b":{"_index":%b,"_id":' % (operation.encode(), orjson.dumps(index))


def parse_bulk_body(body: bytes, default_index: str, max_actions: int) -> list[BulkOperation]:
    """Read a request's lines.

    Documents are not looked into. Where an action cannot be done but is surely one, so that the lines that follow can
    be told apart, it alone is wrong; else nobody knows what is a document and what is an action.

    Args:
        body: of the request.
        default_index: what actions mean that name none.
        max_actions: how many actions there may be.

    Raises:
        Malformed: a line that must be an action is none, or there is none at all.
        PayloadTooLarge: there are more than *max_actions*.

    """
    lines = body.split(b"\n")
    rest = iter(lines)
    steps: list[BulkOperation] = []
    seen: dict[bytes, BulkAction] = {}
    for line in rest:
        action = seen.get(line)
        if action is None:
            if not line.strip(_WHITESPACE):
                continue
            action = _parse_action(line, default_index, len(lines) - length_hint(rest))
            if action.document_id is None:
                seen[line] = action
        steps.append((action, next(rest, b"") if action.operation in _OPERATIONS_WITH_SOURCE else None))
        if len(steps) > max_actions:
            raise PayloadTooLarge(
                f"the body holds over {max_actions} actions: send fewer at once, or raise batch_max_events"
            )
    if not steps:
        raise Malformed("the body holds no action: send lines, an action and then its document, and so on")
    return steps


def _parse_action(line: bytes, index: str, number: int) -> BulkAction:
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
                return _action_from_metadata(operation, about, index)
    raise Malformed(
        f"Malformed action/metadata line [{number}]: "
        'expected one of create, index, update and delete, as in {"create":{"_index":"x"}}'
    )


def _action_from_metadata(operation: str, metadata: dict[str, Any], index: str) -> BulkAction:
    """Make the action of what its line says; keys that change nothing here, such as a pipeline, may be any."""
    named = metadata.get("_index")
    identity = metadata.get("_id")
    if type(identity) is int:
        identity = str(identity)
    if operation == INDEX and metadata.get("op_type") == CREATE:
        operation = CREATE
    into = named if type(named) is str and named else index
    if operation not in {CREATE, INDEX}:
        wrong = f"{operation} cannot be done here: events are only added, by create or index"
    elif identity is not None and type(identity) is not str:
        return build_action(operation, into, None, "_id is no text")
    else:
        wrong = _name_error(named, identity) or _condition_error(metadata)
    return build_action(operation, into, identity if type(identity) is str and identity else None, wrong)


def _name_error(index: object, identity: str | None) -> str:
    if type(index) is str:
        if len(index) > _ALWAYS_WITHIN_LIMIT and len(index.encode()) > _INDEX_MAX_BYTES:
            return f"_index is over {_INDEX_MAX_BYTES} bytes"
    elif index is not None:
        return "_index is no text"
    return "" if identity is None else document_id_error(identity)


def document_id_error(document_id: str) -> str:
    """Return why no document can be named so, or nothing."""
    if not document_id:
        return "if _id is specified it must not be empty"
    if len(document_id) > _ALWAYS_WITHIN_LIMIT and len(document_id.encode(errors="replace")) > EVENT_ID_MAX_BYTES:
        return f"_id is over {EVENT_ID_MAX_BYTES} bytes: send a hash of it"
    return ""


def _condition_error(metadata: dict[str, Any]) -> str:
    given = _CONDITION_PARAMETERS & metadata.keys()
    return f"{', '.join(sorted(given))} cannot be upheld here: events are only added, never changed" if given else ""


_EVENT_ID_FIELD: Final = "event_id"
_RECORD_EVENT_ID_FIELD: Final = "record_event_id"
_TIME_FIELD_PREFIXES: Final = tuple(f'"{name}":'.encode() for name in TIMESTAMP_FIELDS)
_MIN_EPOCH_MILLISECONDS: Final = 100_000_000_000
"""Numbers from here on are milliseconds (see `metronome.times`)."""


def event_ids_for(request: Request, operations: list[BulkOperation]) -> Iterator[str]:
    """Return the names for documents that bring none.

    A shipper that hears no answer sends the same again. Where the request is surely one that no other is equal to,
    since its documents tell when they happened and there are several of them, or the time of the only one is finer
    than a second, it is named by what it is, so that nothing counts twice. Else each document gets a new name: two
    equal ones are two.
    """
    identities = request.event_ids or generate_event_ids()
    sources = [source for action, source in operations if source is not None and action.document_id is None]
    if "Idempotency-Key" in request.headers or not (sources and _all_seem_timestamped(sources)):
        return identities
    if len(sources) == 1 and not _has_subsecond_timestamp(sources[0]):
        return identities
    return derive_event_ids(b"%b\n%b" % (request.path.encode(errors="replace"), request.body))


def parse_documents(
    operations: Iterable[BulkOperation], site_config: SiteConfig, event_ids: Iterator[str], document_ids: list[str]
) -> Iterator[ParsedEvent]:
    """Read the documents of actions one by one, as they are asked for.

    Args:
        operations: the actions, each with its document.
        site_config: what the operator says of what they publish.
        event_ids: for documents that bring none.
        document_ids: here each document's name is put, or nothing where it has none.

    """
    last: BulkAction | None = None
    given: str | None = None
    wrong = ""
    for action, source in operations:
        if action is not last:
            last, given, wrong = action, action.document_id, action.error
        try:
            found = orjson.loads(source or b"")
        except orjson.JSONDecodeError as error:
            found = error
        if wrong or type(found) is not dict:
            document_ids.append(given or "")
            yield _document_error(action, source, found)
            continue
        if source is not None and source.count(b'":') != len(found):
            _mark_duplicate_fields(found, source)
        event = event_from_record(found, site_config, source)
        # It was read here, so that nobody else has the fields.
        fields: Any = event.fields
        identity = _resolve_event_id(fields, given) if _EVENT_ID_FIELD in fields else given
        if identity is None:
            identity = next(event_ids)
        fields[_EVENT_ID_FIELD] = identity
        document_ids.append(identity)
        yield event


def _document_error(action: BulkAction, source: bytes | None, found: object) -> Malformed:
    if action.error:
        return Malformed(action.error)
    if not source:
        return Malformed("the line of its document is missing")
    if isinstance(found, ValueError):
        return Malformed(f"not JSON: {found}; numbers are finite, texts UTF-8 without lone surrogates")
    return Malformed(f"a document is a JSON object, and this is {type(found).__name__}")


def _resolve_event_id(fields: dict[str, Any], document_id: str | None) -> str | None:
    """Settle the name of an event that names itself: its action's counts, and its own is kept beside that."""
    own = fields.pop(_EVENT_ID_FIELD)
    if document_id is None:
        return str(own) if type(own) in (str, int) and own != "" else None
    if own not in (None, "", document_id):
        fields[_RECORD_EVENT_ID_FIELD] = own
    return document_id


def _mark_duplicate_fields(found: dict[str, Any], source: bytes) -> None:
    """List the fields that a document has twice, of which the parser gives the last only.

    A document with objects or lists inside is kept whole anyway, as it came.
    """
    if {dict, list} & set(map(type, found.values())):
        return
    pairs = json.loads(source, object_pairs_hook=list, parse_int=float)
    repeated = sorted(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    if repeated:
        found[REPEATED_FIELDS] = repeated


def _all_seem_timestamped(sources: list[bytes]) -> bool:
    """Tell whether every document has a time, as far as that shows without reading it.

    It may be one that lies deeper inside: such a document says well enough that it is itself and no other.
    """
    likely = next((name for name in _TIME_FIELD_PREFIXES if name in sources[0]), None)
    if likely is None:
        return False
    others = [source for source in sources if likely not in source]
    return all(any(name in source for name in _TIME_FIELD_PREFIXES) for source in others)


def _has_subsecond_timestamp(source: bytes) -> bool:
    try:
        found = orjson.loads(source)
    except orjson.JSONDecodeError:
        return False
    if type(found) is not dict:
        return False
    time = next((found[name] for name in TIMESTAMP_FIELDS if found.get(name) is not None), None)
    if isinstance(time, str):
        fraction = time.partition(".")[2].rstrip("Zz").partition("+")[0]
        return fraction.strip("0") != ""
    return isinstance(time, (int, float)) and time % (1000 if time >= _MIN_EPOCH_MILLISECONDS else 1) != 0


_FILTER_PARAMETER: Final = "filter_path"
_TOP_LEVEL_FIELDS: Final = frozenset({"took", "errors"})
_ALL_ITEMS_PATHS: Final = frozenset({"items", "items.*", "items.**", "**", "*"})
_FILTER_OPERATIONS: Final = frozenset({"*", "create", "index"})
_ITEM_FIELDS: Final = frozenset({"_index", "_id", "_version", "result", "_shards", "status", "error"})
_FILTER_MAX_CHARACTERS: Final = 500
_ITEM_PATH_DEPTH: Final = 3


class ResponseFilter(NamedTuple):
    """What an answer shows.

    Attributes:
        top: what stands beside the items.
        fields: of each item, or None for all.

    """

    top_level: frozenset[str]
    item_fields: frozenset[str] | None


_UNFILTERED: Final = ResponseFilter(_TOP_LEVEL_FIELDS, None)


def parse_filter_path(query: str) -> ResponseFilter:
    """Return what a request's query wants to see."""
    return (
        _parse_cached_filter_path(query)
        if _FILTER_PARAMETER in query and len(query) <= _FILTER_MAX_CHARACTERS
        else _UNFILTERED
    )


@lru_cache(maxsize=256)
def _parse_cached_filter_path(query: str) -> ResponseFilter:
    given = next((value for name, value in parse_qsl(query) if name == _FILTER_PARAMETER), "")
    paths = [path.strip() for path in given.split(",") if path.strip()]
    fields: set[str] = set()
    for path in paths:
        if path in _TOP_LEVEL_FIELDS:
            continue
        parts = path.split(".")
        if (
            path in _ALL_ITEMS_PATHS
            or len(parts) < _ITEM_PATH_DEPTH
            or parts[0] != "items"
            or parts[1] not in _FILTER_OPERATIONS
        ):
            return (
                _UNFILTERED
                if path not in {"items", "items.*", "items.**"}
                else ResponseFilter(_TOP_LEVEL_FIELDS & set(paths), None)
            )
        if parts[2] not in _ITEM_FIELDS:
            return _UNFILTERED
        fields.add(parts[2])
    return ResponseFilter(_TOP_LEVEL_FIELDS & set(paths), frozenset(fields)) if paths else _UNFILTERED


_CREATED_ITEM_SUFFIX: Final = CREATED_ITEM_SUFFIX.decode()
_BAD_REQUEST: Final = 400
_DUPLICATE_REASON: Final = "another document of this _id in the same request was refused: send this one again"


class ItemFailure:
    """Why a document was not taken."""

    __slots__ = ("cause", "status")

    def __init__(self, status: int, cause: Mapping[str, str]) -> None:
        self.status = status
        self.cause = cause


class BulkItems:
    """The documents of one request.

    Args:
        steps: the actions, each with its document.
        known: which documents are on disk already.

    Attributes:
        noops: positions of documents that ``index`` would change, which nothing does; known in full once it is settled.

    """

    def __init__(self, steps: list[BulkOperation], known: RecentDocumentIds) -> None:
        self.operations = steps
        self.document_ids: list[str] = []
        self._known = known
        self._first_positions: dict[DocumentKey, int] = {}
        self._duplicates: dict[int, int] = {}
        self._conflicts: set[int] = set()
        self.unchanged_positions: set[int] = set()
        self._find_duplicates()
        self._skipped = self._conflicts | self.unchanged_positions | self._duplicates.keys()

    def _find_duplicates(self) -> None:
        """Find what is there already: ``create`` may not make it again, and ``index`` changes nothing of it."""
        for position, (action, _) in enumerate(self.operations):
            if action.document_id is None or action.error:
                continue
            name = (action.index_name, action.document_id)
            earlier = self._first_positions.setdefault(name, position)
            if name in self._known:
                (self._conflicts if action.operation == CREATE else self.unchanged_positions).add(position)
            elif earlier != position:
                self._duplicates[position] = earlier

    def parse(self, site_config: SiteConfig, event_ids: Iterator[str]) -> Iterator[ParsedEvent]:
        """Read the documents one by one, but those that are known."""
        if not self._skipped:
            return parse_documents(self.operations, site_config, event_ids, self.document_ids)
        return self._parse_unskipped(site_config, event_ids)

    def _parse_unskipped(self, site: SiteConfig, identities: Iterator[str]) -> Iterator[ParsedEvent]:
        for position, step in enumerate(self.operations):
            if position in self._skipped:
                self.document_ids.append(step[0].document_id or "")
            else:
                yield from parse_documents((step,), site, identities, self.document_ids)

    def collect_failures(self, result: IngestResult) -> dict[int, ItemFailure]:
        """Note what is on disk now, and return why the other documents are not, by their position."""
        failures = self._build_failures(result)
        for name, position in self._first_positions.items():
            if position not in failures:
                self._known.add(name)
        return failures

    def _build_failures(self, outcome: IngestResult) -> dict[int, ItemFailure]:
        failures: dict[int, ItemFailure] = {}
        if outcome.rejected:
            read = [position for position in range(len(self.operations)) if position not in self._skipped]
            for index, error in outcome.rejected.items():
                position = read[index]
                failures[position] = ItemFailure(_BAD_REQUEST, item_error(error, self.operations[position][0].error))
        for position in self._conflicts:
            failures[position] = ItemFailure(CONFLICT, conflict_error(self.document_ids[position]))
        for position, earlier in self._duplicates.items():
            # Only where the first one is on disk is the second one there already.
            if earlier in failures and failures[earlier].status != CONFLICT:
                failures[position] = ItemFailure(TOO_MANY_REQUESTS, rejected_execution_error(_DUPLICATE_REASON))
            elif self.operations[position][0].operation == CREATE:
                failures[position] = ItemFailure(CONFLICT, conflict_error(self.document_ids[position]))
            else:
                self.unchanged_positions.add(position)
        return failures


def encode_bulk_response(
    items: BulkItems, failures: Mapping[int, ItemFailure], response_filter: ResponseFilter
) -> bytes:
    """Put together the answer to a bulk request."""
    heads = [b'"took":0'] if "took" in response_filter.top_level else []
    if "errors" in response_filter.top_level:
        heads.append(b'"errors":true' if failures else b'"errors":false')
    if response_filter.item_fields is None and not failures and not items.unchanged_positions and _are_uniform(items):
        before = items.operations[0][0].item_prefix.decode()
        text = f'"{_CREATED_ITEM_SUFFIX},{before}"'.join(items.document_ids)
        heads.append(f'"items":[{before}"{text}"{_CREATED_ITEM_SUFFIX}]'.encode())
        return b"{%b}" % b",".join(heads)
    parts = _encode_created_items(items, response_filter.item_fields)
    for position in items.unchanged_positions:
        action, identity = items.operations[position][0], items.document_ids[position]
        found = noop_item(action, identity)
        parts[position] = _encode_item(
            action, found if response_filter.item_fields is None else _select_fields(found, response_filter.item_fields)
        )
    for position, failure in failures.items():
        action, identity = items.operations[position][0], items.document_ids[position]
        parts[position] = _encode_failed_item(action, identity, failure, response_filter.item_fields)
    if response_filter.item_fields is not None:
        parts = [part for part in parts if part]
    if parts:
        heads.append(b'"items":[%b]' % b",".join(parts))
    return b"{%b}" % b",".join(heads)


def _are_uniform(items: BulkItems) -> bool:
    """Tell whether all documents came by one and the same action, and have names that are written as they are."""
    action, names = items.operations[0][0], "".join(items.document_ids)
    plain = names.isascii() and names.isprintable() and '"' not in names and "\\" not in names
    return plain and all(other is action for other, _ in items.operations)


def _encode_created_items(items: BulkItems, fields: frozenset[str] | None) -> list[bytes]:
    """Answer each document as one that was taken."""
    if fields is None:
        dumps = orjson.dumps
        return [
            b"%b%b%b" % (action.item_prefix, dumps(identity), CREATED_ITEM_SUFFIX)
            for (action, _), identity in zip(items.operations, items.document_ids, strict=True)
        ]
    if fields <= {"status", "error"}:
        part = b'{"%b":{"status":201}}' if "status" in fields else b""
        ready = {action.operation: part for action, _ in items.operations}
        ready = {name: part % name.encode() if part else b"" for name, part in ready.items()}
        return [ready[action.operation] for action, _ in items.operations]
    return [
        _encode_item(action, _select_fields(_created_item(action, identity), fields))
        for (action, _), identity in zip(items.operations, items.document_ids, strict=True)
    ]


def _created_item(action: BulkAction, identity: str) -> dict[str, Any]:
    whole: dict[str, Any] = orjson.loads(action.item_prefix + orjson.dumps(identity) + CREATED_ITEM_SUFFIX)
    result: dict[str, Any] = whole[action.operation]
    return result


def _encode_failed_item(
    action: BulkAction, identity: str, failure: ItemFailure, fields: frozenset[str] | None
) -> bytes:
    found = {"_index": action.index_name, "_id": identity or None, "status": failure.status, "error": failure.cause}
    return _encode_item(action, found if fields is None else _select_fields(found, fields))


def _select_fields(item: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name in fields}


def _encode_item(action: BulkAction, item: Mapping[str, Any]) -> bytes:
    return orjson.dumps({action.operation: item}) if item else b""


def created_document(action: BulkAction, document_id: str) -> dict[str, Any]:
    """Describe a single document that was taken."""
    return single_document(_created_item(action, document_id))


def single_document(item: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a document that stands alone, as it is described among others; some clients need a sequence number."""
    return {**{name: value for name, value in item.items() if name != "status"}, "_seq_no": 0, "_primary_term": 1}


def noop_item(action: BulkAction, identity: str) -> dict[str, Any]:
    """Describe a document that is there already, and is what it was."""
    return {**_created_item(action, identity), "result": "noop", "status": 200}
