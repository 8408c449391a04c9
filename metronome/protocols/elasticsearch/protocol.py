"""Elasticsearch's protocol for sending events: ``_bulk``, single documents, and the handshakes of clients.

Index names are not kept: they are repeated in the reply. A document's ``_id`` is its event's ``event_id``, which the
store deduplicates within a UTC day, so a document that is sent again is answered like a new one.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from metronome.errors import Malformed, MethodNotAllowed, MetronomeError, SpoolFull, describe_to_client
from metronome.protocol import (
    IngestResult,
    ParsedRequest,
    Reply,
    Request,
    basic_password,
    bearer_token,
    elasticsearch_api_key,
)
from metronome.protocols.elasticsearch.bulk import (
    CREATE,
    DEFAULT_INDEX,
    BulkAction,
    BulkDocuments,
    ItemFailure,
    created_document,
    document_id_error,
    encode_bulk_response,
    event_ids_for,
    item_failures,
    parse_bulk_body,
    parse_documents,
    parse_filter_path,
)
from metronome.protocols.elasticsearch.errors import (
    TOO_MANY_REQUESTS,
    elasticsearch_error_headers,
    elasticsearch_status,
    error_body,
    rejected_execution_error,
    wrap_error,
)
from metronome.protocols.elasticsearch.rest_api import (
    BULK_ENDPOINT,
    PathParameters,
    RouteMatch,
    WriteEndpoint,
    allowed_methods,
    match_route,
)

_PRODUCT_HEADERS: Final = {"X-Elastic-Product": "Elasticsearch"}
_JSON_CONTENT_TYPE: Final = "application/json"
_TEXT_CONTENT_TYPE: Final = "text/plain"
_COMPATIBLE_MEDIA_TYPE: Final = re.compile(
    r"application/vnd\.elasticsearch\+[a-z-]{1,20}\s*;\s*compatible-with\s*=\s*([0-9]{1,2})", re.IGNORECASE
)
_OLD_CLIENT: Final = re.compile(r"\b(?:es=|elasticsearch-java/)[5-7]\.|^Apache-HttpAsyncClient/", re.IGNORECASE)
"""How clients of version 7 and before name themselves; Java's did not until 7.9."""
_PRETTY_EMPTY: Final = re.compile(r"(?<= |\[)([\[{])([\]}])(?=,?$)", re.MULTILINE)
_UNKNOWN_INDEX_UUID: Final = "_na_"
_PRETTY_PARAMETER: Final = "pretty"
_TYPED_VERSION: Final = "7"
_OPTIONS: Final = "OPTIONS"


def extract_key(request: Request) -> str:
    """Return the key: a password, an API key or a token (see `Protocol.extract_key`)."""
    headers = request.headers
    return basic_password(headers) or elasticsearch_api_key(headers) or bearer_token(headers)


def parse(request: Request) -> ParsedRequest:
    """Parse the documents of a request; a handshake has none (see `Protocol.parse`)."""
    route = _match_request(request)
    if isinstance(route, MetronomeError) or not isinstance(route.target, WriteEndpoint):
        return ParsedRequest((), is_batch=False, context=route)
    if route.target is BULK_ENDPOINT:
        index = route.path_parameters.get("index", DEFAULT_INDEX)
        operations = parse_bulk_body(request.body, index, request.max_events)
        documents = BulkDocuments(operations, [], _needs_type(request))
    else:
        documents = _single_document(request, route.target, route.path_parameters)
    events = parse_documents(documents, request.config, event_ids_for(request, documents.operations))
    return ParsedRequest(events, is_batch=route.target is BULK_ENDPOINT, context=documents)


def reply(request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
    """Report the result of each document, or answer a handshake (see `Protocol.reply`)."""
    context = parsed.context
    if isinstance(context, MetronomeError):
        return reply_error(request, context)
    if isinstance(context, RouteMatch):
        return _handshake_reply(request, context)
    documents: BulkDocuments = context
    failures = item_failures(documents, result)
    if parsed.is_batch:
        response_filter = parse_filter_path(request.query)
        return _json_reply(request, 200, encode_bulk_response(documents, failures, response_filter))
    if failures:
        index_name = documents.operations[0][0].index_name
        cause: dict[str, Any] = {**failures[0].error, "index_uuid": _UNKNOWN_INDEX_UUID, "index": index_name}
        return _json_reply(request, failures[0].status, orjson.dumps(wrap_error(cause, failures[0].status)))
    return _json_reply(request, 201, orjson.dumps(created_document(documents)))


def reply_error(request: Request, error: MetronomeError) -> Reply:
    """Say why no document was accepted (see `Protocol.reply_error`).

    While the spool is full, a ``_bulk`` request is answered 200 with 429 for each document, so that shippers keep and
    resend them. Senders that only check the status of the request set ``busy=whole`` in the query and get 429 for it.
    """
    if isinstance(error, SpoolFull) and request.body and parse_qs(request.query).get("busy") != ["whole"]:
        route = _match_request(request)
        if isinstance(route, RouteMatch) and route.target is BULK_ENDPOINT:
            return _spool_full_reply(request, route.path_parameters, error)
    status = elasticsearch_status(error)
    headers = elasticsearch_error_headers(error)
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = allowed_methods(request.path) or _OPTIONS
    return _json_reply(request, status, orjson.dumps(error_body(error, status)), headers)


def _match_request(request: Request) -> RouteMatch | MetronomeError:
    try:
        return match_route(request.method, request.path)
    except MetronomeError as error:
        return error


def _single_document(request: Request, endpoint: WriteEndpoint, path_parameters: PathParameters) -> BulkDocuments:
    operation = CREATE if parse_qs(request.query).get("op_type") == [CREATE] else endpoint.operation
    document_id = path_parameters.get("id")
    id_error = document_id_error(document_id) if document_id is not None else ""
    if id_error:
        raise Malformed(id_error)
    action = BulkAction(operation, path_parameters["index"], document_id)
    return BulkDocuments([(action, request.body)], [], _needs_type(request))


def _spool_full_reply(request: Request, path_parameters: PathParameters, error: SpoolFull) -> Reply:
    operations = parse_bulk_body(request.body, path_parameters.get("index", DEFAULT_INDEX), request.max_events)
    document_ids = [action.document_id or "" for action, _ in operations]
    documents = BulkDocuments(operations, document_ids, _needs_type(request))
    failure = ItemFailure(TOO_MANY_REQUESTS, rejected_execution_error(describe_to_client(error)))
    failures = dict.fromkeys(range(len(operations)), failure)
    return _json_reply(request, 200, encode_bulk_response(documents, failures, parse_filter_path(request.query)))


def _handshake_reply(request: Request, route: RouteMatch) -> Reply:
    body = route.target(request, route.path_parameters) if callable(route.target) else route.target
    if isinstance(body, str):
        return Reply(200, body.encode(), _TEXT_CONTENT_TYPE, _PRODUCT_HEADERS)
    return _json_reply(request, 200, orjson.dumps(body))


def _json_reply(request: Request, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Reply in the media type that the client asks for: clients of version 8 and 9 reject another one."""
    version = _compatible_version(request.headers.get("Accept", ""))
    content_type = f"application/vnd.elasticsearch+json;compatible-with={version}" if version else _JSON_CONTENT_TYPE
    if _PRETTY_PARAMETER in request.query and parse_qs(request.query, keep_blank_values=True).get(
        _PRETTY_PARAMETER, ["false"]
    ) != ["false"]:
        body = _indent(body)
    return Reply(status, body, content_type, {**_PRODUCT_HEADERS, **headers} if headers else _PRODUCT_HEADERS)


def _indent(body: bytes) -> bytes:
    """Return JSON as Elasticsearch writes it for people: some programs search for ``"failed" : 0``."""
    text = json.dumps(orjson.loads(body), indent=2, separators=(",", " : "), ensure_ascii=False)
    return _PRETTY_EMPTY.sub(r"\1 \2", text).encode() + b"\n"


def _compatible_version(media_type: str) -> str:
    match = _COMPATIBLE_MEDIA_TYPE.search(media_type)
    return match[1] if match else ""


def _needs_type(request: Request) -> bool:
    """Return whether the client is of version 7 or before, which cannot read a reply without ``_type``.

    Newer ones of that version ask for it by media type, if they are told to.
    """
    headers = request.headers
    version = _compatible_version(headers.get("Accept", "")) or _compatible_version(headers.get("Content-Type", ""))
    if version:
        return version == _TYPED_VERSION
    names = (headers.get("X-Elastic-Client-Meta", ""), headers.get("User-Agent", ""))
    return any(map(_OLD_CLIENT.search, names))
