"""Caddy's access log: one object of JSON a line, with the request as an object inside.

Source: Caddy's documentation, "How Logging Works" and the ``log`` directive.
"""

from collections.abc import Mapping
from typing import Any, Final

from metronome.dialects.logs.form import LogFormat, Reader
from metronome.dialects.logs.records import joined, read_object
from metronome.dialects.logs.requests import MISSING, add_client, is_method, milliseconds, without_port
from metronome.errors import Malformed
from metronome.timestamps import read_stamp

_KNOWN: Final = frozenset(
    {"request", "resp_headers", "user_id", "status", "size", "duration", "level", "logger", "msg"}
)
_TIMES: Final = ("ts", "@timestamp")
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
    time = next((name for name in _TIMES if record.get(name) is not None), None)
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


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value not in MISSING else None


def _first(values: object) -> str | None:
    return _text(values[0] if isinstance(values, list) and values else values)


def _reader() -> Reader:
    return read_caddy_json


CADDY_JSON: Final = LogFormat("caddy-json", _reader)
