"""``POST /api/track/batch``: several events, answered with what is stored of each.

An event that cannot be taken fails no other: its place in the answer has its error, in the shape that an error
of the protocol has.
"""

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge
from metronome.event import generate_event_ids
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Reply, Request
from metronome.protocols.micro_metrics.documents import build_event
from metronome.protocols.micro_metrics.payloads import (
    encode_document,
    error_body,
    error_reply,
    extract_request_key,
    parse_payload,
)


def extract_key(request: Request) -> str:
    """Return the key of the request (see `Dialect.key`)."""
    return extract_request_key(request)


def parse(request: Request) -> ParsedRequest:
    """Read the events of ``{"events":[…]}`` (see `Dialect.read`)."""
    found = _parse_batch(request.body)
    if len(found) > request.max_events:
        raise PayloadTooLarge(f'"events" holds over {request.max_events} events: send fewer, or raise batch_max_events')
    identities = request.event_ids or generate_event_ids()
    readings: list[ParsedEvent] = []
    documents: list[bytes] = []
    for one in found:
        identity = next(identities)
        try:
            tracked = parse_payload(one, request.received_at, identity)
            document = encode_document(tracked)
            readings.append(build_event(tracked, request.config.item_pattern))
            documents.append(document)
        except Malformed as error:
            documents.append(b"")
            readings.append(error)
    return ParsedRequest(readings, is_batch=True, context=documents)


def reply(_: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
    """Answer with the documents, and with errors in their places (see `Dialect.reply`)."""
    parts: list[bytes] = list(parsed.context)
    for index, error in result.rejected.items():
        parts[index] = orjson.dumps(error_body(error))
    return Reply(200, b"[" + b",".join(parts) + b"]", "application/json")


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Describe the error (see `Dialect.refuse`)."""
    return error_reply(error)


def _parse_batch(body: bytes) -> list[object]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("events"), list):
        raise Malformed('"events" is required: send {"events":[{"type":"pageview"}]}')
    if len(found) > 1:
        raise Malformed('only "events" is allowed here: send {"events":[{"type":"pageview"}]}')
    events: list[object] = found["events"]
    return events
