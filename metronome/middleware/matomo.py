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
from metronome.middleware.json import as_json
from metronome.middleware.response_policy import Answer, Verdict, refused

_POLYNOMIAL: Final = 0xC96C5795D7870F42
"""0x42F0E1EBA9EA3693 from its last bit to its first."""
_ONES: Final = 0xFFFFFFFFFFFFFFFF
_REMEMBERED: Final = 4096


def _step(remainder: int) -> int:
    for _ in range(8):
        remainder = (remainder >> 1) ^ (_POLYNOMIAL if remainder & 1 else 0)
    return remainder


_TABLE: Final = tuple(map(_step, range(256)))


def crc64(data: bytes) -> int:
    """Return the checksum of bytes, a number of 64 bits."""
    table, remainder = _TABLE, _ONES
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ (remainder >> 8)
    return remainder ^ _ONES


@lru_cache(_REMEMBERED)
def visitor_of(address: str, agent: str) -> str:
    """Return by what Matomo is to know a visitor: 16 hexadecimal digits, of the address and the user agent."""
    return f"{crc64((address + agent).encode(errors='replace')):016x}"


TEXTS: Final = {
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
NUMBERS: Final = {
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
HANDLED: Final = frozenset({"ts", "event", "id", "format", "action", "name", "value", "message", "duration"})
"""Fields that are several parameters, or one or another."""
CONSTANT: Final = "&rec=1&apiv=1&send_image=0"
BULK_PATHS: Final = ("/matomo.php", "/piwik.php")

_OF_REQUESTS: Final = frozenset({"request", "view", "download"})
_SUCCESS: Final = range(200, 300)
_NO_CONTENT: Final = 204
_BAD_REQUEST: Final = 400
_QUOTED: Final = re.compile(r"[A-Za-z0-9._~%-]*", re.ASCII)
_SHORT: Final = 512


class Matomo:
    """Speaks to a Matomo, or to what takes what Matomo takes; attributes and methods as `Native` has them.

    Args:
        config: where it is.

    """

    between: Final = b","

    def __init__(self, config: ClientConfig) -> None:
        base = config.url.rstrip("/")
        self.url = base if base.endswith(BULK_PATHS) else base + BULK_PATHS[0]
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self._begin = f"idsite={config.site}{CONSTANT}"
        dimensions = {field: f"dimension{number}" for field, number in config.dimensions.items()}
        self._names = {**dimensions, **NUMBERS, **TEXTS}
        # Whose word counts may say where and when; of others, Matomo takes no address.
        self._believed = bool(config.key)
        self.begin = b'{"requests":['
        token = b',"token_auth":' + as_json(config.key) if config.key else b""
        self.end = b"]" + token + b"}"

    def encode(self, fields: Mapping[str, Any], identity: str) -> bytes:
        """Return an event as a query in JSON's quotes (see `Native.encode`)."""
        parameters = self.parameters(fields, identity)
        query = "".join([f"&{name}={_quoted(value)}" for name, value in parameters.items()])
        return f'"?{self._begin}{query}"'.encode()

    def parameters(self, fields: Mapping[str, Any], identity: str) -> dict[str, Any]:
        """Return the parameters that an event has beside those that all have."""
        found: dict[str, Any] = {}
        for name, value in fields.items():
            parameter = self._names.get(name)
            if parameter is None and name.startswith("dimension") and name[9:].isdigit():
                parameter = name
            if parameter is not None and value is not None:
                found[parameter] = value
        self._add_what_happened(found, fields)
        self._add_who(found, fields)
        found["cdt"] = _seconds(fields.get("ts"))
        if "duration" in fields:
            found["pf_srv"] = _whole(fields["duration"])
        found["rand"] = identity
        return found

    def judge(self, answer: Answer, count: int) -> Verdict:
        """Say what an answer means for a batch of so many events.

        Matomo cannot tell what comes again from what happens again: what it may have counted is not sent again.
        """
        told = _told(answer.body)
        if answer.status == _NO_CONTENT:
            return Verdict(sent=count)
        if told is not None and (answer.status in _SUCCESS or answer.status == _BAD_REQUEST):
            tracked, invalid = told
            reason = (
                f"{self.url} refuses {invalid} of {count} events; with a right key it tells which" if invalid else ""
            )
            return Verdict(sent=tracked, refused=max(count - tracked, 0), reason=reason)
        if answer.status in _SUCCESS:
            return Verdict(refused=count, reason=f"{self.url} answers as no Matomo does: correct the url")
        return refused(answer, count, self.url)

    def _add_what_happened(self, found: dict[str, Any], fields: Mapping[str, Any]) -> None:
        event = str(fields.get("event", "view"))
        if "message" in fields and event == "error":
            found["cra"] = fields["message"]
            found["ca"] = 1
        elif "e_c" in found:
            found["e_a"] = fields.get("action", event)
            _add_name_and_value(found, fields)
        elif event in _OF_REQUESTS or (event == "error" and "action" in fields):
            if "action" in fields:
                found.setdefault("action_name", fields["action"])
            if event == "download" and "url" in fields:
                found.setdefault("download", fields["url"])
        elif not any(name in found for name in ("link", "search", "c_n", "idgoal", "_pks")):
            # Matomo knows no other kind of event; this one's own name is its category.
            found["e_c"], found["e_a"] = event, fields.get("action", event)
            _add_name_and_value(found, fields)

    def _add_who(self, found: dict[str, Any], fields: Mapping[str, Any]) -> None:
        address = fields.get("clientip")
        if address:
            if self._believed:
                found["cip"] = address
            found["_id"] = visitor_of(str(address), str(fields.get("agent", "")))


def _add_name_and_value(found: dict[str, Any], fields: Mapping[str, Any]) -> None:
    for name in ("name", "message", "id"):
        if fields.get(name) is not None:
            found["e_n"] = fields[name]
            break
    if fields.get("value") is not None:
        found["e_v"] = fields["value"]


def _seconds(stamp: Any) -> Any:
    """Return a time as Matomo reads it: whole seconds since 1970; another of the host's own as it is."""
    return stamp // 1000 if isinstance(stamp, int) and not isinstance(stamp, bool) else stamp


def _whole(milliseconds: Any) -> Any:
    return round(milliseconds) if isinstance(milliseconds, int | float) else milliseconds


def _quoted(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return _quoted_short(value) if len(value) <= _SHORT else _quoted_text(value)
    return str(value) if kind is int else quote_from_bytes(as_json(value), safe="")


def _quoted_text(text: str) -> str:
    # What addresses have, first: to look at each character takes four times as long.
    quoted = text.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")
    quoted = quoted.replace("?", "%3F").replace("=", "%3D").replace("&", "%26")
    return quoted if _QUOTED.fullmatch(quoted) else quote_from_bytes(text.encode(errors="replace"), safe="")


_quoted_short = lru_cache(_REMEMBERED)(_quoted_text)
"""Routes, agents, languages and referers come again and again."""


def _told(body: bytes) -> tuple[int, int] | None:
    """Return how many a bulk's answer calls tracked, and how many invalid."""
    try:
        found = json.loads(body)
        return int(found["tracked"]), int(found["invalid"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
