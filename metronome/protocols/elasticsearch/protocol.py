"""Elasticsearch's protocol, as far as events are sent over it: ``_bulk``, single documents, and the handshakes.

Indices are not kept apart: their names are taken from whoever sends, and given back in the answers. A document's
``_id`` is its event's identity. Documents are only added: one of an ``_id`` that is known already is the same one, and
neither ``index``, which is answered as a ``noop``, nor ``create`` changes it.
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
from metronome.protocols.elasticsearch.addresses import (
    BULK_ENDPOINT,
    RouteMatch,
    WriteEndpoint,
    allowed_methods,
    match_route,
)
from metronome.protocols.elasticsearch.bulk import (
    CREATE,
    DEFAULT_INDEX,
    BulkItems,
    BulkOperation,
    ItemFailure,
    build_action,
    created_document,
    document_id_error,
    encode_bulk_response,
    event_ids_for,
    noop_item,
    parse_bulk_body,
    parse_filter_path,
    single_document,
)
from metronome.protocols.elasticsearch.errors import (
    TOO_MANY_REQUESTS,
    elasticsearch_error_headers,
    elasticsearch_status,
    error_body,
    rejected_execution_error,
    wrap_error,
)
from metronome.protocols.elasticsearch.known import RecentDocumentIds

_PRODUCT_HEADERS: Final = {"X-Elastic-Product": "Elasticsearch"}
_JSON_CONTENT_TYPE: Final = "application/json"
_TEXT_CONTENT_TYPE: Final = "text/plain"
_COMPATIBLE_MEDIA_TYPE: Final = re.compile(
    r"application/vnd\.elasticsearch\+json\s*;\s*compatible-with\s*=\s*([0-9]{1,2})"
)
_OPTIONS: Final = "OPTIONS"


class ElasticsearchProtocol:
    """The dialect. All that it keeps between two calls is *known*.

    Args:
        known: which documents are on disk already; it is told of those that get there.

    """

    def __init__(self, known: RecentDocumentIds) -> None:
        self._recent_ids = known

    def extract_key(self, request: Request) -> str:
        """Return the key: a password, an API key or a token (see `Dialect.key`)."""
        headers = request.headers
        return basic_password(headers) or elasticsearch_api_key(headers) or bearer_token(headers)

    def parse(self, request: Request) -> ParsedRequest:
        """Read the documents of a request; a handshake has none (see `Dialect.read`)."""
        place = _match_request(request)
        if isinstance(place, MetronomeError) or place.write_endpoint is None:
            return ParsedRequest((), is_batch=False, context=place)
        if place.write_endpoint is BULK_ENDPOINT:
            index = place.path_parameters.get("index", DEFAULT_INDEX)
            steps = parse_bulk_body(request.body, index, request.max_events)
        else:
            steps = [_single_operation(request, place.write_endpoint, place.path_parameters)]
        items = BulkItems(steps, self._recent_ids)
        readings = items.parse(request.site_config, event_ids_for(request, steps))
        return ParsedRequest(readings, is_batch=place.write_endpoint is BULK_ENDPOINT, context=items)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Say what became of each document, or answer a handshake (see `Dialect.reply`)."""
        notes = parsed.context
        if isinstance(notes, MetronomeError):
            return self.reply_error(request, notes)
        if isinstance(notes, RouteMatch):
            return _handshake_reply(request, notes)
        items: BulkItems = notes
        failures = items.collect_failures(result)
        if parsed.is_batch:
            return _json_reply(request, 200, encode_bulk_response(items, failures, parse_filter_path(request.query)))
        if failures:
            return _json_reply(request, failures[0].status, _encode_single_failure(items, failures[0]))
        action, identity = items.operations[0][0], items.document_ids[0]
        if items.unchanged_positions:
            return _json_reply(request, 200, orjson.dumps(single_document(noop_item(action, identity))))
        return _json_reply(request, 201, orjson.dumps(created_document(action, identity)))

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Say why nothing was taken (see `Dialect.refuse`).

        Where there is no room, that is said of each document: shippers keep those, and send them again. A sender that
        looks at the status alone says ``busy=whole`` in its address, and hears 429 for the request.
        """
        if isinstance(error, SpoolFull) and request.body and not _wants_request_status(request):
            place = _match_request(request)
            if isinstance(place, RouteMatch) and place.write_endpoint is BULK_ENDPOINT:
                return self._spool_full_reply(request, place, error)
        status = elasticsearch_status(error)
        headers = elasticsearch_error_headers(error)
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = allowed_methods(request.path) or _OPTIONS
        return _json_reply(request, status, orjson.dumps(error_body(error, status)), headers)

    def _spool_full_reply(self, request: Request, route: RouteMatch, error: SpoolFull) -> Reply:
        steps = parse_bulk_body(request.body, route.path_parameters.get("index", DEFAULT_INDEX), request.max_events)
        items = BulkItems(steps, self._recent_ids)
        items.document_ids = [action.document_id or "" for action, _ in steps]
        failure = ItemFailure(TOO_MANY_REQUESTS, rejected_execution_error(describe_to_client(error)))
        failures = dict.fromkeys(range(len(steps)), failure)
        return _json_reply(request, 200, encode_bulk_response(items, failures, parse_filter_path(request.query)))


def _wants_request_status(request: Request) -> bool:
    return parse_qs(request.query).get("busy") == ["whole"]


def _match_request(request: Request) -> RouteMatch | MetronomeError:
    try:
        return match_route(request.method, request.path)
    except MetronomeError as error:
        return error


def _single_operation(
    request: Request, write_endpoint: WriteEndpoint, path_parameters: Mapping[str, str]
) -> BulkOperation:
    """Make the one action of a request whose body is one document."""
    operation = write_endpoint.operation
    if parse_qs(request.query).get("op_type") == [CREATE]:
        operation = CREATE
    identity = path_parameters.get("id")
    wrong = document_id_error(identity) if identity is not None else ""
    if wrong:
        raise Malformed(wrong)
    return build_action(operation, path_parameters["index"], identity), request.body


def _encode_single_failure(items: BulkItems, failure: ItemFailure) -> bytes:
    cause: dict[str, Any] = {**failure.cause, "index": items.operations[0][0].index_name}
    return orjson.dumps(wrap_error(cause, failure.status))


def _handshake_reply(request: Request, route: RouteMatch) -> Reply:
    said = route.handshake(request, route.path_parameters)
    if isinstance(said, str):
        return Reply(200, said.encode(), _TEXT_CONTENT_TYPE, _PRODUCT_HEADERS)
    return _json_reply(request, 200, orjson.dumps(said))


def _json_reply(request: Request, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer in the media type that was asked for: clients of version 8 and 9 look whether it is theirs."""
    asked = _COMPATIBLE_MEDIA_TYPE.search(request.headers.get("Accept", ""))
    kind = f"application/vnd.elasticsearch+json;compatible-with={asked[1]}" if asked else _JSON_CONTENT_TYPE
    return Reply(status, body, kind, {**_PRODUCT_HEADERS, **headers} if headers else _PRODUCT_HEADERS)
