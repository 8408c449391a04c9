"""``_bulk`` requests: parse the action and document lines, convert documents to events, and encode the response.

A request's lines alternate between an action and its document. The response is assembled from ready-made parts, as
most documents are accepted and their items differ in the ``_id`` only.

``filter_path`` selects parts of the response. Beats, Logstash and Fluent Bit send
``errors,items.*.error,items.*.status``, others ``errors``; these forms are supported. Exclusions (``-took``) and other
forms return the whole response, of which clients use what they need.

Source: Elasticsearch's documentation of its bulk API and of response filtering, and what its parser accepts.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import length_hint
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import IngestConfig, derive_event_ids, generate_event_ids, mark_duplicates
from metronome.fields import EVENT_ID_MAX_BYTES, TIMESTAMP_FIELDS
from metronome.protocol import IngestResult, ParsedEvent, Request, json_type_name
from metronome.protocols.elasticsearch.errors import item_error
from metronome.protocols.records import event_from_record

CREATE: Final = "create"
INDEX: Final = "index"
DEFAULT_INDEX: Final = "metronome"
"""The index in the response for a document without one."""

_OPERATIONS_WITH_SOURCE: Final = frozenset({CREATE, INDEX, "update"})
_OPERATIONS: Final = frozenset({*_OPERATIONS_WITH_SOURCE, "delete"})
_INDEX_MAX_BYTES: Final = 255
_SAFE_CHARACTERS: Final = _INDEX_MAX_BYTES // 4
"""This many characters fit into each limit here, whatever they are."""
_CONDITION_PARAMETERS: Final = frozenset({"if_seq_no", "if_primary_term"})
_WHITESPACE: Final = b" \t\r\n"
_EVENT_ID_FIELD: Final = "event_id"
_RECORD_EVENT_ID_FIELD: Final = "record_event_id"
_TIME_FIELD_PREFIXES: Final = tuple(f'"{name}":'.encode() for name in TIMESTAMP_FIELDS)
_MIN_EPOCH_MILLISECONDS: Final = 100_000_000_000
"""Numbers from here on are milliseconds (see `metronome.times`)."""
_BAD_REQUEST: Final = 400
_CREATED_SUFFIX: Final = (
    b',"_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"status":201}}'
)
"""What follows the ``_id`` in the item of an accepted document."""
_CREATED_SUFFIX_TEXT: Final = _CREATED_SUFFIX.decode()

_FILTER_PARAMETER: Final = "filter_path"
_TOP_LEVEL_FIELDS: Final = frozenset({"took", "errors"})
_ALL_ITEMS_PATHS: Final = frozenset({"items", "items.*", "items.**", "**", "*"})
_FILTER_OPERATIONS: Final = frozenset({"*", "create", "index"})
_ITEM_FIELDS: Final = frozenset({"_index", "_id", "_version", "result", "_shards", "status", "error"})
_FILTER_MAX_CHARACTERS: Final = 500
_ITEM_PATH_DEPTH: Final = 3


class BulkAction(NamedTuple):
    """What to do with a document.

    Attributes:
        operation: ``create``, ``index``, or one that is not supported.
        index_name: as the sender named it.
        document_id: None if the sender gave none.
        error: why the action is not possible, or empty.
        item_prefix: the beginning of the action's item in the response.

    """

    operation: str
    index_name: str
    document_id: str | None
    error: str
    item_prefix: bytes


BulkOperation = tuple[BulkAction, bytes | None]
"""An action and the source of its document; None where the action has no document."""


class BulkDocuments(NamedTuple):
    """The documents of a request.

    Attributes:
        operations: in the order of the request.
        document_ids: the ``_id`` in the response of each document parsed so far; empty if there is none.

    """

    operations: list[BulkOperation]
    document_ids: list[str]


class ItemFailure(NamedTuple):
    """Why a document was rejected."""

    status: int
    error: Mapping[str, str]


class ResponseFilter(NamedTuple):
    """The parts of a response that a client wants.

    Attributes:
        top_level: fields beside ``items``.
        item_fields: fields of each item, or None for all.

    """

    top_level: frozenset[str]
    item_fields: frozenset[str] | None


_UNFILTERED: Final = ResponseFilter(_TOP_LEVEL_FIELDS, None)


def build_action(operation: str, index_name: str, document_id: str | None, error: str = "") -> BulkAction:
    """Build an action with the beginning of its item."""
    return BulkAction(operation, index_name, document_id, error, _item_prefix(operation, index_name))


@lru_cache(maxsize=256)
def _item_prefix(operation: str, index_name: str) -> bytes:
    return b'{"%b":{"_index":%b,"_id":' % (operation.encode(), orjson.dumps(index_name))


def parse_bulk_body(body: bytes, default_index: str, max_actions: int) -> list[BulkOperation]:
    """Split a request into actions and documents; documents are not parsed yet.

    An action that is not possible is rejected by itself if it is clear which lines belong to it. Otherwise it is not
    clear which lines are documents, and the request is rejected.

    Args:
        body: of the request.
        default_index: the index of actions that name none.
        max_actions: how many actions the request may hold.

    Raises:
        Malformed: a line that should be an action is not one, or there is no action.
        PayloadTooLarge: there are more than *max_actions*.

    """
    lines = body.split(b"\n")
    line_iterator = iter(lines)
    operations: list[BulkOperation] = []
    parsed_actions: dict[bytes, BulkAction] = {}
    for line in line_iterator:
        action = parsed_actions.get(line)
        if action is None:
            if not line.strip(_WHITESPACE):
                continue
            action = _parse_action(line, default_index, len(lines) - length_hint(line_iterator))
            if action.document_id is None:
                parsed_actions[line] = action
        operations.append((action, next(line_iterator, b"") if action.operation in _OPERATIONS_WITH_SOURCE else None))
        if len(operations) > max_actions:
            raise PayloadTooLarge(f"over {max_actions} actions: send fewer at once, or raise batch_max_events")
    if not operations:
        raise Malformed("the body has no action: send lines that alternate between an action and its document")
    return operations


def _parse_action(line: bytes, default_index: str, line_number: int) -> BulkAction:
    prefix = f"Malformed action/metadata line [{line_number}]: "
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"{prefix}invalid JSON: {error}") from None
    if type(value) is dict:
        # Clients may add keys of their own beside the action: winston sends "attempts".
        operations = value if len(value) == 1 else [name for name in value if name in _OPERATIONS]
        if len(operations) == 1:
            (operation,) = operations
            metadata = value[operation]
            if operation in _OPERATIONS and type(metadata) is dict:
                return _action_from_metadata(operation, metadata, default_index)
    raise Malformed(f'{prefix}expected one of create, index, update and delete, as in {{"create":{{"_index":"x"}}}}')


def _action_from_metadata(operation: str, metadata: dict[str, Any], default_index: str) -> BulkAction:
    """Build an action; metadata that has no effect here, such as a pipeline, may have any value."""
    index_name = metadata.get("_index")
    document_id = metadata.get("_id")
    if type(document_id) is int:
        document_id = str(document_id)
    if operation == INDEX and metadata.get("op_type") == CREATE:
        operation = CREATE
    index_or_default = index_name if type(index_name) is str and index_name else default_index
    if operation not in {CREATE, INDEX}:
        error = f"{operation} is not supported: events are only added, with create or index"
    elif document_id is not None and type(document_id) is not str:
        return build_action(operation, index_or_default, None, f"_id is {json_type_name(document_id)}: send a string")
    else:
        error = _name_error(index_name, document_id) or _condition_error(metadata)
    known_id = document_id if type(document_id) is str and document_id else None
    return build_action(operation, index_or_default, known_id, error)


def _name_error(index_name: object, document_id: str | None) -> str:
    if type(index_name) is str:
        if len(index_name) > _SAFE_CHARACTERS and len(index_name.encode()) > _INDEX_MAX_BYTES:
            return f"_index is over {_INDEX_MAX_BYTES} bytes"
    elif index_name is not None:
        return f"_index is {json_type_name(index_name)}: send a string"
    return "" if document_id is None else document_id_error(document_id)


def document_id_error(document_id: str) -> str:
    """Return why an ``_id`` is invalid, or an empty text."""
    if not document_id:
        return "if _id is specified it must not be empty"
    if len(document_id) > _SAFE_CHARACTERS and len(document_id.encode(errors="replace")) > EVENT_ID_MAX_BYTES:
        return f"_id is over {EVENT_ID_MAX_BYTES} bytes: send a hash of it"
    return ""


def _condition_error(metadata: dict[str, Any]) -> str:
    names = _CONDITION_PARAMETERS & metadata.keys()
    return f"{', '.join(sorted(names))} not supported: events are only added, never changed" if names else ""


def event_ids_for(request: Request, operations: list[BulkOperation]) -> Iterator[str]:
    """Return the event IDs for documents without an ``_id``.

    A shipper that gets no reply sends its request again. If a request can be told from every other by its content, its
    event IDs are derived from the content, so that a resend is not counted twice. That is so where each document has a
    time and there are at least two, or where the only one has a time finer than a second. Otherwise each document gets
    a new ID: two equal documents are two events.
    """
    new_ids = request.event_ids or generate_event_ids()
    sources = [source for action, source in operations if source is not None and action.document_id is None]
    if "Idempotency-Key" in request.headers or not (sources and _all_seem_timestamped(sources)):
        return new_ids
    if len(sources) == 1 and not _has_subsecond_timestamp(sources[0]):
        return new_ids
    return derive_event_ids(b"%b\n%b" % (request.path.encode(errors="replace"), request.body))


def _all_seem_timestamped(sources: list[bytes]) -> bool:
    """Return whether every document contains the name of a time field.

    Documents are not parsed: the name may belong to an inner object, which tells a document from others as well.
    """
    likely_prefix = next((prefix for prefix in _TIME_FIELD_PREFIXES if prefix in sources[0]), None)
    if likely_prefix is None:
        return False
    others = [source for source in sources if likely_prefix not in source]
    return all(any(prefix in source for prefix in _TIME_FIELD_PREFIXES) for source in others)


def _has_subsecond_timestamp(source: bytes) -> bool:
    try:
        document = orjson.loads(source)
    except orjson.JSONDecodeError:
        return False
    if type(document) is not dict:
        return False
    time = next((document[name] for name in TIMESTAMP_FIELDS if document.get(name) is not None), None)
    if isinstance(time, str):
        fraction = time.partition(".")[2].rstrip("Zz").partition("+")[0]
        return fraction.strip("0") != ""
    return isinstance(time, (int, float)) and time % (1000 if time >= _MIN_EPOCH_MILLISECONDS else 1) != 0


def parse_documents(documents: BulkDocuments, config: IngestConfig, event_ids: Iterator[str]) -> Iterator[ParsedEvent]:
    """Parse documents one by one as the caller iterates, and note the ``_id`` of each in ``documents.document_ids``.

    Args:
        documents: of one request, none parsed yet.
        config: the operator's items and hosts.
        event_ids: for documents without an ``_id``.

    """
    note_id = documents.document_ids.append
    previous_action: BulkAction | None = None
    action_id: str | None = None
    action_error = ""
    for action, source in documents.operations:
        if action is not previous_action:
            previous_action, action_id, action_error = action, action.document_id, action.error
        try:
            document = orjson.loads(source or b"")
        except orjson.JSONDecodeError as error:
            document = error
        if action_error or type(document) is not dict:
            note_id(action_id or "")
            yield _document_error(action_error, source, document)
            continue
        if source is not None and source.count(b'":') != len(document):
            _mark_duplicate_fields(document, source)
        event = event_from_record(document, config, source)
        # The event's fields are the document or a copy, which no other holds.
        fields: Any = event.fields
        document_id = _resolve_event_id(fields, action_id) if _EVENT_ID_FIELD in fields else action_id
        if document_id is None:
            document_id = next(event_ids)
        fields[_EVENT_ID_FIELD] = document_id
        note_id(document_id)
        yield event


def _document_error(action_error: str, source: bytes | None, document: object) -> Malformed:
    if action_error:
        return Malformed(action_error)
    if not source:
        return Malformed("the document's line is missing")
    if isinstance(document, ValueError):
        return Malformed(f"invalid JSON: {document}; numbers must be finite, and text UTF-8 without lone surrogates")
    return Malformed(f"expected a JSON object as document, got {json_type_name(document)}")


def _resolve_event_id(fields: dict[str, Any], action_id: str | None) -> str | None:
    """Return the ID of an event that has an ``event_id``: the action's ``_id`` wins, and the other is kept beside."""
    own_id = fields.pop(_EVENT_ID_FIELD)
    if action_id is None:
        return str(own_id) if type(own_id) in (str, int) and own_id != "" else None
    if own_id not in (None, "", action_id):
        fields[_RECORD_EVENT_ID_FIELD] = own_id
    return action_id


def _mark_duplicate_fields(document: dict[str, Any], source: bytes) -> None:
    # A document with objects or arrays is stored with its source anyway.
    if {dict, list} & set(map(type, document.values())):
        return
    mark_duplicates(document, [name for name, _ in json.loads(source, object_pairs_hook=list, parse_int=float)])


def parse_filter_path(query: str) -> ResponseFilter:
    """Return the parts of the response that a query's ``filter_path`` selects."""
    if _FILTER_PARAMETER in query and len(query) <= _FILTER_MAX_CHARACTERS:
        return _parse_cached_filter_path(query)
    return _UNFILTERED


@lru_cache(maxsize=256)
def _parse_cached_filter_path(query: str) -> ResponseFilter:
    filter_path = next((value for name, value in parse_qsl(query) if name == _FILTER_PARAMETER), "")
    paths = [path.strip() for path in filter_path.split(",") if path.strip()]
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


def item_failures(documents: BulkDocuments, result: IngestResult) -> dict[int, ItemFailure]:
    """Return why documents were rejected, by their position in the request."""
    return {
        position: ItemFailure(_BAD_REQUEST, item_error(error, documents.operations[position][0].error))
        for position, error in result.rejected.items()
    }


def encode_bulk_response(
    documents: BulkDocuments, failures: Mapping[int, ItemFailure], response_filter: ResponseFilter
) -> bytes:
    """Encode the response to a ``_bulk`` request."""
    operations, document_ids = documents
    members = [b'"took":0'] if "took" in response_filter.top_level else []
    if "errors" in response_filter.top_level:
        members.append(b'"errors":true' if failures else b'"errors":false')
    if response_filter.item_fields is None and not failures and _are_uniform(documents):
        prefix = operations[0][0].item_prefix.decode()
        ids = f'"{_CREATED_SUFFIX_TEXT},{prefix}"'.join(document_ids)
        members.append(f'"items":[{prefix}"{ids}"{_CREATED_SUFFIX_TEXT}]'.encode())
        return b"{%b}" % b",".join(members)
    items = _encode_created_items(documents, response_filter.item_fields)
    for position, failure in failures.items():
        action, document_id = operations[position][0], document_ids[position]
        items[position] = _encode_failed_item(action, document_id, failure, response_filter.item_fields)
    if response_filter.item_fields is not None:
        items = [item for item in items if item]
    if items:
        members.append(b'"items":[%b]' % b",".join(items))
    return b"{%b}" % b",".join(members)


def _are_uniform(documents: BulkDocuments) -> bool:
    """Return whether all documents have the same action, and IDs that need no escapes in JSON."""
    operations, document_ids = documents
    action, ids = operations[0][0], "".join(document_ids)
    plain = ids.isascii() and ids.isprintable() and '"' not in ids and "\\" not in ids
    return plain and all(other is action for other, _ in operations)


def _encode_created_items(documents: BulkDocuments, item_fields: frozenset[str] | None) -> list[bytes]:
    operations, document_ids = documents
    if item_fields is None:
        dumps = orjson.dumps
        return [
            b"%b%b%b" % (action.item_prefix, dumps(document_id), _CREATED_SUFFIX)
            for (action, _), document_id in zip(operations, document_ids, strict=True)
        ]
    if item_fields <= {"status", "error"}:
        template = b'{"%b":{"status":201}}' if "status" in item_fields else b""
        names = {action.operation for action, _ in operations}
        items = {name: template % name.encode() if template else b"" for name in names}
        return [items[action.operation] for action, _ in operations]
    return [
        _encode_item(action, _select_fields(_created_item(action, document_id), item_fields))
        for (action, _), document_id in zip(operations, document_ids, strict=True)
    ]


def _created_item(action: BulkAction, document_id: str) -> dict[str, Any]:
    items: dict[str, Any] = orjson.loads(action.item_prefix + orjson.dumps(document_id) + _CREATED_SUFFIX)
    item: dict[str, Any] = items[action.operation]
    return item


def _encode_failed_item(
    action: BulkAction, document_id: str, failure: ItemFailure, item_fields: frozenset[str] | None
) -> bytes:
    item = {
        "_index": action.index_name,
        "_id": document_id or None,
        "status": failure.status,
        "error": failure.error,
    }
    return _encode_item(action, item if item_fields is None else _select_fields(item, item_fields))


def _select_fields(item: Mapping[str, Any], item_fields: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name in item_fields}


def _encode_item(action: BulkAction, item: Mapping[str, Any]) -> bytes:
    return orjson.dumps({action.operation: item}) if item else b""


def created_document(action: BulkAction, document_id: str) -> dict[str, Any]:
    """Return the response to a single document that was accepted; some clients need a sequence number."""
    item = _created_item(action, document_id)
    del item["status"]
    return {**item, "_seq_no": 0, "_primary_term": 1}
