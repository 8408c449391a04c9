"""What a format of access logs is."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

LINE_MAX_BYTES: Final = 65_536
"""The longest line that is read: web servers take no request as long as that."""

ODD_BYTES: Final = "backslashreplace"
"""Bytes that are no UTF-8 read as ``\\xHH``, as servers write them: so they stay apart, and nothing is lost."""

Reader = Callable[[str], dict[str, Any] | None]
"""Turns the lines of one log, in their order, into the fields of events: ``@timestamp`` always; ``method``, ``url``,
``status``, ``bytes``, ``referer``, ``agent``, ``clientip``, ``duration`` (milliseconds) and others where the line has
them. None for a line that is no hit and need not be one. Raises `Malformed` for a line that it cannot read."""


def _always(_: Mapping[str, Any]) -> bool:
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
    reader: Callable[[], Reader]
    settle: Callable[[bytes], bytes] = bytes.strip
    directives: bool = False
    shows_item: Callable[[Mapping[str, Any]], bool] = _always
