"""The events of web pages: what the protocols of web analytics share."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from metronome.enrich.addresses import set_client
from metronome.errors import Malformed
from metronome.fields import FIELDS, decode_percent
from metronome.items import ItemMatch, ItemPattern, file_extension, url_path
from metronome.protocol import Request, json_type_name

CUSTOM_EVENT: Final = "event"
_COUNTED_EVENTS: Final = frozenset({"view", "download", "request", "heartbeat"})
"""Events with a meaning in reports, which a site's own event of the same name does not have."""
_RESERVED_FIELDS: Final = frozenset({"name", "clienthost"}.union(*(field.names for field in FIELDS)))
_BROWSER_HEADERS: Final = (("agent", "User-Agent"), ("lang", "Accept-Language"))


def build_page_fields(request: Request, url: str, host: str = "", *, is_hash_page: bool = False) -> dict[str, Any]:
    """Return the fields of a view of a page, with its item and the client that sent the request.

    Args:
        request: of the browser.
        url: of the page, or its path.
        host: of the page, if *url* is a path.
        is_hash_page: whether a site tells its pages apart by the fragment of the URL.

    """
    fields: dict[str, Any] = {"event": "view"}
    pattern = request.config.item_pattern
    match = find_item(pattern, url, host)
    if match.id is not None:
        fragment = url.partition("#")[2] if is_hash_page and pattern.regex is None else ""
        fields["id"] = f"{match.id}#{decode_percent(fragment)}" if fragment else match.id
    fields["url"] = f"https://{host}{url}" if host and url.startswith("/") else url
    if request.client_ip:
        set_client(fields, request.client_ip)
    for name, header in _BROWSER_HEADERS:
        if value := request.headers.get(header):
            # Headers may hold bytes that are not text.
            fields[name] = value.encode(errors="replace").decode()
    return {name: value for name, value in fields.items() if value}


def find_item(pattern: ItemPattern, url: str, host: str = "") -> ItemMatch:
    """Return the item of a page's URL or path."""
    return pattern.match(pattern.target(url.partition("#")[0], host) if pattern.match_url else url_path(url))


def set_custom_event(fields: dict[str, Any], name: str) -> None:
    """Set the event that a site has named itself."""
    if name in _COUNTED_EVENTS:
        fields.update(event=CUSTOM_EVENT, name=name)
    else:
        fields["event"] = name


def set_download(fields: dict[str, Any], request: Request, file_url: str) -> None:
    """Make the event a download; a file that is not an item belongs to the item of its page."""
    file = find_item(request.config.item_pattern, file_url)
    file_format = file.format or file_extension(url_path(file_url))
    fields.update(event="download", download=file_url)
    if file.id is not None:
        fields["id"] = file.id
    if file_format:
        fields["format"] = file_format


def add_properties(fields: dict[str, Any], properties: Mapping[str, Any], prefix: str) -> None:
    """Add a site's own properties; names that have a meaning in Metronome get the prefix."""
    for name, value in properties.items():
        if value is not None:
            fields[f"{prefix}{name}" if name in _RESERVED_FIELDS or name in fields else name] = value


def set_named_client(fields: dict[str, Any], address: str, agent: str) -> None:
    """Set the client that a back end names, as it may with ``/tick``."""
    if agent:
        fields["agent"] = agent
    if address:
        fields.pop("clientip", None)
        set_client(fields, address)


def parse_object(value: object, name: str) -> Mapping[str, Any]:
    """Return a field that is an object or its JSON text; empty for null or an empty text.

    Raises:
        Malformed: it is neither.

    """
    if isinstance(value, str) and value:
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise Malformed(f"invalid {name}: expected a JSON object or its text") from None
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"invalid {name}: expected a JSON object, got {json_type_name(value)}")
    return value


def text_of(fields: Mapping[str, Any], *names: str) -> str:
    """Return the first of the named fields that is not empty, as text.

    Raises:
        Malformed: it is neither text nor a number.

    """
    for name in names:
        value = fields.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise Malformed(f"invalid {name}: expected text, got {json_type_name(value)}")
        return str(value)
    return ""
