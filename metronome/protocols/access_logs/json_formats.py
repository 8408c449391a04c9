"""Requests as records: JSON logs of NGINX and Caddy, and records of log shippers that have parsed an access log.

Servers and shippers name the parts of a request differently: the tables list the common names by precedence. A name
with dots matches both a flat field (``{"source.ip": …}``) and a nested one (``{"source": {"ip": …}}``).

Source for Caddy: its documentation, "How Logging Works" and the ``log`` directive.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from metronome.enrich.addresses import normalize_address, set_client
from metronome.errors import Malformed
from metronome.items import request_path
from metronome.protocol import parse_json_object
from metronome.protocols.access_logs.formats import (
    EMPTY_VALUES,
    LogFormat,
    is_http_method,
    seconds_to_milliseconds,
    set_request_line,
    strip_port,
)
from metronome.times import parse_record_timestamp, parse_timestamp

T = TypeVar("T")

_TARGET_FIELDS: Final = ("request_uri", "url.original", "url", "uri", "path", "url.path")
"""Fields with the target of a request; ``request``, which may include the method, comes before them."""
_QUERY_FIELDS: Final = ("url.query", "query_string", "args")
_METHOD_FIELDS: Final = ("verb", "method", "request_method", "http.request.method")
_STATUS_FIELDS: Final = ("response", "code", "status", "http.response.status_code")
_SIZE_FIELDS: Final = ("bytes", "size", "body_bytes_sent", "bytes_sent", "http.response.body.bytes")
_REFERRER_FIELDS: Final = ("referrer", "referer", "http_referer", "http_referrer", "http.request.referrer")
_USER_AGENT_FIELDS: Final = ("agent", "user_agent", "http_user_agent", "user_agent.original")
_TIME_FIELDS: Final = ("@timestamp", "time", "time_iso8601", "time_local", "msec", "timestamp")
_HOST_FIELDS: Final = ("host", "server_name", "http_host")
_USER_FIELDS: Final = ("remote_user", "user", "user.name")
_CLIENT_FIELDS: Final = ("clientip", "remote", "remote_addr", "source.ip", "client_ip", "client.ip", "source.address")
_CLIENT_COPY_FIELDS: Final = ("http_x_forwarded_for", "x_forwarded_for", "event.original", "message", "log")
"""Fields that may repeat the client's IP address: they are dropped, as only ``clientip`` is anonymized."""
_RESERVED_FIELDS: Final = frozenset(
    {
        *("event", "id", "format", "method", "url", "status", "bytes", "referer", "referer_url"),
        *("agent", "clientip", "clienthost", "user", "host"),
    }
)
"""Fields of requests whose type is fixed: a record's other value under such a name is renamed."""
_STATUS_DIGITS = 3
_SIZE_DIGITS = 18


def parse_access_record(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a record's request, or None if the record is not a request.

    A request has a request line or a path, and a method or a status. Other fields of the record are kept under their
    own names, except missing values (``-``) and copies of the client's IP address.
    """
    fields = _parse_target(record)
    if fields is None:
        return None
    rest = dict(record)
    method = _pop_first(rest, _METHOD_FIELDS, _parse_method)
    status = _pop_first(rest, _STATUS_FIELDS, _parse_status)
    if "method" not in fields and method is not None:
        fields["method"] = method
    if "method" not in fields and status is None:
        return None
    _pop_client(rest, fields)
    if "url" not in fields and not fields.keys() & {"clientip", "clienthost"}:
        return None
    if status is not None:
        fields["status"] = status
    _pop_target(rest, fields)
    for name, names, read in _FIELD_PARSERS:
        value = _pop_first(rest, names, read)
        if value is not None:
            fields[name] = value
    return merge_fields(fields, rest)


def merge_fields(fields: dict[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Add the other fields of a record to the *fields* of its request, and return them.

    A field whose name a request has or could have is renamed: ``agent.type``, ``record_id``.
    """
    for name, value in rest.items():
        if name not in fields and name not in _RESERVED_FIELDS:
            fields[name] = value
        elif isinstance(value, dict):
            fields.update({f"{name}.{inner}": part for inner, part in value.items()})
        else:
            fields[f"record_{name}"] = value
    return fields


def parse_nginx_line(line: str) -> dict[str, Any]:
    """Parse a JSON object, as written by NGINX's ``log_format … escape=json`` (see `LineParser`)."""
    fields = parse_access_record(_parse_object(line))
    if fields is None:
        raise Malformed("no request or path with a method or a status")
    if parse_record_timestamp(fields.get("@timestamp")) is None:
        raise Malformed("no time: log $time_iso8601, $time_local or $msec")
    return fields


def _parse_object(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        raise Malformed("not a JSON object")
    return parse_json_object(line)


def _parse_target(record: Mapping[str, Any]) -> dict[str, Any] | None:
    request = record.get("request")
    fields: dict[str, Any] = {}
    if type(request) is str and request not in EMPTY_VALUES:
        if request.startswith("/"):
            return {"url": request}
        set_request_line(fields, request)
        if "url" in fields and not _is_request_target(fields["url"]) and fields["method"] != "CONNECT":
            fields = {"request": request}
    if "url" not in fields:
        for name in _TARGET_FIELDS:
            value = _get_dotted(record, name)
            if type(value) is str and _is_request_target(value):
                return {"url": value}
    return fields or None


def _is_request_target(text: str) -> bool:
    return text == "*" or request_path(text) != ""


def _pop_target(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Remove the fields that `_parse_target` used, and add the query to a URL without one."""
    url = fields.get("url")
    if type(rest.get("request")) is str:
        del rest["request"]
    for name in _TARGET_FIELDS:
        if url is not None and _get_dotted(rest, name) == url:
            _delete_dotted(rest, name)
    query = _pop_first(rest, _QUERY_FIELDS, _optional_text)
    if query is not None and url is not None and "?" not in url:
        fields["url"] = f"{url}?{query}"


def _pop_client(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    client = None
    for name in _CLIENT_FIELDS:
        value = _get_dotted(rest, name)
        if type(value) is str:
            _delete_dotted(rest, name)
            client = client or _optional_text(value)
    host = rest.get("host")
    if client is None and type(host) is str and normalize_address(host):
        # Parsers of Apache's log that use the names of Apache's manual, in which the client is the host.
        client = host
        del rest["host"]
    if client is not None:
        set_client(fields, client)
        for name in _CLIENT_COPY_FIELDS:
            value = _get_dotted(rest, name)
            if type(value) is str and client in value:
                _delete_dotted(rest, name)


def _pop_first(rest: dict[str, Any], names: Iterable[str], parse: Callable[[Any], T | None]) -> T | None:
    """Remove the first of the fields that can be parsed and return its value; drop missing values before it."""
    for name in names:
        value = _get_dotted(rest, name)
        if value is None:
            continue
        if type(value) is str and value in EMPTY_VALUES:
            _delete_dotted(rest, name)
            continue
        result = parse(value)
        if result is not None:
            _delete_dotted(rest, name)
            return result
    return None


def _get_dotted(record: Mapping[str, Any], name: str) -> Any:
    if name in record:
        return record[name]
    first, dot, inner = name.partition(".")
    group = record.get(first) if dot else None
    return _get_dotted(group, inner) if isinstance(group, dict) else None


def _delete_dotted(rest: dict[str, Any], name: str) -> None:
    if name in rest:
        del rest[name]
        return
    first, _, inner = name.partition(".")
    group = dict(rest[first])
    _delete_dotted(group, inner)
    if group:
        rest[first] = group
    else:
        del rest[first]


def _optional_text(value: object) -> str | None:
    return value if isinstance(value, str) and value not in EMPTY_VALUES else None


def _parse_method(value: object) -> str | None:
    if not isinstance(value, str) or not is_http_method(value):
        return None
    return value.upper() if value.islower() else value


def _parse_status(value: object) -> int | None:
    return _parse_integer(value, _STATUS_DIGITS)


def _parse_size(value: object) -> int | None:
    return _parse_integer(value, _SIZE_DIGITS)


def _parse_integer(value: object, digits: int) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int:
        return value if 0 <= value < 10**digits else None
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= digits):
        return None
    return int(value)


def _parse_host(value: object) -> str | None:
    # NGINX configurations name a server without a name with an underscore.
    return strip_port(value) if isinstance(value, str) and value not in {*EMPTY_VALUES, "_"} else None


def _parse_duration(value: object) -> float | None:
    try:
        return seconds_to_milliseconds(float(value)) if isinstance(value, (str, int, float)) else None
    except (ValueError, OverflowError):
        return None


_FIELD_PARSERS: Final[tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...]] = (
    ("@timestamp", _TIME_FIELDS, parse_record_timestamp),
    ("bytes", _SIZE_FIELDS, _parse_size),
    ("referer", _REFERRER_FIELDS, _optional_text),
    ("agent", _USER_AGENT_FIELDS, _optional_text),
    ("host", _HOST_FIELDS, _parse_host),
    ("user", _USER_FIELDS, _optional_text),
    ("duration", ("request_time",), _parse_duration),
)


NGINX_JSON: Final = LogFormat("nginx-json", lambda: parse_nginx_line)


_CADDY_MAPPED_FIELDS: Final = frozenset(
    {"request", "resp_headers", "user_id", "status", "size", "duration", "level", "logger", "msg"}
)
_CADDY_TIME_FIELDS: Final = ("ts", "@timestamp")
_MAX_DIGITS = 18


def parse_caddy_record(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a request in a record of Caddy, or None if the record is not a request.

    Other fields of the record are kept under their own names. Of the headers, only referrer and user agent are kept:
    others hold cookies and IP addresses.

    Raises:
        Malformed: the time is invalid.

    """
    request = record.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uri"), str):
        return None
    fields: dict[str, Any] = {}
    time = next((name for name in _CADDY_TIME_FIELDS if record.get(name) is not None), None)
    if time is not None:
        fields["@timestamp"] = parse_timestamp(record[time])
    _set_caddy_request(fields, request)
    _set_caddy_response(fields, record)
    if not fields.keys() & {"method", "status"}:
        return None
    return merge_fields(
        fields, {name: value for name, value in record.items() if name not in _CADDY_MAPPED_FIELDS and name != time}
    )


def parse_caddy_line(line: str) -> dict[str, Any] | None:
    """Parse a line of Caddy's log; messages without a request are skipped (see `LineParser`)."""
    record = _parse_object(line)
    if "request" not in record and isinstance(record.get("msg"), str):
        return None
    fields = parse_caddy_record(record)
    if fields is None:
        raise Malformed("no request with a uri, and a method or a status")
    if "@timestamp" not in fields:
        raise Malformed("no time: expected the field ts")
    return fields


def _set_caddy_request(fields: dict[str, Any], request: Mapping[str, Any]) -> None:
    for name in ("client_ip", "remote_ip", "remote_addr"):
        client = _optional_text(request.get(name))
        if client is not None:
            set_client(fields, client)
            break
    method = _optional_text(request.get("method"))
    if method is not None and is_http_method(method):
        fields["method"] = method
    fields["url"] = request["uri"]
    host = _optional_text(request.get("host"))
    if host is not None:
        fields["host"] = strip_port(host)
    headers = request.get("headers")
    for name, header in (("referer", "Referer"), ("agent", "User-Agent")):
        value = _first_text(headers.get(header)) if isinstance(headers, dict) else None
        if value is not None:
            fields[name] = value


def _set_caddy_response(fields: dict[str, Any], record: Mapping[str, Any]) -> None:
    user = _optional_text(record.get("user_id"))
    if user is not None:
        fields["user"] = user
    for name, source in (("status", "status"), ("bytes", "size")):
        value = record.get(source)
        if type(value) is int and 0 <= value < 10**_MAX_DIGITS:
            fields[name] = value
    duration = record.get("duration")
    if isinstance(duration, (int, float)) and not isinstance(duration, bool):
        milliseconds = seconds_to_milliseconds(duration)
        if milliseconds is not None:
            fields["duration"] = milliseconds


def _first_text(values: object) -> str | None:
    return _optional_text(values[0] if isinstance(values, list) and values else values)


CADDY_JSON: Final = LogFormat("caddy-json", lambda: parse_caddy_line)
