"""``POST /api/track``: one event, answered with the document that is stored of it."""

import orjson

from metronome.errors import Malformed, MetronomeError
from metronome.event import generate_event_ids
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request
from metronome.protocols.micro_metrics.documents import build_event
from metronome.protocols.micro_metrics.payloads import (
    encode_document,
    error_reply,
    extract_request_key,
    parse_payload,
    parse_query_payload,
)

_FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
_JSON_CONTENT_TYPE = "application/json"


def extract_key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return extract_request_key(request)


def parse(request: Request) -> ParsedRequest:
    """Read the event: a JSON object whatever its content type is, or a form (see `Dialect.read`)."""
    identity = next(request.event_ids or generate_event_ids())
    tracked = parse_payload(_parse_body(request), request.received_at, identity)
    return ParsedRequest(
        [build_event(tracked, request.config.item_pattern)], is_batch=False, context=encode_document(tracked)
    )


def reply(_: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
    """Answer with the document (see `Dialect.reply`)."""
    for error in result.rejected.values():
        raise error
    return Reply(200, parsed.context, _JSON_CONTENT_TYPE)


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Describe the error (see `Dialect.refuse`)."""
    return error_reply(error)


def _parse_body(request: Request) -> object:
    if request.content_type == _FORM_CONTENT_TYPE and not request.body.lstrip().startswith(b"{"):
        return parse_query_payload(request.body.decode(errors="replace"))
    try:
        return orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
