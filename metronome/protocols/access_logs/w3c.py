"""Logs in the W3C's extended format: IIS (columns separated by spaces) and CloudFront (by tabs).

A ``#Fields:`` directive defines the columns of the lines after it, and may occur in the middle of a log. A hyphen is a
missing value; times are UTC.

Sources: the W3C's working draft "Extended Log File Format"; Microsoft's "W3C Extended Log File Format"; Amazon's
"CloudFront standard logging reference".
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from metronome.enrich.addresses import set_client
from metronome.errors import Malformed
from metronome.protocols.access_logs.formats import (
    DECODE_ERRORS,
    EMPTY_VALUES,
    LineParser,
    LogFormat,
    is_http_method,
    seconds_to_milliseconds,
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
        *("cs(Cookie)", "x-forwarded-for", "cs(X-Forwarded-For)"),
    }
)
"""Columns with a field of their own, or dropped for privacy: cookies, and IP addresses beside ``clientip``."""
_HOST_COLUMNS = ("x-host-header", "cs-host", "cs(Host)")
_NUMBER_COLUMNS = (("status", "sc-status"), ("bytes", "sc-bytes"))
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
        return self._build_fields(
            {name: part for name, part in zip(self._column_names, parts, strict=True) if part not in EMPTY_VALUES}
        )

    def _apply_directive(self, line: str) -> None:
        name, _, text = line.partition(":")
        if name == "#Fields":
            self._column_names = tuple(text.split())
        elif name == "#Date":
            self._date = text.split()[0] if text.strip() else ""

    def _split_columns(self, line: str) -> list[str]:
        parts = line.split(self._separator)
        if len(parts) != len(self._column_names) and self._separator == " " and '"' in line:
            return _split_quoted(line)
        return parts

    def _build_fields(self, values: dict[str, str]) -> dict[str, Any]:
        day, time = values.get("date", self._date), values.get("time")
        if not day or time is None:
            raise Malformed("no date and time: configure the server to log both")
        fields: dict[str, Any] = {"@timestamp": _parse_timestamp(f"{day}T{time}Z")}
        if "c-ip" in values:
            set_client(fields, values["c-ip"])
        if "cs-username" in values:
            fields["user"] = values["cs-username"]
        _set_target(fields, values)
        for name, column in _NUMBER_COLUMNS:
            text = values.get(column, "")
            if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
                fields[name] = int(text)
        if "cs(Referer)" in values:
            fields["referer"] = values["cs(Referer)"]
        if "cs(User-Agent)" in values:
            fields["agent"] = self._decode_user_agent(values["cs(User-Agent)"])
        host = next((values[name] for name in _HOST_COLUMNS if name in values), None)
        if host is not None:
            fields["host"] = strip_port(host)
        duration = self._parse_duration(values["time-taken"]) if "time-taken" in values else None
        if duration is not None:
            fields["duration"] = duration
        return merge_fields(fields, {name: text for name, text in values.items() if name not in _MAPPED_COLUMNS})


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


def _decode_cloudfront_user_agent(agent: str) -> str:
    once = unquote(agent, errors=DECODE_ERRORS)
    # CloudFront encodes percent signs as well, and so encodes spaces twice.
    return unquote(once, errors=DECODE_ERRORS) if "%20" in once else once


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
    return _W3CParser("\t", CLOUDFRONT_COLUMNS, _decode_cloudfront_user_agent, _parse_seconds).parse


W3C: Final = LogFormat("w3c", _new_w3c_parser, _stable_part_spaces, has_directives=True)
CLOUDFRONT: Final = LogFormat("cloudfront", _new_cloudfront_parser, _stable_part_tabs, has_directives=True)
