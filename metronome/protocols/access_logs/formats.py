"""What a format of access logs is, and the parts of lines that formats share."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from metronome.enrich.addresses import ProxyNetworks, client_of_record, normalize_address
from metronome.enrich.caches import cached
from metronome.errors import Malformed
from metronome.fields import BACKSLASH_ERRORS
from metronome.times import parse_record_timestamp

LINE_MAX_BYTES: Final = 65_536
"""Longer lines are rejected: no web server accepts a request of that length."""

DECODE_ERRORS: Final = BACKSLASH_ERRORS
"""Bytes that are not valid UTF-8 become ``\\xHH``, as servers write them, so nothing is lost."""

LineParser = Callable[[str], dict[str, Any] | None]
"""Parses the lines of one log, in their order, to the fields of events: ``@timestamp`` always; ``method``, ``url``,
``status``, ``bytes``, ``referer``, ``agent``, ``clientip``, ``duration`` (milliseconds) and others if the line has
them. Returns None for a valid line that is not a request, such as a directive. Raises `Malformed` for other lines."""


def _always_true(_: Mapping[str, Any]) -> bool:
    return True


class LogFormat(NamedTuple):
    """A format of access logs.

    Attributes:
        name: in the command line.
        new_parser: returns the parser for one log, which may depend on the log's earlier lines.
        stable_part: returns the part of a line that does not change any more once the line can be parsed. A line that
            the server is still writing must keep its event ID when it is completed.
        has_directives: whether lines that begin with ``#`` define the columns of the lines after them.
        is_item_request: returns whether a request with these fields can be a view or download of its item.

    """

    name: str
    new_parser: Callable[[], LineParser]
    stable_part: Callable[[bytes], bytes] = bytes.strip
    has_directives: bool = False
    is_item_request: Callable[[Mapping[str, Any]], bool] = _always_true


EMPTY_VALUES: Final = frozenset({"", "-", '""'})
"""Values that servers write for a missing value."""

CLIENT_CHAIN: Final = "\0client"
"""A field of parsers, which is not stored: the addresses that were forwarded, the peer's, and whether that must be a
proxy's (see `resolve_client_chain`)."""

_METHOD_PATTERN = re.compile(r"[A-Za-z][A-Za-z_-]*+", re.ASCII)
_PORT_PATTERN = re.compile(r":\d++\Z", re.ASCII)


def set_request_line(fields: dict[str, Any], request: str) -> None:
    """Set ``method`` and ``url`` from a line such as ``GET /data HTTP/1.1``, or ``request`` for any other line."""
    method, _, rest = request.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not protocol.startswith("HTTP/"):
        target = rest
    if target and (method == "GET" or _METHOD_PATTERN.fullmatch(method)):
        fields["method"] = method
        fields["url"] = target
    elif request not in EMPTY_VALUES:
        # Not HTTP, such as the bytes of a port scan.
        fields["request"] = request


def is_http_method(text: str) -> bool:
    """Return whether *text* can be the method of a request."""
    return _METHOD_PATTERN.fullmatch(text) is not None


def strip_port(host: str) -> str:
    """Return a host without its port."""
    return _PORT_PATTERN.sub("", host) if host.count(":") == 1 or "]" in host else host


_FORWARDED_NAME_PATTERN = re.compile(
    r"(?:xforwardedfor|forwardedfor|xoriginalforwardedfor|xff|(?:^|http|header|headers|request|cs)forwarded"
    r"|xrealip|cfconnectingip|cfconnectingipv6|trueclientip|xclientip|xclusterclientip|fastlyclientip|xazureclientip)$"
)
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9@]+")


@cached(128, 4096)
def plain_name(name: str) -> str:
    """Return a field's name without regard to its spelling: ``useragent`` for ``User-Agent`` and ``user_agent``."""
    return _NOT_ALPHANUMERIC.sub("", name.lower())


@cached(128, 4096)
def is_forwarded_name(name: str) -> bool:
    """Return whether a field of that name holds the client's address as a proxy has forwarded it."""
    return _FORWARDED_NAME_PATTERN.search(plain_name(name)) is not None


def seconds_to_milliseconds(seconds: float) -> float | None:
    """Return *seconds* in milliseconds, rounded to a microsecond; None if they are not a valid duration."""
    if not math.isfinite(seconds) or not 0 <= seconds < _MAX_DURATION_SECONDS:
        return None
    exact = round(seconds * 1000, 3)
    return int(exact) if exact.is_integer() else exact


_MAX_DURATION_SECONDS = 1e9


_HOST_PATTERN = re.compile(
    r"(?=[^:]{1,253}(?::|\Z))(?=[^:]*[A-Za-z])[A-Za-z0-9_*](?:[\w-]{0,62})(?:\.[A-Za-z0-9_](?:[\w-]{0,62}))*+\.?"
    r"(?P<port>:\d{1,5})?"
)
_LOG_LEVELS: Final = frozenset({"TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL"})
_USER_AGENT_PATTERN = re.compile(
    r"[A-Za-z][\w.+-]*+(?:/v?\d|[^\"]*\((?:compatible|X11|Windows|Macintosh|Linux))", re.ASCII
)
_REQUEST_LINE_PATTERN = re.compile(r"[A-Z]{3,16} \S.* HTTP/\d|(?:GET|POST|HEAD|PUT|DELETE|OPTIONS) /", re.ASCII)
STATUSES: Final[dict[str, int]] = {
    f"{status:03}": status
    for status in (0, 100, 101, 102, 103, *range(200, 209), 214, 218, 226, 299, *range(300, 309), *range(400, 600))
}
"""HTTP statuses as they are logged. Services have errors of their own, but nothing else."""


def is_host(text: str, *, allow_port: bool = True) -> bool:
    """Return whether *text* can be the name of a host: it has a letter, and is not the level of a message."""
    match = _HOST_PATTERN.fullmatch(text)
    return match is not None and (allow_port or match["port"] is None) and text not in _LOG_LEVELS


def is_user_agent(text: str) -> bool:
    """Return whether *text* looks like a user agent, such as ``curl/8``: nothing else in a log does."""
    return _USER_AGENT_PATTERN.match(text) is not None


def parse_status(text: str) -> int:
    """Return the HTTP status of a text.

    Raises:
        Malformed: no server sends it.

    """
    status = STATUSES.get(text)
    if status is None:
        raise Malformed(f"{text[:20]!r} is not an HTTP status")
    return status


def check_request_quotes(request: str) -> None:
    """Check a request line that may have quotes which the server has not escaped.

    Raises:
        Malformed: it is several columns.

    """
    if '"' not in request or '"' not in _ESCAPED_PATTERN.sub("", request):
        return
    if _WHOLE_REQUEST_PATTERN.fullmatch(request) is None or _REQUEST_END_PATTERN.search(request) is not None:
        raise Malformed("more than one column in quotes where the request should be")


_ESCAPED_PATTERN = re.compile(r"\\.", re.DOTALL)
_WHOLE_REQUEST_PATTERN = re.compile(r"[A-Z]{3,16} \S.* HTTP/\d(?:\.\d)?", re.ASCII | re.DOTALL)
_REQUEST_END_PATTERN = re.compile(r' HTTP/\d(?:\.\d)?"', re.ASCII)


def check_user(user: str) -> str:
    """Return the name of a user.

    Raises:
        Malformed: it is another column.

    """
    if normalize_address(user) is not None or "://" in user or user.startswith(("Mozilla/", "/")):
        raise Malformed(f"{user[:40]!r} is where the user should be")
    return user


USUAL_REFERRERS: Final = frozenset({"-", "", "http"})
"""The first four characters of most referrers."""


def check_visitor(fields: Mapping[str, Any]) -> None:
    """Check that the fields ``referer`` and ``agent`` are what they are said to be, and not swapped.

    Raises:
        Malformed: they are other columns.

    """
    referer, agent = fields.get("referer", ""), fields.get("agent", "")
    if agent[:8] == "Mozilla/" and referer[:4] in USUAL_REFERRERS and "method" in fields:
        # Most lines are right; nothing else is checked in those.
        return
    for text in (referer, agent):
        if text and _REQUEST_LINE_PATTERN.match(text):
            raise Malformed("a request where the referrer or the user agent should be")
    if referer.startswith("/") and "://" in fields.get("url", "")[:12]:
        raise Malformed("a path where the referrer should be")
    if referer and not agent and "://" not in referer:
        raise Malformed(f"{referer[:40]!r} is where the referrer should be, and there is no user agent")
    is_url = agent.startswith(("http://", "https://")) and "://" not in referer
    if is_url or agent.startswith("/") or agent.isdigit():
        raise Malformed(f"{agent[:40]!r} is where the user agent should be")
    if agent and normalize_address(agent) is not None:
        raise Malformed("an IP address where the user agent should be")


def set_client_chain(
    fields: dict[str, Any], addresses: Sequence[str], peer: str, *, needs_trusted_peer: bool = False
) -> None:
    """Set the client to one of several addresses, once it is known which are those of proxies.

    Args:
        fields: of the request.
        addresses: those that were forwarded.
        peer: the address of the connection, or empty.
        needs_trusted_peer: whether *addresses* count only if the peer is a proxy.

    """
    if len(addresses) == 1 and not peer:
        fields["clientip"] = addresses[0]
    else:
        fields[CLIENT_CHAIN] = (addresses, peer, needs_trusted_peer)


def resolve_client_chain(fields: dict[str, Any], proxies: ProxyNetworks) -> None:
    """Replace what `set_client_chain` has set by the client."""
    addresses, peer, needs_trusted_peer = fields.pop(CLIENT_CHAIN)
    client = client_of_record(addresses, peer, proxies, needs_trusted_peer=needs_trusted_peer)
    if client:
        fields["clientip"] = client


_TIME_MAX_CHARACTERS: Final = 64
_NANOSECONDS_FROM: Final = 10**17
_MICROSECONDS_FROM: Final = 10**14
_DIGITS_PATTERN = re.compile(r"\d{15,20}", re.ASCII)
_SLASHED_DATE_PATTERN = re.compile(r"(\d{4})/(\d\d)/(\d\d)[ T](\S.*)", re.ASCII | re.DOTALL)


def parse_log_timestamp(value: object) -> str | None:
    """Return the timestamp of a time in a JSON log, or None if it is not a time.

    In addition to what `parse_record_timestamp` accepts, numbers may be microseconds or nanoseconds since 1970, and a
    date may have slashes (``2021/02/02 10:00:00``).
    """
    if type(value) is str and len(value) <= _TIME_MAX_CHARACTERS:
        return _parse_short_timestamp(value)
    return _parse_any_timestamp(value)


@lru_cache(maxsize=4096)
def _parse_short_timestamp(text: str) -> str | None:
    return _parse_any_timestamp(text)


def _parse_any_timestamp(value: object) -> str | None:
    if isinstance(value, str):
        slashed = _SLASHED_DATE_PATTERN.fullmatch(value)
        if slashed is not None:
            return parse_record_timestamp(f"{slashed[1]}-{slashed[2]}-{slashed[3]}T{slashed[4]}")
        if _DIGITS_PATTERN.fullmatch(value):
            value = int(value)
    if type(value) is int:
        if value >= _NANOSECONDS_FROM:
            return parse_record_timestamp(value / 1e9)
        if value >= _MICROSECONDS_FROM:
            return parse_record_timestamp(value / 1e6)
    return parse_record_timestamp(value)


_DURATION_PATTERN = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ns|us|µs|ms|s|)", re.ASCII)
_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0}


def parse_duration(value: object, unit: str = "s") -> float | None:
    """Return a duration in milliseconds; None if the value is not a duration.

    Args:
        value: a number, or a text such as ``24.3ms``.
        unit: of values without one.

    """
    if isinstance(value, str):
        match = _DURATION_PATTERN.fullmatch(value.strip())
        return None if match is None else seconds_to_milliseconds(float(match[1]) * _UNIT_SECONDS[match[2] or unit])
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return seconds_to_milliseconds(value * _UNIT_SECONDS[unit])
        except OverflowError:
            return None
    return None


def decode_cloudfront_user_agent(agent: str) -> str:
    """Return a user agent as CloudFront has received it."""
    once = unquote(agent, errors=DECODE_ERRORS)
    # CloudFront encodes percent signs as well, and so encodes spaces twice.
    return unquote(once, errors=DECODE_ERRORS) if "%20" in once else once
