"""Parts of hits that formats share: request lines, paths, clients and times in brackets."""

import math
import re
from functools import lru_cache
from typing import Any, Final

from metronome.enrich.addresses import read_address
from metronome.errors import Malformed
from metronome.timestamps import read_stamp

MISSING: Final = frozenset({"", "-", '""'})
"""How servers write that there is nothing."""

_METHOD = re.compile(r"[A-Za-z][A-Za-z_-]*+", re.ASCII)
_PORT = re.compile(r":\d++\Z", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)


def add_client(fields: dict[str, Any], client: str) -> None:
    """Set ``clientip`` where *client* is an address, and ``clienthost`` where it is a name."""
    if client != "-":
        fields["clientip" if read_address(client) else "clienthost"] = client


def add_request(fields: dict[str, Any], request: str) -> None:
    """Set ``method`` and ``url`` of a request line such as ``GET /data HTTP/1.1``; else keep it as ``request``."""
    method, _, rest = request.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    if not protocol.startswith("HTTP/"):
        target = rest
    if target and (method == "GET" or _METHOD.fullmatch(method)):
        fields["method"] = method
        fields["url"] = target
    elif request not in MISSING:
        # Bytes that were no HTTP, as of a port scan.
        fields["request"] = request


def is_method(text: str) -> bool:
    """Tell whether *text* can be the method of a request."""
    return _METHOD.fullmatch(text) is not None


def path_of(target: str) -> str:
    """Return the path of what was asked for, percent-encoded and without its query; nothing where it has none."""
    path = target.partition("?")[0]
    if path.startswith("/"):
        return path
    # A proxy's request names the whole URL; `OPTIONS *` and `CONNECT host:port` name no path.
    scheme, separator, rest = path.partition("://")
    return "/" + rest.partition("/")[2] if separator and scheme.isalpha() else ""


def without_port(host: str) -> str:
    """Return a host's name without the port behind it."""
    return _PORT.sub("", host) if host.count(":") == 1 or "]" in host else host


def milliseconds(seconds: float) -> float | None:
    """Return *seconds* in milliseconds, to a microsecond; None where that is no duration."""
    if not math.isfinite(seconds) or not 0 <= seconds < _LONGEST_SECONDS:
        return None
    exact = round(seconds * 1000, 3)
    return int(exact) if exact.is_integer() else exact


_LONGEST_SECONDS = 1e9


@lru_cache(maxsize=4096)
def bracket_stamp(time: str) -> str:
    """Return the stamp of a time as web servers write it in brackets.

    Raises:
        Malformed: it is none; the message shows how it is written.

    """
    found = _TIME.fullmatch(time)
    if found is None or found[2] not in _MONTHS:
        raise Malformed(_no_time(time))
    day, month, year, clock, zone = found.groups()
    try:
        return read_stamp(f"{year}-{_MONTHS.index(month) + 1:02}-{day}T{clock}{zone}")
    except Malformed:
        raise Malformed(_no_time(time)) from None


def _no_time(time: str) -> str:
    return f"{time[:40]!r} is no time as in 17/May/2015:10:05:03 +0000"
