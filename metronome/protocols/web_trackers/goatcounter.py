"""GoatCounter's ``GET /count``, the image of its script, and ``POST /api/v0/count``, its API for back ends.

Sources: https://www.goatcounter.com/help/pixel, https://www.goatcounter.com/help/api.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from metronome.errors import Malformed, MetronomeError, PayloadTooLarge
from metronome.event import Event
from metronome.protocol import (
    IngestResult,
    ParsedEvent,
    ParsedRequest,
    Reply,
    Request,
    bearer_token,
    json_type_name,
    parse_form,
    parse_json_object,
    problem_reply,
)
from metronome.protocols.web_trackers.pages import build_page_fields, set_custom_event, set_named_client, text_of
from metronome.web.gif import gif_error_reply, gif_reply, to_header_text

PATH_MAX_BYTES: Final = 2048
ERROR_HEADER: Final = "X-Goatcounter"

_PARAMETERS: Final = {"p": "path", "t": "title", "r": "ref", "e": "event", "q": "query", "s": "size", "b": "bot"}
_MIN_SCRIPT_BOT: Final = 150
_SCRIPT_BOTS: Final = {150: "phantom", 151: "nightmare", 152: "selenium", 153: "webdriver"}
_PREFETCH_HEADERS: Final = ("Purpose", "Sec-Purpose", "X-Purpose", "X-Moz")
_ACCEPTED_REPLY: Final = Reply(202, b"{}", "application/json")


class CountProtocol:
    """``/count``: one page view or event in the URL of an image (see `Protocol`)."""

    def extract_key(self, request: Request) -> str:
        """Return the bearer token."""
        return bearer_token(request.headers)

    def parse(self, request: Request) -> ParsedRequest:
        """Parse the query; no event for what a browser fetches in advance, which the visitor may never see."""
        if any("prefetch" in text or "preview" in text for text in map(_lower_header(request), _PREFETCH_HEADERS)):
            return ParsedRequest([], is_batch=False)
        values = {name: value for name, value in parse_form(request.query) if value}
        hit: dict[str, Any] = {part: values[name] for name, part in _PARAMETERS.items() if name in values}
        hit["event"] = values.get("e", "").lower() in {"1", "true"}
        return ParsedRequest([_parse_hit(hit, request)], is_batch=False)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Reply with the image."""
        del request, parsed
        result.raise_rejection()
        return gif_reply()

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Reply with the image, GoatCounter's status and the error in headers."""
        del request
        image = gif_error_reply(error)
        headers = {**image.headers, ERROR_HEADER: to_header_text(str(error))}
        return Reply(error.http_status, image.body, image.content_type, headers)


class ApiProtocol:
    """``/api/v0/count``: several hits of a back end as JSON (see `Protocol`)."""

    def extract_key(self, request: Request) -> str:
        """Return the bearer token."""
        return bearer_token(request.headers)

    def parse(self, request: Request) -> ParsedRequest:
        """Parse ``{"hits":[…]}``."""
        hits = parse_json_object(request.body).get("hits")
        if not isinstance(hits, list) or not hits:
            raise Malformed('hits is missing: send {"hits":[{"path":"/page"}]}')
        if len(hits) > request.max_events:
            raise PayloadTooLarge(f"over {request.max_events} hits: send fewer, or raise batch_max_events")
        return ParsedRequest(_parse_hits(hits, request._replace(headers={}, client_ip="")), is_batch=True)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Reply with 202, or 400 and the errors by position: the other hits are stored."""
        del request, parsed
        if not result.rejected:
            return _ACCEPTED_REPLY
        errors = {str(index): str(error) for index, error in sorted(result.rejected.items())}
        return Reply(400, orjson.dumps({"errors": errors}), "application/json")

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Describe the error."""
        del request
        return problem_reply(error)


COUNT: Final = CountProtocol()
API: Final = ApiProtocol()


def _lower_header(request: Request) -> Any:
    return lambda name: request.headers.get(name, "").lower()


def _parse_hits(hits: list[Any], request: Request) -> Iterator[ParsedEvent]:
    for hit in hits:
        if isinstance(hit, dict):
            yield _parse_hit(hit, request)
        else:
            yield Malformed(f"expected an object as hit, got {json_type_name(hit)}")


def _parse_hit(hit: Mapping[str, Any], request: Request) -> ParsedEvent:
    try:
        return Event(_build_fields(hit, request))
    except Malformed as error:
        return error


def _build_fields(hit: Mapping[str, Any], request: Request) -> dict[str, Any]:
    path, is_event = text_of(hit, "path"), bool(hit.get("event"))
    if not path:
        raise Malformed("the path is missing: send p=/page, or path in hits")
    if len(path.encode(errors="replace")) > PATH_MAX_BYTES:
        raise Malformed(f"the path has over {PATH_MAX_BYTES} bytes: send a shorter one")
    # The path of an event is its name, and does not tell its page.
    url = "" if is_event else path if path.startswith("/") or "://" in path else f"/{path}"
    query = text_of(hit, "query").lstrip("?")
    if url and query and "?" not in url:
        url = f"{url}?{query}"
    fields = build_page_fields(request, url, _page_host(request))
    if is_event:
        set_custom_event(fields, path.removeprefix("/"))
    names = (("title", "title"), ("referer", "ref"), ("session", "session"), ("@timestamp", "created_at"))
    fields.update({field: text for field, part in names if (text := text_of(hit, part))})
    if size := hit.get("size"):
        fields["res"] = size if isinstance(size, str) else ",".join(map(str, size)) if isinstance(size, list) else ""
    set_named_client(fields, text_of(hit, "ip"), text_of(hit, "user_agent"))
    _set_bot(fields, hit.get("bot"))
    return fields


def _page_host(request: Request) -> str:
    host = request.headers.get("Referer", "").partition("://")[2].partition("/")[0]
    return host.encode(errors="replace").decode()


def _set_bot(fields: dict[str, Any], code: object) -> None:
    """Set the robot that the script has found: a browser that a program drives."""
    text = str(code)
    if text.isascii() and text.isdigit() and int(text[:9]) >= _MIN_SCRIPT_BOT:
        fields["bot"] = _SCRIPT_BOTS.get(int(text[:9]), f"goatcounter {text[:9]}")
