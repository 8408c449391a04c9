"""``GET /t.gif``: one event in the address of a picture, for pages and mails. Whatever happens, the picture comes."""

from metronome.errors import MetronomeError
from metronome.event import generate_event_ids
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request
from metronome.protocols.micro_metrics.documents import build_event
from metronome.protocols.micro_metrics.payloads import (
    add_client_data,
    encode_document,
    extract_request_key,
    parse_payload,
    parse_query_payload,
)
from metronome.web.gif import gif_error_reply, gif_reply


def extract_key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return extract_request_key(request)


def parse(request: Request) -> ParsedRequest:
    """Read the event, and add who asked for the picture, and on which page (see `Dialect.read`)."""
    found = add_client_data(parse_query_payload(request.query), request)
    tracked = parse_payload(found, request.received_at, next(request.event_ids or generate_event_ids()))
    encode_document(tracked)
    page = tracked["data"].get("referrer", "") if request.headers.get("Referer") else ""
    return ParsedRequest([build_event(tracked, request.config.item_pattern, page)], is_batch=False)


def reply(_: Request, __: ParsedRequest, result: IngestResult) -> Reply:
    """Answer with the picture (see `Dialect.reply`)."""
    for error in result.rejected.values():
        raise error
    return gif_reply()


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Answer with the picture all the same; a header says what was wrong (see `Dialect.refuse`)."""
    return gif_error_reply(error)
