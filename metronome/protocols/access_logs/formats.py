"""Parts of hits that formats share: request lines, paths, clients and times in brackets.

What a format of access logs is.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

LINE_MAX_BYTES: Final = 65_536
"""The longest line that is read: web servers take no request as long as that."""

DECODE_ERRORS: Final = "backslashreplace"
"""Bytes that are no UTF-8 read as ``\\xHH``, as servers write them: so they stay apart, and nothing is lost."""

LineParser = Callable[[str], dict[str, Any] | None]
"""Turns the lines of one log, in their order, into the fields of events: ``@timestamp`` always; ``method``, ``url``,
``status``, ``bytes``, ``referer``, ``agent``, ``clientip``, ``duration`` (milliseconds) and others where the line has
them. None for a line that is no hit and need not be one. Raises `Malformed` for a line that it cannot read."""


def _always_true(_: Mapping[str, Any]) -> bool:
    return True


class LogFormat(NamedTuple):
    """One way to write an access log.

    Attributes:
        name: what the operator calls it.
        reader: makes what reads one log from its beginning; it may remember what earlier lines said.
        settle: returns the part of a line that is known as soon as the line can be read: what a server
            appends to a line that is still being written must not make it another hit.
        directives: whether lines that begin with ``#`` say how the following are to be read.
        shows_item: tells of a hit's fields whether it can be a view or download of its item at all.

    """

    name: str
    new_parser: Callable[[], LineParser]
    stable_part: Callable[[bytes], bytes] = bytes.strip
    has_directives: bool = False
    is_item_request: Callable[[Mapping[str, Any]], bool] = _always_true


EMPTY_VALUES: Final = frozenset({"", "-", '""'})
"""How servers write that there is nothing."""

_METHOD_PATTERN = re.compile(r"[A-Za-z][A-Za-z_-]*+", re.ASCII)
_PORT_PATTERN = re.compile(r":\d++\Z", re.ASCII)


def set_request_line(fields: dict[str, Any], request: str) -> None:
    """Set ``method`` and ``url`` of a request line such as ``GET /data HTTP/1.1``; else keep it as ``request``."""
    method, _, rest = request.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not protocol.startswith("HTTP/"):
        target = rest
    if target and (method == "GET" or _METHOD_PATTERN.fullmatch(method)):
        fields["method"] = method
        fields["url"] = target
    elif request not in EMPTY_VALUES:
        # Bytes that were no HTTP, as of a port scan.
        fields["request"] = request


def is_http_method(text: str) -> bool:
    """Tell whether *text* can be the method of a request."""
    return _METHOD_PATTERN.fullmatch(text) is not None


def strip_port(host: str) -> str:
    """Return a host's name without the port behind it."""
    return _PORT_PATTERN.sub("", host) if host.count(":") == 1 or "]" in host else host


def seconds_to_milliseconds(seconds: float) -> float | None:
    """Return *seconds* in milliseconds, to a microsecond; None where that is no duration."""
    if not math.isfinite(seconds) or not 0 <= seconds < _MAX_DURATION_SECONDS:
        return None
    exact = round(seconds * 1000, 3)
    return int(exact) if exact.is_integer() else exact


_MAX_DURATION_SECONDS = 1e9
