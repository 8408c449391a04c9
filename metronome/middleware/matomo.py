"""Send events to a Matomo, or to another server with Matomo's Tracking API, as bulks of queries.

Fields become the parameters that Metronome's server reads them from, so the same events reach Metronome either way.

Visitor IDs are CRC-64/XZ checksums (the polynomial of ECMA-182, bits reflected, initial value and final XOR all ones),
as the CRC-64 packages of Node and liblzma compute them. The checksum is computed here, not by a library that every
service would have to install: its input is short, and results are cached.

Sources: https://developer.matomo.org/api-reference/tracking-api,
https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-64-xz.
"""

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote_from_bytes

from metronome.matomo_parameters import NON_EVENT_PARAMETERS, PARAMETERS
from metronome.middleware.config import ClientConfig
from metronome.middleware.native import encode_json
from metronome.middleware.transport import SendOutcome, TargetResponse, evaluate_failure

_POLYNOMIAL: Final = 0xC96C5795D7870F42
"""0x42F0E1EBA9EA3693 with its bits reversed."""
_ALL_ONES: Final = 0xFFFFFFFFFFFFFFFF
_CACHE_SIZE: Final = 4096


def _table_entry(remainder: int) -> int:
    for _ in range(8):
        remainder = (remainder >> 1) ^ (_POLYNOMIAL if remainder & 1 else 0)
    return remainder


_TABLE: Final = tuple(map(_table_entry, range(256)))


def crc64(data: bytes) -> int:
    """Return the CRC-64/XZ checksum."""
    table, remainder = _TABLE, _ALL_ONES
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    return remainder ^ _ALL_ONES


@lru_cache(_CACHE_SIZE)
def visitor_id(address: str, user_agent: str) -> str:
    """Return Matomo's ID of a visitor, 16 hexadecimal digits, from the IP address and the user agent."""
    return f"{crc64((address + user_agent).encode(errors='replace')):016x}"


SENT_PARAMETERS: Final = {parameter.field: parameter.name for parameter in PARAMETERS if parameter.is_sent}
"""The parameter of each field that is sent as one parameter."""
SPECIAL_FIELDS: Final = frozenset({"ts", "event", "id", "format", "action", "name", "value", "message", "duration"})
"""Fields whose parameters depend on the event."""
COMMON_PARAMETERS: Final = "&rec=1&apiv=1&send_image=0"
BULK_PATHS: Final = ("/matomo.php", "/piwik.php")

_REQUEST_EVENTS: Final = frozenset({"request", "view", "download"})
_SUCCESS: Final = range(200, 300)
_NO_CONTENT: Final = 204
_BAD_REQUEST: Final = 400
_QUOTED_PATTERN: Final = re.compile(r"[A-Za-z0-9._~%-]*", re.ASCII)
_CACHED_MAX_CHARACTERS: Final = 512


class MatomoProtocol:
    """Matomo as a target: see `metronome.middleware.transport.TargetProtocol`.

    Args:
        config: URL, site, key and custom dimensions of the Matomo.

    """

    separator: Final = b","

    def __init__(self, config: ClientConfig) -> None:
        base = config.url.rstrip("/")
        self.url = base if base.endswith(BULK_PATHS) else base + BULK_PATHS[0]
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self._common_query = f"idsite={config.site}{COMMON_PARAMETERS}"
        dimensions = {field: f"dimension{number}" for field, number in config.dimensions.items()}
        self._parameter_names = {**dimensions, **SENT_PARAMETERS}
        # Matomo ignores the IP address in requests without a token.
        self._has_token = bool(config.key)
        self.body_prefix = b'{"requests":['
        token = b',"token_auth":' + encode_json(config.key) if config.key else b""
        self.body_suffix = b"]" + token + b"}"

    def encode(self, fields: Mapping[str, Any], event_id: str) -> bytes:
        """Return an event as a query in a JSON string ."""
        parameters = self.build_parameters(fields, event_id)
        query = "".join([f"&{name}={_quote_value(value)}" for name, value in parameters.items()])
        return f'"?{self._common_query}{query}"'.encode()

    def build_parameters(self, fields: Mapping[str, Any], event_id: str) -> dict[str, Any]:
        """Return the parameters of an event, except those that all events have."""
        parameters: dict[str, Any] = {}
        for name, value in fields.items():
            parameter = self._parameter_names.get(name)
            if parameter is None and name.startswith("dimension") and name[9:].isdigit():
                parameter = name
            if parameter is not None and value is not None:
                parameters[parameter] = value
        self._add_event_parameters(parameters, fields)
        self._add_visitor_parameters(parameters, fields)
        parameters["cdt"] = _to_seconds(fields.get("ts"))
        if "duration" in fields:
            parameters["pf_srv"] = _to_whole_milliseconds(fields["duration"])
        parameters["rand"] = event_id
        return parameters

    def evaluate_response(self, response: TargetResponse, count: int) -> SendOutcome:
        """Return what a response means for a batch of *count* events.

        Matomo does not deduplicate: events that it may have counted are not sent again.
        """
        counts = _parse_bulk_response(response.body)
        if response.status == _NO_CONTENT:
            return SendOutcome(sent=count)
        if counts is not None and (response.status in _SUCCESS or response.status == _BAD_REQUEST):
            tracked, invalid = counts
            reason = (
                f"{self.url} rejected {invalid} of {count} events; with a valid key it says which" if invalid else ""
            )
            return SendOutcome(sent=tracked, rejected=max(count - tracked, 0), reason=reason)
        if response.status in _SUCCESS:
            return SendOutcome(rejected=count, reason=f"{self.url} is not a Matomo: check the URL")
        return evaluate_failure(response, count, self.url)

    def _add_event_parameters(self, parameters: dict[str, Any], fields: Mapping[str, Any]) -> None:
        event = str(fields.get("event", "view"))
        if "message" in fields and event == "error":
            parameters["cra"] = fields["message"]
            parameters["ca"] = 1
        elif "e_c" in parameters:
            parameters["e_a"] = fields.get("action", event)
            _add_name_and_value(parameters, fields)
        elif event in _REQUEST_EVENTS or (event == "error" and "action" in fields):
            if "action" in fields:
                parameters.setdefault("action_name", fields["action"])
            if event == "download" and "url" in fields:
                parameters.setdefault("download", fields["url"])
        elif NON_EVENT_PARAMETERS.isdisjoint(parameters):
            # Matomo has no custom event types: the event's name becomes the category.
            parameters["e_c"], parameters["e_a"] = event, fields.get("action", event)
            _add_name_and_value(parameters, fields)

    def _add_visitor_parameters(self, parameters: dict[str, Any], fields: Mapping[str, Any]) -> None:
        address = fields.get("clientip")
        if address:
            if self._has_token:
                parameters["cip"] = address
            parameters["_id"] = visitor_id(str(address), str(fields.get("agent", "")))


def _add_name_and_value(parameters: dict[str, Any], fields: Mapping[str, Any]) -> None:
    for name in ("name", "message", "id"):
        if fields.get(name) is not None:
            parameters["e_n"] = fields[name]
            break
    if fields.get("value") is not None:
        parameters["e_v"] = fields["value"]


def _to_seconds(timestamp: Any) -> Any:
    """Return milliseconds since 1970 in whole seconds, as Matomo expects; other values unchanged."""
    return timestamp // 1000 if isinstance(timestamp, int) and not isinstance(timestamp, bool) else timestamp


def _to_whole_milliseconds(milliseconds: Any) -> Any:
    is_finite = isinstance(milliseconds, int | float) and math.isfinite(milliseconds)
    return round(milliseconds) if is_finite else milliseconds


def _quote_value(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return _quote_cached(value) if len(value) <= _CACHED_MAX_CHARACTERS else _quote_text(value)
    return str(value) if kind is int else quote_from_bytes(encode_json(value), safe="")


def _quote_text(text: str) -> str:
    # Replacing what URLs contain is four times as fast as quoting each character.
    quoted = text.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")
    quoted = quoted.replace("?", "%3F").replace("=", "%3D").replace("&", "%26")
    return quoted if _QUOTED_PATTERN.fullmatch(quoted) else quote_from_bytes(text.encode(errors="replace"), safe="")


_quote_cached = lru_cache(_CACHE_SIZE)(_quote_text)
"""Routes, user agents, languages and referrers repeat."""


def _parse_bulk_response(body: bytes) -> tuple[int, int] | None:
    """Return the counts of tracked and of invalid events in a response."""
    try:
        response = json.loads(body)
        return int(response["tracked"]), int(response["invalid"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
