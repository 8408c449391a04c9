"""Server access logs of S3.

Source: Amazon's "Amazon S3 server access log format". Amazon has added columns at the end several times, so a line
may have fewer or more of them than are read here.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from metronome.dialects.logs.form import ODD_BYTES, LogFormat, Reader
from metronome.dialects.logs.requests import add_client, add_request, bracket_stamp, without_port
from metronome.errors import Malformed

_SHOWN: Final = frozenset({"REST.GET.OBJECT", "WEBSITE.GET.OBJECT"})
"""The operations that show an object to somebody."""
# S3 escapes no quotes in a text: it ends where what has to follow does follow. There is nothing to go back to.
_REQUEST = r'(?:"((?:[^"]|"(?! (?:\d{3}|-) ))*+)"|-)'
_REFERER = r'(?:"((?:[^"]|"(?! (?:"|- )))*+)"|-)'
_AGENT = r'(?:"((?:[^"]|"(?=[^"]*+"))*+)"|-)'
_SHAPE = re.compile(
    r"(\S++) (\S++) \[([^\]]++)\] (\S++) (\S++) (\S++) ([A-Za-z0-9]++\.\S++) (\S++) "
    rf"{_REQUEST} (\d{{3}}|-) (\S++) (\d{{1,18}}|-) (\d{{1,18}}|-) (\d{{1,12}}|-) (\d{{1,12}}|-) "
    rf"{_REFERER} {_AGENT} (\S++)(?: (\S++) (\S++) (\S++) (\S++)(?: (\S++))?)?",
    re.ASCII,
)
_PLAIN = ("bucket", "operation", "request_id", "error_code", "version_id")
_SETTLED_PARTS = 8
_PATH_SAFE = "/!$&'()*+,;=:@~"


def read_s3(line: str) -> dict[str, Any]:
    """Read a line (see `Reader`).

    The ``url`` is the object's key as a path, whichever way the bucket was addressed, with the query of the request.
    """
    found = _SHAPE.match(line)
    if found is None:
        raise Malformed("its parts are not those of an S3 log: owner, bucket, [time], address, requester, request id …")
    _, bucket, time, client, user, request_id, operation, key, *rest = found.groups()
    request, status, error, sent, size, total, turnaround, referer, agent, version, *tail = rest
    fields: dict[str, Any] = {"@timestamp": bracket_stamp(time)}
    add_client(fields, client)
    if user != "-":
        fields["user"] = user
    add_request(fields, request or "")
    _add_key(fields, key)
    numbers = (
        ("status", status),
        ("bytes", sent),
        ("duration", total),
        ("turnaround", turnaround),
        ("object_size", size),
    )
    fields.update({name: int(text) for name, text in numbers if text != "-"})
    fields.update({name: text for name, text in (("referer", referer), ("agent", agent)) if text and text != "-"})
    plain = zip(_PLAIN, (bucket, operation, request_id, error, version), strict=True)
    fields.update({name: text for name, text in plain if text != "-"})
    host = tail[-1]
    if host is not None and host != "-":
        fields["host"] = without_port(host)
    return fields


def _add_key(fields: dict[str, Any], key: str) -> None:
    if key != "-":
        _, mark, query = fields.get("url", "").partition("?")
        # S3 encodes a key twice: once decoded, it is a path as others write it.
        path = quote(unquote(key, errors=ODD_BYTES), safe=_PATH_SAFE + "%")
        fields["url"] = f"/{path.removeprefix('/')}{mark}{query}"


def _shows_item(fields: Mapping[str, Any]) -> bool:
    return fields.get("operation") in _SHOWN


def _settle(line: bytes) -> bytes:
    """Return the first parts of a line, up to the operation: the request's own number is among them."""
    return b" ".join(line.strip().split(b" ", _SETTLED_PARTS)[:_SETTLED_PARTS])


def _reader() -> Reader:
    return read_s3


S3: Final = LogFormat("s3", _reader, _settle, shows_item=_shows_item)
