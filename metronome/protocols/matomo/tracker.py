"""What is spoken at ``/matomo.php`` and ``/piwik.php``: the Matomo Tracking API.

Sources: https://developer.matomo.org/api-reference/tracking-api, and what Matomo answers.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, describe_to_client
from metronome.event import Event, derive_event_ids
from metronome.protocol import (
    IngestResult,
    ParsedEvent,
    ParsedRequest,
    Reply,
    Request,
    http_error_headers,
    problem_reply,
)
from metronome.protocols.matomo.fields import TrackingContext, build_event_fields
from metronome.protocols.matomo.requests import TrackingRequest, extract_token, looks_like_bulk, parse_tracking_request
from metronome.web.gif import ERROR_HEADER, gif_reply, to_header_text

_NO_STORE_HEADERS: Final = {"Cache-Control": "no-store"}
_INFO_TEXT: Final = b"Events of Matomo's trackers are taken here: send idsite=1&rec=1&url=...\n"


def extract_key(request: Request) -> str:
    """Return ``token_auth`` from the query, the form or the JSON (see `Dialect.key`)."""
    return extract_token(request)


def parse(request: Request) -> ParsedRequest:
    """Read what is to be tracked (see `Dialect.read`)."""
    found = parse_tracking_request(request)
    if not found.entries and not found.is_bulk and request.method != "GET":
        raise Malformed("the request is empty: send idsite=1&rec=1&url=…")
    return ParsedRequest(_iter_events(found, request), is_batch=found.is_bulk, context=found)


def reply(request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
    """Answer with the picture, with nothing, or with how many of a bulk were taken (see `Dialect.reply`)."""
    found: TrackingRequest = parsed.context
    if found.is_bulk:
        return _bulk_reply(request, result, no_content=found.no_content)
    for error in result.rejected.values():
        raise error
    if not found.entries:
        return Reply(200, _INFO_TEXT, "text/plain", _cors_headers(request))
    if found.no_content:
        return Reply(204, headers={**_NO_STORE_HEADERS, **_cors_headers(request)})
    return gif_reply(_cors_headers(request))


def reply_error(request: Request, error: MetronomeError) -> Reply:
    """Describe the error, to a bulk in Matomo's own shape (see `Dialect.refuse`)."""
    if looks_like_bulk(request.body):
        answer = {"status": "error", "tracked": 0, "invalid": 0, "message": describe_to_client(error)}
        return _json_reply(request, answer, error.http_status, http_error_headers(error))
    plain = problem_reply(error)
    return replace(plain, headers={**plain.headers, **_cors_headers(request)})


def _iter_events(tracking: TrackingRequest, request: Request) -> Iterator[ParsedEvent]:
    headers = request.headers
    setting = TrackingContext(
        request.config.item_pattern,
        request.client_ip,
        request.received_at,
        request.is_trusted,
        headers.get("User-Agent", ""),
        headers.get("Accept-Language", ""),
        # A page without scripts has the tracker as a picture, which the browser asks for from the page.
        "" if tracking.is_bulk or request.method != "GET" else headers.get("Referer", ""),
    )
    names = derive_event_ids(request.body) if _is_idempotent_bulk(tracking, request) else None
    for thing in tracking.entries:
        own_name = {"event_id": next(names)} if names is not None else {}
        if isinstance(thing, Malformed | PayloadTooLarge):
            yield thing
            continue
        try:
            yield Event({**build_event_fields(thing, setting), **own_name})
        except Malformed as error:
            yield error


def _is_idempotent_bulk(tracking: TrackingRequest, request: Request) -> bool:
    """Tell whether a request is known again by its content: a bulk in which everything has its time."""
    return (
        tracking.is_bulk
        and len(tracking.entries) > 1
        and "Idempotency-Key" not in request.headers
        and all(isinstance(thing, Malformed | PayloadTooLarge) or thing.get("cdt") for thing in tracking.entries)
    )


def _bulk_reply(request: Request, result: IngestResult, *, no_content: bool) -> Reply:
    rejected = sorted(result.rejected.items())
    # Matomo says no more than which ones were wrong, and that only to some.
    headers = {ERROR_HEADER: to_header_text(str(rejected[0][1]))} if rejected else {}
    if no_content:
        return Reply(204, headers={**headers, **_cors_headers(request)})
    answer: dict[str, Any] = {"status": "success", "tracked": result.accepted, "invalid": len(rejected)}
    if request.is_trusted and extract_token(request):
        answer["invalid_indices"] = [index for index, _ in rejected]
    return _json_reply(request, answer, 200, headers)


def _json_reply(request: Request, body: dict[str, Any], status: int, headers: dict[str, str]) -> Reply:
    return Reply(status, orjson.dumps(body), "application/json", {**headers, **_cors_headers(request)})


def _cors_headers(request: Request) -> dict[str, str]:
    """Return what a browser wants to read before a page may see the answer to a request with its cookies."""
    origin = request.headers.get("Origin", "")
    if not (origin and origin.isascii() and origin.isprintable()):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
