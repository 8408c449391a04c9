"""Reports as Matomo's Tracking API takes them: bulks of queries.

Source: https://developer.matomo.org/api-reference/tracking-api. Where an event's fields have a parameter there, they
have the names that Metronome gives to that parameter, so that the same events come to Metronome either way.

CRC-64/XZ: the polynomial of ECMA-182, bits reflected, all ones before and after.

Source: https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-64-xz. It is what the CRC-64 packages of
Node compute, also those that call themselves ECMA-182, and what liblzma does. A library of its own is not worth being
asked of every host: what is hashed is short, and remembered.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote_from_bytes

from metronome.middleware.config import ClientConfig
from metronome.middleware.json import encode_json
from metronome.middleware.response_policy import SendOutcome, TargetResponse, evaluate_failure

_POLYNOMIAL: Final = 0xC96C5795D7870F42
"""0x42F0E1EBA9EA3693 from its last bit to its first."""
_ALL_ONES: Final = 0xFFFFFFFFFFFFFFFF
_CACHE_SIZE: Final = 4096


def _table_entry(remainder: int) -> int:
    for _ in range(8):
        remainder = (remainder >> 1) ^ (_POLYNOMIAL if remainder & 1 else 0)
    return remainder


_TABLE: Final = tuple(map(_table_entry, range(256)))


def crc64(data: bytes) -> int:
    """Return the checksum of bytes, a number of 64 bits."""
    table, remainder = _TABLE, _ALL_ONES
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    return remainder ^ _ALL_ONES


@lru_cache(_CACHE_SIZE)
def visitor_id(address: str, user_agent: str) -> str:
    """Return by what Matomo is to know a visitor: 16 hexadecimal digits, of the address and the user agent."""
    return f"{crc64((address + user_agent).encode(errors='replace')):016x}"


TEXT_PARAMETERS: Final = {
    "title": "action_name",
    "url": "url",
    "referer": "urlref",
    "agent": "ua",
    "lang": "lang",
    "user": "uid",
    "download": "download",
    "link": "link",
    "search": "search",
    "search_category": "search_cat",
    "category": "e_c",
    "content": "c_n",
    "content_piece": "c_p",
    "content_target": "c_t",
    "content_interaction": "c_i",
    "goal": "idgoal",
    "order": "ec_id",
    "items": "ec_items",
    "product": "_pks",
    "product_name": "_pkn",
    "product_category": "_pkc",
    "error_type": "cra_tp",
    "error_stack": "cra_st",
}
"""Which parameter a field of text is."""
NUMBER_PARAMETERS: Final = {
    "status": "http_status",
    "search_count": "search_count",
    "revenue": "revenue",
    "subtotal": "ec_st",
    "tax": "ec_tx",
    "shipping": "ec_sh",
    "discount": "ec_dt",
    "product_price": "_pkp",
}
"""Which parameter a number is."""
SPECIAL_FIELDS: Final = frozenset({"ts", "event", "id", "format", "action", "name", "value", "message", "duration"})
"""Fields that are several parameters, or one or another."""
COMMON_PARAMETERS: Final = "&rec=1&apiv=1&send_image=0"
BULK_PATHS: Final = ("/matomo.php", "/piwik.php")

_REQUEST_EVENTS: Final = frozenset({"request", "view", "download"})
_SUCCESS: Final = range(200, 300)
_NO_CONTENT: Final = 204
_BAD_REQUEST: Final = 400
_QUOTED_PATTERN: Final = re.compile(r"[A-Za-z0-9._~%-]*", re.ASCII)
_CACHED_MAX_CHARACTERS: Final = 512


class MatomoProtocol:
    """Speaks to a Matomo, or to what takes what Matomo takes; attributes and methods as `Native` has them.

    Args:
        config: where it is.

    """

    separator: Final = b","

    def __init__(self, config: ClientConfig) -> None:
        base = config.url.rstrip("/")
        self.url = base if base.endswith(BULK_PATHS) else base + BULK_PATHS[0]
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self._common_query = f"idsite={config.site}{COMMON_PARAMETERS}"
        dimensions = {field: f"dimension{number}" for field, number in config.dimensions.items()}
        self._parameter_names = {**dimensions, **NUMBER_PARAMETERS, **TEXT_PARAMETERS}
        # Whose word counts may say where and when; of others, Matomo takes no address.
        self._has_token = bool(config.key)
        self.body_prefix = b'{"requests":['
        token = b',"token_auth":' + encode_json(config.key) if config.key else b""
        self.body_suffix = b"]" + token + b"}"

    def encode(self, fields: Mapping[str, Any], event_id: str) -> bytes:
        """Return an event as a query in JSON's quotes (see `Native.encode`)."""
        parameters = self.build_parameters(fields, event_id)
        query = "".join([f"&{name}={_quote_value(value)}" for name, value in parameters.items()])
        return f'"?{self._common_query}{query}"'.encode()

    def build_parameters(self, fields: Mapping[str, Any], event_id: str) -> dict[str, Any]:
        """Return the parameters that an event has beside those that all have."""
        found: dict[str, Any] = {}
        for name, value in fields.items():
            parameter = self._parameter_names.get(name)
            if parameter is None and name.startswith("dimension") and name[9:].isdigit():
                parameter = name
            if parameter is not None and value is not None:
                found[parameter] = value
        self._add_event_parameters(found, fields)
        self._add_visitor_parameters(found, fields)
        found["cdt"] = _to_seconds(fields.get("ts"))
        if "duration" in fields:
            found["pf_srv"] = _to_whole_milliseconds(fields["duration"])
        found["rand"] = event_id
        return found

    def evaluate_response(self, response: TargetResponse, count: int) -> SendOutcome:
        """Say what an answer means for a batch of so many events.

        Matomo cannot tell what comes again from what happens again: what it may have counted is not sent again.
        """
        told = _parse_bulk_response(response.body)
        if response.status == _NO_CONTENT:
            return SendOutcome(sent=count)
        if told is not None and (response.status in _SUCCESS or response.status == _BAD_REQUEST):
            tracked, invalid = told
            reason = (
                f"{self.url} refuses {invalid} of {count} events; with a right key it tells which" if invalid else ""
            )
            return SendOutcome(sent=tracked, rejected=max(count - tracked, 0), reason=reason)
        if response.status in _SUCCESS:
            return SendOutcome(rejected=count, reason=f"{self.url} answers as no Matomo does: correct the url")
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
        elif not any(name in parameters for name in ("link", "search", "c_n", "idgoal", "_pks")):
            # Matomo knows no other kind of event; this one's own name is its category.
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
    """Return a time as Matomo reads it: whole seconds since 1970; another of the host's own as it is."""
    return timestamp // 1000 if isinstance(timestamp, int) and not isinstance(timestamp, bool) else timestamp


def _to_whole_milliseconds(milliseconds: Any) -> Any:
    return round(milliseconds) if isinstance(milliseconds, int | float) else milliseconds


def _quote_value(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return _quote_cached(value) if len(value) <= _CACHED_MAX_CHARACTERS else _quote_text(value)
    return str(value) if kind is int else quote_from_bytes(encode_json(value), safe="")


def _quote_text(text: str) -> str:
    # What addresses have, first: to look at each character takes four times as long.
    quoted = text.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")
    quoted = quoted.replace("?", "%3F").replace("=", "%3D").replace("&", "%26")
    return quoted if _QUOTED_PATTERN.fullmatch(quoted) else quote_from_bytes(text.encode(errors="replace"), safe="")


_quote_cached = lru_cache(_CACHE_SIZE)(_quote_text)
"""Routes, agents, languages and referers come again and again."""


def _parse_bulk_response(body: bytes) -> tuple[int, int] | None:
    """Return how many a bulk's answer calls tracked, and how many invalid."""
    try:
        found = json.loads(body)
        return int(found["tracked"]), int(found["invalid"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
