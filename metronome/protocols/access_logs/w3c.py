"""Logs in the W3C's extended format: IIS (columns separated by spaces) and CloudFront (by tabs).

A ``#Fields:`` directive defines the columns of the lines after it, and may occur in the middle of a log. A hyphen is a
missing value; times are UTC.

Sources: the W3C's working draft "Extended Log File Format"; Microsoft's "W3C Extended Log File Format"; Amazon's
"CloudFront standard logging reference".
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from metronome.enrich.addresses import normalize_address, split_addresses
from metronome.errors import Malformed
from metronome.items import file_extension
from metronome.protocols.access_logs.formats import (
    EMPTY_VALUES,
    LineParser,
    LogFormat,
    check_user,
    check_visitor,
    decode_cloudfront_user_agent,
    is_forwarded_name,
    is_host,
    is_http_method,
    is_user_agent,
    parse_status,
    seconds_to_milliseconds,
    set_client_chain,
    strip_port,
)
from metronome.protocols.access_logs.json_formats import merge_fields
from metronome.times import parse_timestamp

CLOUDFRONT_COLUMNS: Final = (
    *("date", "time", "x-edge-location", "sc-bytes", "c-ip", "cs-method", "cs(Host)", "cs-uri-stem", "sc-status"),
    *("cs(Referer)", "cs(User-Agent)", "cs-uri-query", "cs(Cookie)", "x-edge-result-type", "x-edge-request-id"),
    *("x-host-header", "cs-protocol", "cs-bytes", "time-taken", "x-forwarded-for", "ssl-protocol", "ssl-cipher"),
    *("x-edge-response-result-type", "cs-protocol-version", "fle-status", "fle-encrypted-fields", "c-port"),
    *("time-to-first-byte", "x-edge-detailed-result-type", "sc-content-type", "sc-content-len"),
    *("sc-range-start", "sc-range-end"),
)
"""The columns of CloudFront's version 1.0, for lines without a directive before them."""

_MAPPED_COLUMNS: Final = frozenset(
    {
        *("date", "time", "c-ip", "cs-username", "cs-method", "cs-uri-stem", "cs-uri-query", "cs-uri", "sc-status"),
        *("sc-bytes", "time-taken", "cs(User-Agent)", "cs(Referer)", "cs-host", "cs(Host)", "x-host-header"),
        "cs(Cookie)",
    }
)
"""Columns with a field of their own, or dropped for privacy: cookies. So are the addresses that were forwarded."""
_INTEGER_COLUMNS: Final = (
    *("sc-bytes", "cs-bytes", "sc-substatus", "sc-win32-status", "s-port", "c-port", "cs-uri-port"),
)
_CLOUDFRONT_COLUMN: Final = "x-edge-location"
_HOST_COLUMNS = ("x-host-header", "cs-host", "cs(Host)")
_QUOTED_COLUMN_PATTERN = re.compile(r' *+(?:"((?:[^"]|"")*+)"(?!\S)|([^\s"]\S*+))')
_MAX_DIGITS = 18


class _W3CParser:
    """Parse the lines of one log according to its directives.

    Args:
        separator: between columns.
        column_names: the columns of lines before any directive; empty if there are no such lines.
        decode_user_agent: decodes the column of the user agent.
        parse_duration: converts ``time-taken`` to milliseconds.

    """

    def __init__(
        self,
        separator: str,
        column_names: tuple[str, ...],
        decode_user_agent: Callable[[str], str],
        parse_duration: Callable[[str], float | None],
    ) -> None:
        self._separator = separator
        self._column_names = column_names
        self._decode_user_agent = decode_user_agent
        self._parse_duration = parse_duration
        self._date = ""
        self._set_columns(column_names)

    def _set_columns(self, names: tuple[str, ...]) -> None:
        self._column_names = names
        self._forwarded_names = _forwarded_names(names)
        self._checks = tuple((name, set[str](), _COLUMN_CHECKS[name]) for name in names if name in _COLUMN_CHECKS)
        self._user_agents: set[str] = set()
        self._other_names = tuple(name for name in names if name not in _MAPPED_COLUMNS | {*self._forwarded_names})

    def parse(self, line: str) -> dict[str, Any] | None:
        """Parse a line, or apply a directive (see `LineParser`)."""
        if line.startswith("#"):
            self._apply_directive(line)
            return None
        if not self._column_names:
            raise Malformed("no #Fields directive before the line, as in #Fields: date time c-ip …")
        parts = self._split_columns(line)
        if len(parts) != len(self._column_names):
            raise Malformed(f"{len(parts)} columns instead of the {len(self._column_names)} of #Fields")
        values = {name: part for name, part in zip(self._column_names, parts, strict=True) if part not in EMPTY_VALUES}
        self._check_columns(values)
        return self._build_fields(values)

    def _apply_directive(self, line: str) -> None:
        name, _, text = line.partition(":")
        if name == "#Fields":
            self._set_columns(tuple(text.split()))
        elif name == "#Date":
            self._date = text.split()[0] if text.strip() else ""

    def _split_columns(self, line: str) -> list[str]:
        count = len(self._column_names)
        if self._separator == " " and "\t" in line and _CLOUDFRONT_COLUMN not in self._column_names:
            return line.split("\t")
        parts = line.split(self._separator)
        if len(parts) != count and self._separator == " ":
            if '"' in line:
                return _split_quoted(line)
            # Some servers write two blanks where a column is empty, and others between any columns.
            merged = line.split()
            return merged if len(merged) == count and "\t" not in line else parts
        return parts

    def _build_fields(self, values: dict[str, str]) -> dict[str, Any]:
        day, time = values.get("date", self._date), values.get("time")
        if not day or time is None:
            raise Malformed("no date and time: configure the server to log both")
        fields: dict[str, Any] = {"@timestamp": _parse_timestamp(f"{day}T{time}Z")}
        if "cs-method" in values:
            self._check_request(values)
        self._set_client(fields, values)
        if "cs-username" in values:
            fields["user"] = check_user(values["cs-username"])
        _set_target(fields, values)
        if "sc-status" in values:
            fields["status"] = parse_status(values["sc-status"])
        if "sc-bytes" in values:
            fields["bytes"] = int(values["sc-bytes"])
        if "cs(Referer)" in values:
            fields["referer"] = values["cs(Referer)"]
        if "cs(User-Agent)" in values:
            fields["agent"] = self._decode_user_agent(values["cs(User-Agent)"])
        check_visitor(fields)
        host = next((values[name] for name in _HOST_COLUMNS if name in values), None)
        if host is not None:
            fields["host"] = strip_port(host)
        duration = self._parse_duration(values["time-taken"]) if "time-taken" in values else None
        if duration is not None:
            fields["duration"] = duration
        return merge_fields(fields, {name: values[name] for name in self._other_names if name in values})

    def _check_columns(self, values: Mapping[str, str]) -> None:
        """Check that columns are what their names say. Most values have been seen before.

        Raises:
            Malformed: a column is not, so the columns are not those of ``#Fields``.

        """
        for name, seen, is_valid in self._checks:
            text = values.get(name)
            if text is None or text in seen:
                continue
            if not is_valid(text):
                raise Malformed(f"{name} is {text[:40]!r}, which is not {_COLUMN_KINDS[is_valid]}")
            _remember(seen, text)
        if "cs-uri-stem" not in values and values.get("cs-uri-query", "").startswith("/"):
            raise Malformed("cs-uri-query is a path")
        if "c-ip" not in values:
            _check_others(values, _ADDRESS_NAMES, _is_address, "an IP address, and there is no c-ip")
        agent = values.get("cs(User-Agent)", "")
        if agent in self._user_agents:
            return
        if is_user_agent(agent):
            _remember(self._user_agents, agent)
        else:
            _check_others(values, _PATH_NAMES, is_user_agent, "a user agent, and cs(User-Agent) is none")

    def _check_request(self, values: Mapping[str, str]) -> None:
        for name in ("cs-uri-stem", "sc-status"):
            if name in self._column_names and name not in values:
                raise Malformed(f"a method and no {name}")

    def _set_client(self, fields: dict[str, Any], values: Mapping[str, str]) -> None:
        """Set the client: the address that was forwarded, if the server logs it; else that of the connection."""
        peer = values.get("c-ip", "")
        for name in self._forwarded_names:
            addresses = split_addresses(values.get(name, "").replace("+", " "))
            if addresses:
                # CloudFront logs what its visitors say, who are not proxies.
                is_default = _CLOUDFRONT_COLUMN in self._column_names
                set_client_chain(fields, addresses, peer, needs_trusted_peer=is_default)
                return
        if peer:
            fields["clientip"] = peer


def _forwarded_names(column_names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in column_names if is_forwarded_name(name))


_MAX_SEEN: Final = 30_000
_SEEN_MAX_CHARACTERS: Final = 200


def _remember(seen: set[str], text: str) -> None:
    """Add a valid value to those that need no check again, in bounded memory."""
    if len(seen) < _MAX_SEEN and len(text) <= _SEEN_MAX_CHARACTERS:
        seen.add(text)


def _check_others(
    values: Mapping[str, str], names: frozenset[str], is_other: Callable[[str], bool], problem: str
) -> None:
    for name, text in values.items():
        if name not in names and is_other(text) and not is_forwarded_name(name):
            raise Malformed(f"{name} is {problem}")


_ADDRESS_NAMES: Final = frozenset({"s-ip", "cs-username", "cs-host", "cs(Host)", "x-host-header"})
_PATH_NAMES: Final = frozenset({"cs-uri-stem", "cs-uri", "cs-version", "cs-protocol-version"})


def _is_address(text: str) -> bool:
    return normalize_address(text) is not None


def _is_integer(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _is_target(text: str) -> bool:
    return text.startswith(("/", "*")) or "://" in text or _AUTHORITY_PATTERN.fullmatch(text) is not None


_AUTHORITY_PATTERN = re.compile(r"\S{1,255}:\d{1,5}", re.ASCII)
"""The target of ``CONNECT``."""


def _is_host_or_address(text: str) -> bool:
    return is_host(text) or normalize_address(text) is not None


def _is_cookie(text: str) -> bool:
    return "=" in text


_COLUMN_KINDS: Final[Mapping[Callable[[str], bool], str]] = {
    _is_address: "an IP address",
    _is_integer: "a number",
    _is_target: "a path",
    _is_host_or_address: "a host",
    _is_cookie: "a cookie",
    is_http_method: "a method",
}
_COLUMN_CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "c-ip": _is_address,
    "s-ip": _is_address,
    "cs-method": is_http_method,
    "cs-uri-stem": _is_target,
    **dict.fromkeys(_INTEGER_COLUMNS, _is_integer),
    **dict.fromkeys(_HOST_COLUMNS, _is_host_or_address),
    "cs(Cookie)": _is_cookie,
}


def _split_quoted(line: str) -> list[str]:
    """Split a line with values in quotes, as servers other than IIS write them; empty if it cannot be split."""
    parts: list[str] = []
    at = 0
    while match := _QUOTED_COLUMN_PATTERN.match(line, at):
        parts.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        at = match.end()
    return parts if at == len(line) else []


def _set_target(fields: dict[str, Any], values: dict[str, str]) -> None:
    method = values.get("cs-method", "")
    if is_http_method(method):
        fields["method"] = method
    stem, query = values.get("cs-uri-stem"), values.get("cs-uri-query")
    if stem is None:
        if "cs-uri" in values:
            fields["url"] = values["cs-uri"]
    else:
        fields["url"] = stem if query is None else f"{stem}?{query}"


@lru_cache(maxsize=4096)
def _parse_timestamp(text: str) -> str:
    try:
        return parse_timestamp(text)
    except Malformed:
        raise Malformed(
            f"invalid date and time {text[:40]!r}: expected values such as 2015-05-17 and 10:05:03"
        ) from None


def _plus_to_space(agent: str) -> str:
    return agent.replace("+", " ")


def _parse_iis_duration(text: str) -> float | None:
    # IIS writes milliseconds; servers that follow the draft write seconds with a fraction.
    if "." in text:
        return _parse_seconds(text)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _parse_seconds(text: str) -> float | None:
    try:
        return seconds_to_milliseconds(float(text))
    except ValueError:
        return None


def _stable_part_spaces(line: bytes) -> bytes:
    """Return a line without its last column, which may be incomplete."""
    return line.strip().rpartition(b" ")[0]


def _stable_part_tabs(line: bytes) -> bytes:
    return line.strip().rpartition(b"\t")[0]


def _new_w3c_parser() -> LineParser:
    return _W3CParser(" ", (), _plus_to_space, _parse_iis_duration).parse


def _new_cloudfront_parser() -> LineParser:
    return _W3CParser("\t", CLOUDFRONT_COLUMNS, decode_cloudfront_user_agent, _parse_seconds).parse


_COUNTER_COLUMNS: Final = (
    *("event_time", "client_ip", "session_cookie_id", "user_cookie_id", "user_id", "request_url", "identifier"),
    *("filename", "size", "user-agent", "title", "publisher", "publisher_id", "authors", "publication_date"),
    *("version", "other_id", "target_url", "publication_year"),
)
"""The columns of Make Data Count's processor (https://github.com/CDLUC3/counter-processor)."""
_COUNTER_TEXT_COLUMNS: Final = ("title", "publisher", "version", "filename")


class _CounterParser:
    """Parse the lines of a log that a repository writes for Make Data Count.

    Its lines are not requests but investigations and requests of datasets: views and downloads. What identifies a
    session or a user is dropped.
    """

    def __init__(self) -> None:
        self._column_names: tuple[str, ...] = _COUNTER_COLUMNS

    def parse(self, line: str) -> dict[str, Any] | None:
        """Parse a line, or apply a directive (see `LineParser`)."""
        if line.startswith("#"):
            name, _, text = line.partition(":")
            if name == "#Fields":
                self._column_names = tuple(text.split())
            return None
        parts = line.split("\t")
        if "identifier" not in self._column_names or len(parts) != len(self._column_names):
            raise Malformed(f"{len(parts)} columns, separated by tabs, instead of {len(self._column_names)}")
        values = {name: part for name, part in zip(self._column_names, parts, strict=True) if part not in EMPTY_VALUES}
        if "identifier" not in values:
            raise Malformed("no identifier")
        for name, is_valid in (("request_url", _is_target), ("size", _is_integer)):
            if name in values and not is_valid(values[name]):
                raise Malformed(f"{name} is {values[name][:40]!r}, which is not {_COLUMN_KINDS[is_valid]}")
        return _build_counter_fields(values)


def _build_counter_fields(values: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"@timestamp": _parse_timestamp(values.get("event_time", ""))}
    if "client_ip" in values:
        addresses = split_addresses(values["client_ip"])
        if not addresses:
            raise Malformed(f"client_ip is {values['client_ip'][:40]!r}, which is not an IP address")
        set_client_chain(fields, addresses, "")
    names = (("url", "request_url"), ("agent", "user-agent"), *((name, name) for name in _COUNTER_TEXT_COLUMNS))
    fields |= {name: values[column] for name, column in names if column in values}
    check_visitor(fields)
    if "size" in values:
        fields["bytes"] = int(values["size"])
    fields["id"] = values["identifier"]
    fields["event"] = "view"
    if "filename" in values:
        fields |= {"event": "download", "format": file_extension(values["filename"]) or "file"}
    return fields


W3C: Final = LogFormat("w3c", _new_w3c_parser, _stable_part_spaces, has_directives=True)
CLOUDFRONT: Final = LogFormat("cloudfront", _new_cloudfront_parser, _stable_part_tabs, has_directives=True)
MAKE_DATA_COUNT: Final = LogFormat(
    "make-data-count", lambda: _CounterParser().parse, _stable_part_tabs, has_directives=True
)
