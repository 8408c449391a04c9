"""What a format of access logs is, and the parts of lines that formats share."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

LINE_MAX_BYTES: Final = 65_536
"""Longer lines are rejected: no web server accepts a request of that length."""

DECODE_ERRORS: Final = "backslashreplace"
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


def seconds_to_milliseconds(seconds: float) -> float | None:
    """Return *seconds* in milliseconds, rounded to a microsecond; None if they are not a valid duration."""
    if not math.isfinite(seconds) or not 0 <= seconds < _MAX_DURATION_SECONDS:
        return None
    exact = round(seconds * 1000, 3)
    return int(exact) if exact.is_integer() else exact


_MAX_DURATION_SECONDS = 1e9
