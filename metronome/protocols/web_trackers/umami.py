"""Umami's ``POST /api/send``: one event as JSON, of its script and of ``@umami/node``.

Source: https://umami.is/docs/api/sending-stats.
"""

import re
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import orjson

from metronome.errors import Malformed, MetronomeError
from metronome.event import Event, generate_event_ids
from metronome.protocol import (
    IngestResult,
    ParsedRequest,
    Reply,
    Request,
    bearer_token,
    parse_json_object,
    problem_reply,
)
from metronome.protocols.web_trackers.pages import (
    add_properties,
    build_page_fields,
    parse_object,
    set_custom_event,
    set_named_client,
    text_of,
)

_IDENTIFY: Final = "identify"
_CACHE_HEADER: Final = "x-umami-cache"
_CACHE_PATTERN: Final = re.compile(r"([0-9a-f-]{36})\.([0-9a-f-]{36})", re.ASCII)
_TEXTS: Final = {
    "title": "title",
    "referrer": "referer",
    "language": "lang",
    "screen": "res",
    "tag": "tag",
    "id": "user",
}
_EXAMPLE: Final = '{"type":"event","payload":{"website":"…","hostname":"example.org","url":"/page"}}'


def extract_key(request: Request) -> str:
    """Return the bearer token (see `Protocol.extract_key`)."""
    return bearer_token(request.headers)


def parse(request: Request) -> ParsedRequest:
    """Parse a JSON object, whatever its content type is (see `Protocol.parse`)."""
    body = parse_json_object(request.body)
    kind, payload = body.get("type"), parse_object(body.get("payload"), "payload")
    if kind not in ("event", _IDENTIFY) or not payload:
        raise Malformed(f"type and payload are required: send {_EXAMPLE}")
    return ParsedRequest([Event(_build_fields(payload, request, is_identify=kind == _IDENTIFY))], is_batch=False)


def reply(request: Request, _: ParsedRequest, result: IngestResult) -> Reply:
    """Return identifiers, which its script repeats in a header while a page is open (see `Protocol.reply`).

    They are random, and not stored: Metronome's visitors are identified without them.
    """
    result.raise_rejection()
    known = _CACHE_PATTERN.search(request.headers.get(_CACHE_HEADER, ""))
    event_ids = request.event_ids or generate_event_ids()
    session, visit = known.groups() if known else (_random_id(next(event_ids)), _random_id(next(event_ids)))
    body = {"cache": f"{session}.{visit}", "sessionId": session, "visitId": visit}
    return Reply(200, orjson.dumps(body), "application/json")


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Describe the error (see `Protocol.reply_error`)."""
    return problem_reply(error)


def _build_fields(payload: Any, request: Request, *, is_identify: bool) -> dict[str, Any]:
    website = text_of(payload, "website", "link", "pixel")
    if not website:
        raise Malformed(f"payload.website is missing: send {_EXAMPLE}")
    url, name = text_of(payload, "url"), text_of(payload, "name")
    fields = build_page_fields(request, url, text_of(payload, "hostname"))
    fields["website"] = website
    fields.update({field: text for part, field in _TEXTS.items() if (text := text_of(payload, part))})
    set_named_client(fields, text_of(payload, "ip"), text_of(payload, "userAgent"))
    if is_identify:
        fields["event"] = _IDENTIFY
    elif name:
        set_custom_event(fields, name)
    if payload.get("timestamp"):
        fields["@timestamp"] = payload["timestamp"]
    add_properties(fields, parse_object(payload.get("data"), "data"), "data_")
    return fields


def _random_id(event_id: str) -> str:
    return str(uuid5(NAMESPACE_URL, event_id))
