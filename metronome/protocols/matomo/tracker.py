"""The Matomo Tracking API at ``/matomo.php`` and ``/piwik.php``.

Sources: https://developer.matomo.org/api-reference/tracking-api, and the replies of Matomo.
"""

from collections.abc import Iterator
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
from metronome.protocols.matomo.fields import build_event_fields
from metronome.protocols.matomo.requests import (
    MatomoParameters,
    TrackingRequest,
    extract_token,
    looks_like_bulk,
    parse_tracking_request,
)
from metronome.times import parse_timestamp
from metronome.web.gif import ERROR_HEADER, gif_reply, to_header_text

_NO_STORE_HEADERS: Final = {"Cache-Control": "no-store"}
_WHOLE_SECOND: Final = ".000Z"
_INFO_TEXT: Final = b"This URL accepts events of Matomo's trackers: send idsite=1&rec=1&url=...\n"


def extract_key(request: Request) -> str:
    """Return ``token_auth`` from the query, the form or the JSON (see `Protocol.extract_key`)."""
    return extract_token(request)


def parse(request: Request) -> ParsedRequest:
    """Parse the tracked actions (see `Protocol.parse`)."""
    tracking = parse_tracking_request(request)
    if not tracking.entries and not tracking.is_bulk and request.method != "GET":
        raise Malformed("the request is empty: send idsite=1&rec=1&url=…")
    return ParsedRequest(_iter_events(tracking, request), is_batch=tracking.is_bulk, context=tracking)


def reply(request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
    """Reply with the image, without content, or to a bulk with its counts (see `Protocol.reply`)."""
    tracking: TrackingRequest = parsed.context
    if tracking.is_bulk:
        return _bulk_reply(request, result, no_content=tracking.no_content)
    result.raise_rejection()
    if not tracking.entries:
        return Reply(200, _INFO_TEXT, "text/plain")
    if tracking.no_content:
        return Reply(204, headers=_NO_STORE_HEADERS)
    return gif_reply()


def reply_error(request: Request, error: MetronomeError) -> Reply:
    """Describe the error, to a bulk in Matomo's format (see `Protocol.reply_error`)."""
    if looks_like_bulk(request.body):
        body = {"status": "error", "tracked": 0, "invalid": 0, "message": describe_to_client(error)}
        return _json_reply(body, error.http_status, http_error_headers(error))
    return problem_reply(error)


def _iter_events(tracking: TrackingRequest, request: Request) -> Iterator[ParsedEvent]:
    # On a page without scripts the tracker is an image, and the browser's Referer is the page.
    page_url = "" if tracking.is_bulk or request.method != "GET" else request.headers.get("Referer", "")
    event_ids = derive_event_ids(request.body) if _is_idempotent_bulk(tracking, request) else None
    for entry in tracking.entries:
        # Rejected entries take an ID, too, so that the others keep theirs once it is corrected.
        event_id = next(event_ids) if event_ids is not None else None
        if isinstance(entry, Malformed | PayloadTooLarge):
            yield entry
            continue
        try:
            fields = build_event_fields(entry, request, page_url)
        except Malformed as error:
            yield error
            continue
        if event_id is not None:
            fields["event_id"] = event_id
        yield Event(fields)


def _is_idempotent_bulk(tracking: TrackingRequest, request: Request) -> bool:
    """Return whether a resend can be recognized by its content: a bulk with a time finer than a second.

    Of whole seconds, two equal bulks may be equal actions of a busy second.
    """
    return tracking.is_bulk and "Idempotency-Key" not in request.headers and any(map(_has_fine_time, tracking.entries))


def _has_fine_time(entry: MatomoParameters | Malformed | PayloadTooLarge) -> bool:
    if isinstance(entry, Malformed | PayloadTooLarge):
        return False
    try:
        return bool(entry.get("cdt")) and not parse_timestamp(entry["cdt"]).endswith(_WHOLE_SECOND)
    except Malformed:
        return False


def _bulk_reply(request: Request, result: IngestResult, *, no_content: bool) -> Reply:
    rejected = sorted(result.rejected.items())
    # Matomo's format has no place for the reasons; a header has the first.
    headers = {ERROR_HEADER: to_header_text(str(rejected[0][1]))} if rejected else {}
    if no_content:
        return Reply(204, headers=headers)
    body: dict[str, Any] = {"status": "success", "tracked": result.accepted, "invalid": len(rejected)}
    if request.is_trusted and extract_token(request):
        body["invalid_indices"] = [index for index, _ in rejected]
    return _json_reply(body, 200, headers)


def _json_reply(body: dict[str, Any], status: int, headers: dict[str, str]) -> Reply:
    return Reply(status, orjson.dumps(body), "application/json", headers)
