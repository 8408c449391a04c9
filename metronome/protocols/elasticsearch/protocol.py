"""Elasticsearch's protocol for sending events: ``_bulk``, single documents, and the handshakes of clients.

Index names are not kept: they are repeated in the reply. A document's ``_id`` is its event's ``event_id``, which the
store deduplicates within a UTC day, so a document that is sent again is answered like a new one.
"""

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
    BulkDocuments,
    ItemFailure,
    build_action,
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
    r"application/vnd\.elasticsearch\+json\s*;\s*compatible-with\s*=\s*([0-9]{1,2})"
)
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
        documents = BulkDocuments(parse_bulk_body(request.body, index, request.max_events), [])
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
    action, document_id = documents.operations[0][0], documents.document_ids[0]
    if failures:
        cause: dict[str, Any] = {**failures[0].error, "index": action.index_name}
        return _json_reply(request, failures[0].status, orjson.dumps(wrap_error(cause, failures[0].status)))
    return _json_reply(request, 201, orjson.dumps(created_document(action, document_id)))


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
    return BulkDocuments([(build_action(operation, path_parameters["index"], document_id), request.body)], [])


def _spool_full_reply(request: Request, path_parameters: PathParameters, error: SpoolFull) -> Reply:
    operations = parse_bulk_body(request.body, path_parameters.get("index", DEFAULT_INDEX), request.max_events)
    documents = BulkDocuments(operations, [action.document_id or "" for action, _ in operations])
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
    match = _COMPATIBLE_MEDIA_TYPE.search(request.headers.get("Accept", ""))
    content_type = f"application/vnd.elasticsearch+json;compatible-with={match[1]}" if match else _JSON_CONTENT_TYPE
    return Reply(status, body, content_type, {**_PRODUCT_HEADERS, **headers} if headers else _PRODUCT_HEADERS)
