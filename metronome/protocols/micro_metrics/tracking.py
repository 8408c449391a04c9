"""The ingest protocol: ``POST /api/track``, ``POST /api/track/batch`` and ``GET /t.gif``.

Errors have the shape of the web framework that micro-metrics uses:
``{"statusCode":400,"error":"Bad Request","message":"…"}``.
"""

import contextlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, describe_to_client
from metronome.event import Event, generate_event_ids
from metronome.protocol import (
    Endpoint,
    IngestResult,
    ParsedEvent,
    ParsedRequest,
    Reply,
    Request,
    bearer_token,
    content_charset,
    http_error_headers,
    parse_form,
    parse_json_object,
)
from metronome.protocols.micro_metrics.documents import build_event, encode_document, parse_group, parse_payload
from metronome.web.gif import gif_error_reply, gif_reply

KEY_PARAMETER: Final = "key"
"""The query parameter that may hold the key."""

_JSON_CONTENT_TYPE: Final = "application/json"
_FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
_BATCH_EXAMPLE: Final = '{"events":[{"type":"pageview"}]}'


def error_reply(error: MetronomeError) -> Reply:
    """Return the reply for an error in the protocol's shape."""
    return Reply(error.http_status, orjson.dumps(_error_body(error)), _JSON_CONTENT_TYPE, http_error_headers(error))


class _TrackingProtocol:
    """What the three ways to send events share."""

    def extract_key(self, request: Request) -> str:
        """Return the key of ``Authorization: Bearer …`` or of ``?key=…``, or an empty string."""
        return bearer_token(request.headers) or dict(parse_form(request.query)).get(KEY_PARAMETER, "")

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Return the error in the protocol's shape."""
        del request
        return error_reply(error)


class TrackProtocol(_TrackingProtocol):
    """``POST /api/track``: one event; the reply is its document."""

    def parse(self, request: Request) -> ParsedRequest:
        """Parse a JSON object, whatever its content type is, or a form (see `Protocol.parse`)."""
        is_form = request.content_type == _FORM_CONTENT_TYPE and not request.body.lstrip().startswith(b"{")
        payload = (
            _parse_query_payload(request.body, content_charset(request.headers))
            if is_form
            else parse_json_object(request.body)
        )
        event, document = _parse_event(payload, request, _next_event_id(request))
        return ParsedRequest([event], is_batch=False, context=document)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Return the document (see `Protocol.reply`)."""
        del request
        result.raise_rejection()
        return Reply(200, parsed.context, _JSON_CONTENT_TYPE)


class BatchProtocol(_TrackingProtocol):
    """``POST /api/track/batch``: several events; the reply has the document or the error of each."""

    def parse(self, request: Request) -> ParsedRequest:
        """Parse ``{"events":[…]}`` (see `Protocol.parse`)."""
        payloads = _parse_batch(request.body)
        if len(payloads) > request.max_events:
            raise PayloadTooLarge(
                f'"events" holds over {request.max_events} events: send fewer, or raise batch_max_events'
            )
        event_ids = request.event_ids or generate_event_ids()
        events: list[ParsedEvent] = []
        documents: list[bytes] = []
        for payload in payloads:
            event_id = next(event_ids)
            try:
                event, document = _parse_event(payload, request, event_id)
                events.append(event)
                documents.append(document)
            except Malformed as error:
                events.append(error)
                documents.append(b"")
        return ParsedRequest(events, is_batch=True, context=documents)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Return the documents, with errors in place of rejected events (see `Protocol.reply`)."""
        del request
        documents: list[bytes] = list(parsed.context)
        for index, error in result.rejected.items():
            documents[index] = orjson.dumps(_error_body(error))
        return Reply(200, b"[" + b",".join(documents) + b"]", _JSON_CONTENT_TYPE)


class PixelProtocol(_TrackingProtocol):
    """``GET /t.gif``: one event in the URL of an image; the reply is the image, even for an error."""

    def parse(self, request: Request) -> ParsedRequest:
        """Parse the query, and add the client's address, user agent and page (see `Protocol.parse`)."""
        payload = _add_client_data(_parse_query_payload(request.query), request)
        page_url = payload["data"].get("referrer", "") if request.headers.get("Referer") else ""
        event, _ = _parse_event(payload, request, _next_event_id(request), page_url)
        return ParsedRequest([event], is_batch=False)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Return the image (see `Protocol.reply`)."""
        del request, parsed
        result.raise_rejection()
        return gif_reply()

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Return the image, with the error in a header."""
        del request
        return gif_error_reply(error)


TRACK: Final = TrackProtocol()
BATCH: Final = BatchProtocol()
PIXEL: Final = PixelProtocol()

ENDPOINTS: Final = (
    Endpoint("POST", "", "/api/track", TRACK),
    Endpoint("POST", "", "/api/track/batch", BATCH),
    Endpoint("GET", "", "/t.gif", PIXEL),
)


def _parse_event(payload: object, request: Request, event_id: str, page_url: str = "") -> tuple[Event, bytes]:
    """Return a payload's event and its document as JSON."""
    document = parse_payload(payload, request.received_at, event_id)
    encoded = encode_document(document)
    return build_event(document, request.config.item_pattern, page_url), encoded


def _next_event_id(request: Request) -> str:
    return next(request.event_ids or generate_event_ids())


def _parse_batch(body: bytes) -> list[object]:
    fields = parse_json_object(body)
    events = fields.get("events")
    if not isinstance(events, list):
        raise Malformed(f'"events" is required: send {_BATCH_EXAMPLE}')
    if len(fields) > 1:
        raise Malformed(f'only "events" is allowed here: send {_BATCH_EXAMPLE}')
    return events


def _parse_query_payload(query: str | bytes, charset: str = "") -> dict[str, Any]:
    """Return the payload in a query or a form: all values are strings, except that ``value`` may be any JSON."""
    payload: dict[str, Any] = {name: text for name, text in parse_form(query, charset) if name != KEY_PARAMETER}
    if "value" in payload:
        with contextlib.suppress(orjson.JSONDecodeError):
            payload["value"] = orjson.loads(payload["value"])
        if payload["value"] == "":
            del payload["value"]
    return payload


def _add_client_data(payload: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Add to the ``data`` of a payload what is known about the client."""
    client = {
        "ip": request.client_ip,
        "userAgent": _replace_surrogates(request.headers.get("User-Agent", "")),
        "referrer": _replace_surrogates(request.headers.get("Referer", "")),
    }
    data = parse_group(payload, "data") | {name: text for name, text in client.items() if text}
    return {**payload, "data": data}


def _replace_surrogates(text: str) -> str:
    return text.encode(errors="replace").decode()


def _error_body(error: MetronomeError) -> dict[str, Any]:
    status = error.http_status
    return {"statusCode": status, "error": HTTPStatus(status).phrase, "message": describe_to_client(error)}
