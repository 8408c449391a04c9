"""Plausible's Events API at ``POST /api/event``: one event as JSON, of its scripts and of back ends.

Source: https://plausible.io/docs/events-api.
"""

from typing import Any, Final

from metronome.errors import Malformed, MetronomeError
from metronome.event import Event
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
    set_download,
    text_of,
)

_PAGE_VIEW: Final = "pageview"
_ENGAGEMENT: Final = "engagement"
_FILE_DOWNLOAD: Final = "File Download"
_OUTBOUND_LINK: Final = "Outbound Link: Click"
_SCREEN_WIDTHS: Final = ("w", "screen_width")
_REPLY: Final = Reply(202, b"ok", "text/plain")


def extract_key(request: Request) -> str:
    """Return the bearer token (see `Protocol.extract_key`)."""
    return bearer_token(request.headers)


def parse(request: Request) -> ParsedRequest:
    """Parse a JSON object, whatever its content type is: scripts send ``text/plain`` (see `Protocol.parse`)."""
    return ParsedRequest([Event(_build_fields(parse_json_object(request.body), request))], is_batch=False)


def reply(_: Request, __: ParsedRequest, result: IngestResult) -> Reply:
    """Reply with 202 and ``ok`` (see `Protocol.reply`)."""
    result.raise_rejection()
    return _REPLY


def reply_error(_: Request, error: MetronomeError) -> Reply:
    """Describe the error (see `Protocol.reply_error`)."""
    return problem_reply(error)


def _build_fields(payload: dict[str, Any], request: Request) -> dict[str, Any]:
    name, url, domain = text_of(payload, "n", "name"), text_of(payload, "u", "url"), text_of(payload, "d", "domain")
    for value, required in ((name, "name"), (url, "url"), (domain, "domain")):
        if not value:
            raise Malformed(f'{required} is missing: send {{"name":"pageview","url":"https://…","domain":"…"}}')
    fields = build_page_fields(request, url, is_hash_page=payload.get("h") in (1, "1", True))
    fields["domain"] = domain
    if referrer := text_of(payload, "r", "referrer"):
        fields["referer"] = referrer
    properties = dict(parse_object(next(filter(None, map(payload.get, ("p", "props", "m", "meta"))), None), "props"))
    _set_event(fields, name, properties, payload, request)
    add_properties(fields, properties, "prop_")
    revenue = parse_object(payload.get("$", payload.get("revenue")), "revenue")
    fields.update(
        {key: revenue[part] for key, part in (("revenue", "amount"), ("currency", "currency")) if revenue.get(part)}
    )
    if payload.get("i", payload.get("interactive")) is False:
        fields["interactive"] = False
    for parameter in _SCREEN_WIDTHS:
        if isinstance(payload.get(parameter), int):
            fields["screen_width"] = payload[parameter]
    return fields


def _set_event(
    fields: dict[str, Any], name: str, properties: dict[str, Any], payload: dict[str, Any], request: Request
) -> None:
    link = properties.get("url")
    if name == _ENGAGEMENT:
        # Sent when a visitor leaves a page: how long it was visible, and how far it was scrolled.
        fields["event"] = "heartbeat"
        fields.update(
            {key: payload[part] for key, part in (("engagement_ms", "e"), ("scroll_depth", "sd")) if part in payload}
        )
    elif name == _FILE_DOWNLOAD and isinstance(link, str):
        set_download(fields, request, properties.pop("url"))
    elif name == _OUTBOUND_LINK and isinstance(link, str):
        fields.update(event="outlink", link=properties.pop("url"))
    elif name != _PAGE_VIEW:
        set_custom_event(fields, name)
