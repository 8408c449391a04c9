"""Hits that come as records: JSON logs of NGINX, and documents of shippers that have parsed a log already.

Everybody names the parts of a hit in a way of their own; the tables here list the usual names, best first. A name
with dots is found flat (``{"source.ip": …}``) as well as nested (``{"source": {"ip": …}}``).

Caddy's access log: one object of JSON a line, with the request as an object inside.

Source: Caddy's documentation, "How Logging Works" and the ``log`` directive.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import orjson

from metronome.enrich.addresses import read_address
from metronome.errors import Malformed
from metronome.protocols.access_logs.formats import (
    MISSING,
    LogFormat,
    Reader,
    add_client,
    add_request,
    bracket_stamp,
    is_method,
    milliseconds,
    path_of,
    without_port,
)
from metronome.times import read_stamp

T = TypeVar("T")

_TARGETS: Final = ("request_uri", "url.original", "url", "uri", "path", "url.path")
"""Where the target of a request stands; before them comes ``request``, which may have the method too."""
_QUERIES: Final = ("url.query", "query_string", "args")
_METHODS: Final = ("verb", "method", "request_method", "http.request.method")
_STATUSES: Final = ("response", "code", "status", "http.response.status_code")
_SIZES: Final = ("bytes", "size", "body_bytes_sent", "bytes_sent", "http.response.body.bytes")
_REFERERS: Final = ("referrer", "referer", "http_referer", "http_referrer", "http.request.referrer")
_AGENTS: Final = ("agent", "user_agent", "http_user_agent", "user_agent.original")
_TIMES: Final = ("@timestamp", "time", "time_iso8601", "time_local", "msec", "timestamp")
_HOSTS: Final = ("host", "server_name", "http_host")
_USERS: Final = ("remote_user", "user", "user.name")
_CLIENTS: Final = ("clientip", "remote", "remote_addr", "source.ip", "client_ip", "client.ip", "source.address")
_COPIES: Final = ("http_x_forwarded_for", "x_forwarded_for", "event.original", "message", "log")
"""What repeats the client's address, which must not stay there whole where ``clientip`` is cut."""
_TAKEN: Final = frozenset(
    {
        *("event", "id", "format", "method", "url", "status", "bytes", "referer", "referer_url"),
        *("agent", "clientip", "clienthost", "user", "host"),
    }
)
"""What a hit has under these names is of one kind: what a record has there that is none of it makes way."""
_STATUS_DIGITS = 3
_SIZE_DIGITS = 18
_LONGEST_TIME = 40
_EARLIEST_SECONDS = 100_000_000
"""Smaller numbers under the name of a time are how long something took."""


def read_record(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a record says of a hit, or None where it tells of none.

    A hit has a request or a path, and a method or a status. What else the record has is kept under its own name;
    only what repeats the client's address is not, and what names nothing (``-``).
    """
    fields = _target(record)
    if fields is None:
        return None
    rest = dict(record)
    method = _take(rest, _METHODS, _method)
    status = _take(rest, _STATUSES, _status)
    if "method" not in fields and method is not None:
        fields["method"] = method
    if "method" not in fields and status is None:
        return None
    _take_client(rest, fields)
    if "url" not in fields and not fields.keys() & {"clientip", "clienthost"}:
        return None
    if status is not None:
        fields["status"] = status
    _take_target(rest, fields)
    for name, names, read in _PARTS:
        value = _take(rest, names, read)
        if value is not None:
            fields[name] = value
    return joined(fields, rest)


def joined(fields: dict[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Put what is not known of a record into the *fields* of its hit, and return them.

    Where a hit has a field of the same name, or could have, what is not known is renamed: ``agent.type``,
    ``record_id``.
    """
    for name, value in rest.items():
        if name not in fields and name not in _TAKEN:
            fields[name] = value
        elif isinstance(value, dict):
            fields.update({f"{name}.{inner}": part for inner, part in value.items()})
        else:
            fields[f"record_{name}"] = value
    return fields


def read_nginx_json(line: str) -> dict[str, Any]:
    """Read a line that is one object of JSON, as of NGINX's ``log_format … escape=json`` (see `Reader`)."""
    fields = read_record(read_object(line))
    if fields is None:
        raise Malformed("it has no request or path, with a method or a status")
    if _stamp(fields.get("@timestamp")) is None:
        raise Malformed("it has no time: log $time_iso8601, $time_local or $msec")
    return fields


def read_object(line: str) -> dict[str, Any]:
    """Read a line that is one object of JSON.

    Raises:
        Malformed: it is none.

    """
    try:
        record = orjson.loads(line) if line.startswith("{") else None
    except orjson.JSONDecodeError as error:
        raise Malformed(f"it is no JSON: {error}") from None
    if not isinstance(record, dict):
        raise Malformed("it is no object of JSON")
    return record


def _target(record: Mapping[str, Any]) -> dict[str, Any] | None:
    request = record.get("request")
    fields: dict[str, Any] = {}
    if type(request) is str and request not in MISSING:
        if request.startswith("/"):
            return {"url": request}
        add_request(fields, request)
        if "url" in fields and not _is_target(fields["url"]) and fields["method"] != "CONNECT":
            fields = {"request": request}
    if "url" not in fields:
        for name in _TARGETS:
            value = _find(record, name)
            if type(value) is str and _is_target(value):
                return {"url": value}
    return fields or None


def _is_target(text: str) -> bool:
    return text == "*" or path_of(text) != ""


def _take_target(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Take away what `_target` found, and put the query to a path that stands without it."""
    url = fields.get("url")
    if type(rest.get("request")) is str:
        del rest["request"]
    for name in _TARGETS:
        if url is not None and _find(rest, name) == url:
            _drop(rest, name)
    query = _take(rest, _QUERIES, _text)
    if query is not None and url is not None and "?" not in url:
        fields["url"] = f"{url}?{query}"


def _take_client(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    client = None
    for name in _CLIENTS:
        value = _find(rest, name)
        if type(value) is str:
            _drop(rest, name)
            client = client or _text(value)
    host = rest.get("host")
    if client is None and type(host) is str and read_address(host):
        # Parsers of Apache's log that name its parts as Apache's manual does: there the client is the host.
        client = host
        del rest["host"]
    if client is not None:
        add_client(fields, client)
        for name in _COPIES:
            value = _find(rest, name)
            if type(value) is str and client in value:
                _drop(rest, name)


def _take(rest: dict[str, Any], names: Iterable[str], read: Callable[[Any], T | None]) -> T | None:
    """Take the first of the fields that can be read out of *rest*, and drop those before it that name nothing."""
    for name in names:
        value = _find(rest, name)
        if value is None:
            continue
        if type(value) is str and value in MISSING:
            _drop(rest, name)
            continue
        taken = read(value)
        if taken is not None:
            _drop(rest, name)
            return taken
    return None


def _find(record: Mapping[str, Any], name: str) -> Any:
    if name in record:
        return record[name]
    first, dot, inner = name.partition(".")
    group = record.get(first) if dot else None
    return _find(group, inner) if isinstance(group, dict) else None


def _drop(rest: dict[str, Any], name: str) -> None:
    if name in rest:
        del rest[name]
        return
    first, _, inner = name.partition(".")
    group = dict(rest[first])
    _drop(group, inner)
    if group:
        rest[first] = group
    else:
        del rest[first]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value not in MISSING else None


def _method(value: object) -> str | None:
    if not isinstance(value, str) or not is_method(value):
        return None
    return value.upper() if value.islower() else value


def _status(value: object) -> int | None:
    return _whole_number(value, _STATUS_DIGITS)


def _size(value: object) -> int | None:
    return _whole_number(value, _SIZE_DIGITS)


def _whole_number(value: object, digits: int) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int:
        return value if 0 <= value < 10**digits else None
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= digits):
        return None
    return int(value)


def _host(value: object) -> str | None:
    # An underscore is how NGINX's configurations name a server that has no name.
    return without_port(value) if isinstance(value, str) and value not in {*MISSING, "_"} else None


def _stamp(value: object) -> str | None:
    if isinstance(value, (int, float)) and value < _EARLIEST_SECONDS:
        return None
    try:
        if isinstance(value, str) and "/" in value:
            return bracket_stamp(value) if len(value) <= _LONGEST_TIME else None
        return read_stamp(value)
    except Malformed:
        return None


def _duration(value: object) -> float | None:
    try:
        return milliseconds(float(value)) if isinstance(value, (str, int, float)) else None
    except (ValueError, OverflowError):
        return None


_PARTS: Final[tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...]] = (
    ("@timestamp", _TIMES, _stamp),
    ("bytes", _SIZES, _size),
    ("referer", _REFERERS, _text),
    ("agent", _AGENTS, _text),
    ("host", _HOSTS, _host),
    ("user", _USERS, _text),
    ("duration", ("request_time",), _duration),
)


def _reader() -> Reader:
    return read_nginx_json


NGINX_JSON: Final = LogFormat("nginx-json", _reader)


_KNOWN: Final = frozenset(
    {"request", "resp_headers", "user_id", "status", "size", "duration", "level", "logger", "msg"}
)
_CADDY_TIMES: Final = ("ts", "@timestamp")
_DIGITS = 18


def read_caddy_record(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a record of Caddy's says of a hit, or None where it tells of none.

    What else the record has is kept under its own name. Of the headers only the referer and the agent are taken:
    others hold cookies and addresses.

    Raises:
        Malformed: its time is none.

    """
    request = record.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uri"), str):
        return None
    fields: dict[str, Any] = {}
    time = next((name for name in _CADDY_TIMES if record.get(name) is not None), None)
    if time is not None:
        fields["@timestamp"] = read_stamp(record[time])
    _add_request(fields, request)
    _add_answer(fields, record)
    if not fields.keys() & {"method", "status"}:
        return None
    return joined(fields, {name: value for name, value in record.items() if name not in _KNOWN and name != time})


def read_caddy_json(line: str) -> dict[str, Any] | None:
    """Read a line; it is no hit if it tells of no request (see `Reader`)."""
    record = read_object(line)
    if "request" not in record and isinstance(record.get("msg"), str):
        return None
    fields = read_caddy_record(record)
    if fields is None:
        raise Malformed("it has no request with a uri, and a method or a status")
    if "@timestamp" not in fields:
        raise Malformed("it has no time: Caddy writes it as ts")
    return fields


def _add_request(fields: dict[str, Any], request: Mapping[str, Any]) -> None:
    for name in ("client_ip", "remote_ip", "remote_addr"):
        client = _text(request.get(name))
        if client is not None:
            add_client(fields, client)
            break
    method = _text(request.get("method"))
    if method is not None and is_method(method):
        fields["method"] = method
    fields["url"] = request["uri"]
    host = _text(request.get("host"))
    if host is not None:
        fields["host"] = without_port(host)
    headers = request.get("headers")
    for name, header in (("referer", "Referer"), ("agent", "User-Agent")):
        value = _first(headers.get(header)) if isinstance(headers, dict) else None
        if value is not None:
            fields[name] = value


def _add_answer(fields: dict[str, Any], record: Mapping[str, Any]) -> None:
    user = _text(record.get("user_id"))
    if user is not None:
        fields["user"] = user
    for name, source in (("status", "status"), ("bytes", "size")):
        value = record.get(source)
        if type(value) is int and 0 <= value < 10**_DIGITS:
            fields[name] = value
    duration = record.get("duration")
    if isinstance(duration, (int, float)) and not isinstance(duration, bool):
        spent = milliseconds(duration)
        if spent is not None:
            fields["duration"] = spent


def _first(values: object) -> str | None:
    return _text(values[0] if isinstance(values, list) and values else values)


def _caddy_reader() -> Reader:
    return read_caddy_json


CADDY_JSON: Final = LogFormat("caddy-json", _caddy_reader)
