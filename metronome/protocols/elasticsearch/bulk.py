"""``_bulk`` requests: parse the action and document lines, convert documents to events, and encode the response.

A request's lines alternate between an action and its document. The response is assembled from ready-made parts, as
most documents are accepted and their items differ in the ``_id`` only.

``filter_path`` selects parts of the response. Beats, Logstash and Fluent Bit send
``errors,items.*.error,items.*.status``, others ``errors``; these forms are supported. Exclusions (``-took``) and other
forms return the whole response, of which clients use what they need.

Source: Elasticsearch's documentation of its bulk API and of response filtering, and what its parser accepts.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from operator import length_hint
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import orjson

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import IngestConfig, derive_event_ids, exact_scalar_text, generate_event_ids, mark_duplicates
from metronome.fields import EVENT_ID_MAX_BYTES, TIMESTAMP_FIELDS
from metronome.protocol import EVENT_MAX_VALUES, IngestResult, ParsedEvent, Request, json_type_name, load_json
from metronome.protocols.elasticsearch.errors import item_error
from metronome.protocols.records import event_from_record

CREATE: Final = "create"
INDEX: Final = "index"
UPDATE: Final = "update"
DEFAULT_INDEX: Final = "metronome"
"""The index in the response for a document without one."""

_OPERATIONS_WITH_SOURCE: Final = frozenset({CREATE, INDEX, UPDATE})
_OPERATIONS: Final = frozenset({*_OPERATIONS_WITH_SOURCE, "delete"})
_INDEX_MAX_BYTES: Final = 255
_SAFE_CHARACTERS: Final = _INDEX_MAX_BYTES // 4
"""This many characters fit into each limit here, whatever they are."""
_CONDITION_PARAMETERS: Final = frozenset({"if_seq_no", "if_primary_term"})
_WHITESPACE: Final = b" \t\r\n"
_EVENT_ID_FIELD: Final = "event_id"
_RECORD_EVENT_ID_FIELD: Final = "record_event_id"
_SUBSECOND_TIME_PATTERN: Final = re.compile(
    rb'"(?:%b)"[ \t]*+:[ \t]*+"?+[ \t]*+(?:' % "|".join(map(re.escape, TIMESTAMP_FIELDS)).encode()
    + rb"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d[.,]0*+[1-9]"
    + rb"|\d{9,10}\.0*+[1-9]"
    + rb"|\d{10}(?:(?!000)\d{3}|(?!0{6})\d{6}|(?!0{9})\d{9})(?!\d))"
)
"""A time field whose value is finer than a second: ISO 8601, seconds, or milli-, micro- or nanoseconds."""
_BAD_REQUEST: Final = 400
_DOCUMENT_TYPE: Final = "_doc"
_CREATED_SUFFIX: Final = (
    b',"_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"status":201}}'
)
"""What follows the ``_id`` in the item of an accepted document."""
_CREATED_SUFFIX_TEXT: Final = _CREATED_SUFFIX.decode()

_KNOWN_UPDATE_ERROR: Final = (
    "update of an _id that this request has created already: events are only added, not changed"
)

_FILTER_PARAMETER: Final = "filter_path"
_TOP_LEVEL_FIELDS: Final = frozenset({"took", "errors"})
_ALL_ITEMS_PATHS: Final = frozenset({"items", "items.*", "items.**", "**", "*"})
_FILTER_OPERATIONS: Final = frozenset({"*", CREATE, INDEX, UPDATE})
_ITEM_FIELDS: Final = frozenset({"_index", "_type", "_id", "_version", "result", "_shards", "status", "error"})
_FILTER_MAX_CHARACTERS: Final = 500
_ITEM_PATH_DEPTH: Final = 3


class BulkAction(NamedTuple):
    """What to do with a document.

    Attributes:
        operation: ``create``, ``index``, ``update``, or one that is not supported.
        index_name: as the sender named it.
        document_id: None if the sender gave none.
        error: why the action is not possible, or empty.

    """

    operation: str
    index_name: str
    document_id: str | None
    error: str = ""


BulkOperation = tuple[BulkAction, bytes | None]
"""An action and the source of its document; None where the action has no document."""


class BulkDocuments(NamedTuple):
    """The documents of a request.

    Attributes:
        operations: in the order of the request.
        document_ids: the ``_id`` in the response of each document parsed so far; empty if there is none.
        with_type: whether the response names the ``_type`` of each document, as clients of version 7 need.

    """

    operations: list[BulkOperation]
    document_ids: list[str]
    with_type: bool = False


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


@lru_cache(maxsize=256)
def _item_prefix(operation: str, index_name: str, *, with_type: bool) -> bytes:
    """Return the beginning of an action's item in the response."""
    document_type = b'"_type":"%b",' % _DOCUMENT_TYPE.encode() if with_type else b""
    return b'{"%b":{"_index":%b,%b"_id":' % (operation.encode(), orjson.dumps(index_name), document_type)


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
                document_id = metadata.get("_id")
                if type(document_id) in (int, float, bool):
                    metadata["_id"] = exact_scalar_text(line, operation, "_id")
                return _action_from_metadata(operation, metadata, default_index)
    raise Malformed(f'{prefix}expected one of create, index, update and delete, as in {{"create":{{"_index":"x"}}}}')


def _action_from_metadata(operation: str, metadata: dict[str, Any], default_index: str) -> BulkAction:
    """Build an action; metadata that has no effect here, such as a pipeline, may have any value."""
    index_name = metadata.get("_index")
    document_id = metadata.get("_id")
    if operation == INDEX and metadata.get("op_type") == CREATE:
        operation = CREATE
    index_or_default = index_name if type(index_name) is str and index_name else default_index
    if operation not in _OPERATIONS_WITH_SOURCE:
        error = f"{operation} is not supported: events are only added, with create or index"
    elif document_id is not None and type(document_id) is not str:
        return BulkAction(operation, index_or_default, None, f"_id is {json_type_name(document_id)}: send a string")
    elif operation == UPDATE and document_id is None:
        error = "an update needs an _id: send one, or use create"
    else:
        error = _name_error(index_name, document_id) or _condition_error(metadata)
    known_id = document_id if type(document_id) is str and document_id else None
    return BulkAction(operation, index_or_default, known_id, error)


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

    A shipper that gets no reply sends its request again. Equal content does not prove that: a busy site has many equal
    events in one second. But if a document's time is finer than that, another request has another content, so the event
    IDs are derived from the content, and a resend is not counted twice. Otherwise each document gets a new ID.
    """
    new_ids = request.event_ids or generate_event_ids()
    if "Idempotency-Key" in request.headers or not any(
        source is not None and action.document_id is None and _SUBSECOND_TIME_PATTERN.search(source)
        for action, source in operations
    ):
        return new_ids
    return derive_event_ids(b"%b\n%b" % (request.path.encode(errors="replace"), request.body))


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
    known_sources: dict[str, bytes | None] | None = (
        {} if any(action.operation == UPDATE for action, _ in documents.operations) else None
    )
    for action, source in documents.operations:
        if action is not previous_action:
            previous_action, action_id, action_error = action, action.document_id, action.error
        try:
            document: Any = load_json(source or b"", EVENT_MAX_VALUES)
        except (orjson.JSONDecodeError, PayloadTooLarge) as error:
            document = error
        if action_error or type(document) is not dict:
            note_id(action_id or "")
            yield _document_error(action_error, source, document)
            continue
        if known_sources is not None and action_id is not None:
            is_changed = action.operation == UPDATE and known_sources.setdefault(action_id, source) != source
            upserted = Malformed(_KNOWN_UPDATE_ERROR) if is_changed else _document_to_create(action, document)
            if isinstance(upserted, Malformed):
                note_id(action_id)
                yield upserted
                continue
            known_sources.setdefault(action_id, source)
            document = upserted
        # The source of an update has more than the document.
        original = source if action.operation != UPDATE else None
        if original is not None and original.count(b'":') != len(document):
            _mark_duplicate_fields(document, original)
        event = event_from_record(document, config, original)
        # The event's fields are the document or a copy, which no other holds.
        fields: Any = event.fields
        document_id = _resolve_event_id(fields, action_id, original) if _EVENT_ID_FIELD in fields else action_id
        if document_id is None:
            document_id = next(event_ids)
        fields[_EVENT_ID_FIELD] = document_id
        note_id(document_id)
        yield event


def _document_to_create(action: BulkAction, document: dict[str, Any]) -> dict[str, Any] | Malformed:
    """Return the document that an action creates if its ``_id`` is new."""
    if action.operation != UPDATE:
        return document
    name = "doc" if document.get("doc_as_upsert") is True else "upsert"
    created = document.get(name)
    if type(created) is not dict or document.get("scripted_upsert") is True:
        return Malformed("update is not supported without doc_as_upsert or upsert: events are only added, not changed")
    return created


def _document_error(action_error: str, source: bytes | None, document: object) -> Malformed:
    if action_error:
        return Malformed(action_error)
    if not source:
        return Malformed("the document's line is missing")
    if isinstance(document, PayloadTooLarge):
        return Malformed(str(document))
    if isinstance(document, ValueError):
        return Malformed(f"invalid JSON: {document}; numbers must be finite, and text UTF-8 without lone surrogates")
    return Malformed(f"expected a JSON object as document, got {json_type_name(document)}")


def _resolve_event_id(fields: dict[str, Any], action_id: str | None, source: bytes | None) -> str | None:
    """Return the ID of an event that has an ``event_id``: the action's ``_id`` wins, and the other is kept beside."""
    own_id = fields.pop(_EVENT_ID_FIELD)
    if action_id is None:
        if type(own_id) in (int, float, bool):
            return str(own_id) if source is None else exact_scalar_text(source, _EVENT_ID_FIELD)
        return own_id if type(own_id) is str and own_id != "" else None
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
        position: ItemFailure(
            _BAD_REQUEST, item_error(error, is_content=_is_content_error(documents.operations[position][0]))
        )
        for position, error in result.rejected.items()
    }


def _is_content_error(action: BulkAction) -> bool:
    """Return whether what is wrong with a rejected document is its content rather than the action."""
    return not action.error and action.operation != UPDATE


def encode_bulk_response(
    documents: BulkDocuments, failures: Mapping[int, ItemFailure], response_filter: ResponseFilter
) -> bytes:
    """Encode the response to a ``_bulk`` request."""
    operations, document_ids, with_type = documents
    members = [b'"took":0'] if "took" in response_filter.top_level else []
    if "errors" in response_filter.top_level:
        members.append(b'"errors":true' if failures else b'"errors":false')
    if response_filter.item_fields is None and not failures and _are_uniform(documents):
        action = operations[0][0]
        prefix = _item_prefix(action.operation, action.index_name, with_type=with_type).decode()
        ids = f'"{_CREATED_SUFFIX_TEXT},{prefix}"'.join(document_ids)
        members.append(f'"items":[{prefix}"{ids}"{_CREATED_SUFFIX_TEXT}]'.encode())
        return b"{%b}" % b",".join(members)
    items = _encode_created_items(documents, response_filter.item_fields)
    for position, failure in failures.items():
        action, document_id = operations[position][0], document_ids[position]
        item: dict[str, Any] = {
            "_index": action.index_name,
            **({"_type": _DOCUMENT_TYPE} if with_type else {}),
            "_id": document_id or None,
            "status": failure.status,
            "error": failure.error,
        }
        items[position] = _encode_item(action, _select_fields(item, response_filter.item_fields))
    if response_filter.item_fields is not None:
        items = [item for item in items if item]
    if items:
        members.append(b'"items":[%b]' % b",".join(items))
    return b"{%b}" % b",".join(members)


def _are_uniform(documents: BulkDocuments) -> bool:
    """Return whether all documents have the same action, and IDs that need no escapes in JSON."""
    operations, document_ids, _ = documents
    action, ids = operations[0][0], "".join(document_ids)
    plain = ids.isascii() and ids.isprintable() and '"' not in ids and "\\" not in ids
    return plain and all(other is action for other, _ in operations)


def _encode_created_items(documents: BulkDocuments, item_fields: frozenset[str] | None) -> list[bytes]:
    operations, document_ids, with_type = documents
    if item_fields is None:
        dumps = orjson.dumps
        return [
            b"%b%b%b"
            % (
                _item_prefix(action.operation, action.index_name, with_type=with_type),
                dumps(document_id),
                _CREATED_SUFFIX,
            )
            for (action, _), document_id in zip(operations, document_ids, strict=True)
        ]
    if item_fields <= {"status", "error"}:
        template = b'{"%b":{"status":201}}' if "status" in item_fields else b""
        names = {action.operation for action, _ in operations}
        items = {name: template % name.encode() if template else b"" for name in names}
        return [items[action.operation] for action, _ in operations]
    return [
        _encode_item(action, _select_fields(_created_item(action, document_id, with_type=with_type), item_fields))
        for (action, _), document_id in zip(operations, document_ids, strict=True)
    ]


def _created_item(action: BulkAction, document_id: str, *, with_type: bool) -> dict[str, Any]:
    prefix = _item_prefix(action.operation, action.index_name, with_type=with_type)
    items: dict[str, Any] = orjson.loads(prefix + orjson.dumps(document_id) + _CREATED_SUFFIX)
    item: dict[str, Any] = items[action.operation]
    return item


def _select_fields(item: Mapping[str, Any], item_fields: frozenset[str] | None) -> Mapping[str, Any]:
    return item if item_fields is None else {name: value for name, value in item.items() if name in item_fields}


def _encode_item(action: BulkAction, item: Mapping[str, Any]) -> bytes:
    return orjson.dumps({action.operation: item}) if item else b""


def created_document(documents: BulkDocuments) -> dict[str, Any]:
    """Return the response to a single document that was accepted; some clients need a sequence number."""
    (action, _), document_id = documents.operations[0], documents.document_ids[0]
    item = _created_item(action, document_id, with_type=documents.with_type)
    del item["status"]
    return {**item, "_seq_no": 0, "_primary_term": 1}
