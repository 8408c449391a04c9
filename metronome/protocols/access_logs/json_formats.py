"""Requests as records: JSON logs of NGINX and Caddy, and records of log shippers that have parsed an access log.

Servers and shippers name the parts of a request differently: the tables list the common names by precedence. A name
with dots matches both a flat field (``{"source.ip": …}``) and a nested one (``{"source": {"ip": …}}``).

Source for Caddy: its documentation, "How Logging Works" and the ``log`` directive.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from metronome.enrich.addresses import normalize_address, split_addresses
from metronome.errors import Malformed
from metronome.items import request_path
from metronome.protocol import parse_json_object
from metronome.protocols.access_logs.formats import (
    CLIENT_CHAIN,
    EMPTY_VALUES,
    LogFormat,
    check_user,
    check_visitor,
    decode_cloudfront_user_agent,
    is_forwarded_name,
    is_host,
    is_http_method,
    parse_duration,
    parse_log_timestamp,
    plain_name,
    set_client_chain,
    set_request_line,
    strip_port,
)
from metronome.times import parse_record_timestamp

T = TypeVar("T")

NOT_JSON: Final = "not a JSON object"

# The names that servers, proxies and shippers use, without regard to spelling: see `plain_name`.
_TARGET_FIELDS: Final = (
    *("requesturi", "urloriginal", "url", "uri", "path", "urlpath", "urlfull", "requesturl", "requestpath"),
    *("clientrequesturi", "clientrequestpath", "httprequestrequesturl", "propertiesrequesturi", "csuristem", "httpurl"),
    *("requestline", "originalpath", "xenvoyoriginalpath", "httptarget", "requrl", "reqoriginalurl"),
)
"""Fields with the target of a request; ``request``, which may include the method, comes before them."""
_QUERY_FIELDS: Final = ("urlquery", "querystring", "args", "csuriquery", "requestquery")
_METHOD_FIELDS: Final = (
    *("verb", "method", "requestmethod", "httprequestmethod", "httpmethod", "clientrequestmethod"),
    *("httprequestrequestmethod", "propertieshttpmethod", "csmethod", "reqmethod"),
)
_STATUS_FIELDS: Final = (
    *("response", "code", "status", "httpresponsestatuscode", "statuscode", "responsestatus", "responsecode"),
    *("downstreamstatus", "edgeresponsestatus", "httprequeststatus", "propertieshttpstatuscode", "httpstatuscode"),
    *("httpstatus", "scstatus", "responsestatuscode", "respstatus", "propertieshttpstatus", "httpstatuscodevalue"),
    "resstatuscode",
)
_SIZE_FIELDS: Final = (
    *("bytes", "size", "bodybytessent", "bytessent", "httpresponsebodybytes", "responsebytes", "responsesize"),
    *("downstreamcontentsize", "edgeresponsebytes", "edgeresponsebodybytes", "httprequestresponsesize"),
    *("propertiesresponsebytes", "propertiessentbytes", "scbytes", "httpresponsebytes"),
    *("httpresponsebodysize", "httpresponsesize"),
)
_REFERRER_FIELDS: Final = (
    *("referrer", "referer", "httpreferer", "httpreferrer", "httprequestreferrer", "httprequestreferer"),
    *("requestreferer", "clientrequestreferer", "propertiesreferer", "propertiesreferrer", "csreferer"),
    *("requestheadersreferer", "headersreferer", "httprequestheadersreferer", "httprequestheaderreferer"),
    *("reqheadersreferer", "reqheadersreferrer"),
)
_USER_AGENT_FIELDS: Final = (
    *("agent", "useragent", "httpuseragent", "useragentoriginal", "requestuseragent", "clientrequestuseragent"),
    *("httprequestuseragent", "propertiesuseragent", "csuseragent", "requestheadersuseragent", "headersuseragent"),
    *("httprequestheadersuseragent", "reqheadersuseragent"),
)
_TIME_FIELDS: Final = (
    *("@timestamp", "time", "timeiso8601", "timelocal", "msec", "timestamp", "startutc", "starttime", "datetime"),
    *("edgestarttimestamp", "edgeendtimestamp", "ts", "eventtime", "requesttimestamp", "propertiestime", "date"),
)
_HOST_FIELDS: Final = (
    *("host", "servername", "httphost", "requesthost", "clientrequesthost", "authority", "propertieshostname"),
    *("vhost", "virtualhost", "cshost", "xhostheader", "requestheadershost", "reqheadershost"),
)
_USER_FIELDS: Final = ("remoteuser", "user", "username", "clientusername")
_CLIENT_FIELDS: Final = (
    *("clientip", "remote", "remoteaddr", "sourceip", "clientaddress", "sourceaddress", "remoteip", "clienthost"),
    *("clientaddr", "httprequestremoteip", "propertiesclientip", "propertiessocketip", "downstreamremoteaddress"),
    *("downstreamdirectremoteaddress", "cip", "remoteaddress", "remotehost", "ipaddress", "ip", "peeraddress"),
    *("httpclientip", "networkpeeraddress", "netsockpeeraddr", "netpeerip", "reqremoteaddress"),
)
_DURATION_FIELDS: Final = ("requesttime", "httprequestlatency", "propertiestimetaken", "timetaken")
_CLIENT_COPY_PATHS: Final = (
    *(("http_x_forwarded_for",), ("x_forwarded_for",), ("message",), ("log",), ("common_log",)),
    *(("event.original",), ("event", "original")),
)
"""Fields that may repeat the client's IP address, and are dropped if they do."""
_RESERVED_FIELDS: Final = frozenset(
    {
        *("event", "id", "format", "method", "url", "status", "bytes", "referer", "referer_url"),
        *("agent", "clientip", "clienthost", "user", "host"),
    }
)
"""Fields of requests whose type is fixed: a record's other value under such a name is renamed."""
_STATUS_DIGITS = 3
_MIN_STATUS = 100
_SIZE_DIGITS = 18


_INDEX_MAX_DEPTH = 5
_INDEX_MAX_FIELDS = 500

_Path = tuple[str, ...]
_Index = dict[str, _Path]
"""Where the values of a record are, by their plain names (see `plain_name`)."""


def parse_access_record(record: Mapping[str, Any], *, is_line: bool = False) -> dict[str, Any] | None:
    """Return the fields of a record's request, or None if the record is not a request.

    A request has a request line or a path, and a method or a status. Other fields of the record are kept under their
    own names, except missing values (``-``) and copies of the client's IP address.

    Args:
        record: flat, with dotted names or nested.
        is_line: whether the record is a line of a log, in which each known field must be valid.

    Raises:
        Malformed: a field is not what its name says.

    """
    request = record.get("request")
    if type(request) is dict and "uri" in request:
        # Caddy's, which `parse_caddy_record` parses.
        return None
    plan = _plan_of(record)
    fields = _parse_target(record, plan)
    if fields is None:
        return None
    rest = dict(record)
    method = _pop_first(rest, plan.methods, _parse_method)
    status = _pop_first(rest, plan.statuses, _parse_status)
    if method is not None:
        fields.setdefault("method", method)
    if is_line and status is None:
        _check_status(rest, plan)
    if "method" not in fields and status is None:
        return None
    _pop_client(rest, plan, fields)
    if "url" not in fields and not _CLIENT_RESULTS & fields.keys():
        return None
    if status is not None:
        fields["status"] = status
    _pop_target(rest, plan, fields)
    _pop_split_time(rest, fields)
    _pop_others(rest, plan, fields)
    _pop_nanoseconds(rest, fields)
    if is_line:
        if "@timestamp" not in fields:
            raise Malformed("no time: log $time_iso8601, $time_local or $msec")
        check_visitor(fields)
        check_user(fields.get("user", ""))
    return merge_fields(fields, rest)


class _Plan(NamedTuple):
    """Where a record has the parts of a request, by falling precedence: records of a sender have the same fields."""

    targets: tuple[_Path, ...]
    queries: tuple[_Path, ...]
    methods: tuple[_Path, ...]
    statuses: tuple[_Path, ...]
    must_be_statuses: tuple[_Path, ...]
    clients: tuple[_Path, ...]
    forwarded: tuple[_Path, ...]
    copies: tuple[_Path, ...]
    others: tuple[tuple[str, tuple[_Path, ...], Callable[[Any], Any]], ...]


_PLANS: Final[dict[tuple[str, ...], _Plan]] = {}
_MAX_PLANS: Final = 1024
_PLAN_MAX_CHARACTERS: Final = 4096


def _plan_of(record: Mapping[str, Any]) -> _Plan:
    if dict in map(type, record.values()):
        return _build_plan(record)
    names = tuple(record)
    plan = _PLANS.get(names)
    if plan is None:
        plan = _build_plan(record)
        if all(type(name) is str for name in names) and sum(map(len, names)) <= _PLAN_MAX_CHARACTERS:
            if len(_PLANS) >= _MAX_PLANS:
                _PLANS.clear()
            _PLANS[names] = plan
    return plan


def _build_plan(record: Mapping[str, Any]) -> _Plan:
    index: _Index = {}
    _add_to_index(index, record, ())

    def find(names: Iterable[str]) -> tuple[_Path, ...]:
        return tuple(index[name] for name in names if name in index)

    return _Plan(
        targets=find(_TARGET_FIELDS),
        queries=find(_QUERY_FIELDS),
        methods=find(_METHOD_FIELDS),
        statuses=find(_STATUS_FIELDS),
        must_be_statuses=find(name for name in _STATUS_FIELDS if "status" in name),
        clients=find(_CLIENT_FIELDS),
        forwarded=tuple(path for name, path in index.items() if is_forwarded_name(name) and name not in _CLIENT_FIELDS),
        copies=tuple(path for path in _CLIENT_COPY_PATHS if path[0] in record),
        others=tuple((name, paths, parse) for name, names, parse in _FIELD_PARSERS if (paths := find(names))),
    )


def _check_status(rest: Mapping[str, Any], plan: _Plan) -> None:
    """Check that no field that must be a status has another value.

    Raises:
        Malformed: one has.

    """
    for path in plan.must_be_statuses:
        value = _get_path(rest, path)
        if value is not None:
            raise Malformed(f"{str(value)[:40]!r} is not an HTTP status")


def _pop_others(rest: dict[str, Any], plan: _Plan, fields: dict[str, Any]) -> None:
    for name, paths, read in plan.others:
        value = None if name in fields else _pop_first(rest, paths, read)
        if value is not None:
            fields[name] = value


def _pop_nanoseconds(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Set the duration of a record of Traefik, which is in nanoseconds."""
    if "DownstreamStatus" in rest or "OriginStatus" in rest or "RequestCount" in rest:
        duration = parse_duration(rest.get("Duration"), "ns")
        if duration is not None:
            fields["duration"] = duration
            del rest["Duration"]


def _add_to_index(index: _Index, group: Mapping[str, Any], path: _Path) -> None:
    prefix = plain_name(".".join(path)) if path else ""
    for name, value in group.items():
        if type(value) is dict and len(path) < _INDEX_MAX_DEPTH and len(index) < _INDEX_MAX_FIELDS:
            _add_to_index(index, value, (*path, name))
        elif type(name) is str:
            index.setdefault(prefix + plain_name(name), (*path, name))


_CLIENT_RESULTS: Final = frozenset({"clientip", "clienthost", CLIENT_CHAIN})


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
    """Parse a JSON object, as written by NGINX's ``log_format … escape=json`` and others (see `LineParser`)."""
    fields = parse_access_record(_parse_object(line), is_line=True)
    if fields is None:
        raise Malformed("no request or path with a method or a status")
    return fields


def _parse_object(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        raise Malformed(NOT_JSON)
    return parse_json_object(line)


def _parse_target(record: Mapping[str, Any], plan: _Plan) -> dict[str, Any] | None:
    request = record.get("request")
    fields: dict[str, Any] = {}
    if type(request) is str and request not in EMPTY_VALUES:
        if request.startswith("/"):
            return {"url": request}
        set_request_line(fields, request)
        if "url" in fields and not _is_request_target(fields["url"]) and fields["method"] != "CONNECT":
            fields = {"request": request}
    if "url" not in fields:
        for path in plan.targets:
            value = _get_path(record, path)
            if type(value) is str and _is_request_target(value):
                return {"url": value}
    return fields or None


def _is_request_target(text: str) -> bool:
    return text.startswith("/") or text == "*" or request_path(text) != ""


def _pop_target(rest: dict[str, Any], plan: _Plan, fields: dict[str, Any]) -> None:
    """Remove the fields that `_parse_target` used, and add the query to a URL without one."""
    url = fields.get("url")
    if type(rest.get("request")) is str:
        del rest["request"]
    for path in plan.targets:
        if url is not None and _get_path(rest, path) == url:
            _delete_path(rest, path)
    query = _pop_first(rest, plan.queries, _optional_text)
    if query is not None and url is not None and "?" not in url:
        fields["url"] = f"{url}?{query}"


def _pop_client(rest: dict[str, Any], plan: _Plan, fields: dict[str, Any]) -> None:
    """Set the client: the address that was forwarded, if the record has it; else that of the connection."""
    client = None
    for path in plan.clients:
        value = _get_path(rest, path)
        if type(value) is str:
            _delete_path(rest, path)
            client = client or _optional_text(value)
    host = rest.get("host")
    if client is None and type(host) is str and normalize_address(host):
        # Parsers of Apache's log that use the names of Apache's manual, in which the client is the host.
        client = host
        del rest["host"]
    forwarded = _pop_forwarded(rest, plan.forwarded) if plan.forwarded else []
    peers = split_addresses(client) if client is not None else []
    if forwarded:
        set_client_chain(fields, forwarded, peers[0] if peers else "")
    elif peers:
        set_client_chain(fields, peers, "")
    elif client is not None:
        if not is_host(client, allow_port=False) and not client.startswith("unix:"):
            raise Malformed(f"{client[:40]!r} is where the client's IP address should be")
        fields["clienthost"] = client
    if client is not None and plan.copies:
        _delete_copies(rest, plan.copies, client)


def _pop_forwarded(rest: dict[str, Any], paths: tuple[_Path, ...]) -> list[str]:
    """Remove the fields with forwarded addresses, and return these."""
    forwarded: list[str] = []
    for path in paths:
        value = _get_path(rest, path)
        text = ",".join(map(str, value)) if type(value) is list else value
        if type(text) is not str:
            continue
        addresses = split_addresses(text)
        if addresses or text in EMPTY_VALUES:
            _delete_path(rest, path)
        # A header with one address is what a proxy has found to be the client's.
        forwarded = addresses + forwarded if len(addresses) == 1 else forwarded + addresses
    return forwarded


def _delete_copies(rest: dict[str, Any], paths: tuple[_Path, ...], client: str) -> None:
    for path in paths:
        value = _get_path(rest, path)
        if type(value) is str and client in value:
            _delete_path(rest, path)


def _pop_split_time(rest: dict[str, Any], fields: dict[str, Any]) -> None:
    """Set the time of a record that has date and time in two fields, as CloudFront's has."""
    date, time = rest.get("date"), rest.get("time")
    if type(date) is str and type(time) is str and ":" in time and "T" not in time and len(date) == len("2015-05-17"):
        stamp = parse_record_timestamp(f"{date}T{time}Z")
        if stamp is not None:
            fields["@timestamp"] = stamp
            del rest["date"], rest["time"]
        agent = rest.get("cs(User-Agent)")
        if type(agent) is str and agent not in EMPTY_VALUES:
            rest["cs(User-Agent)"] = decode_cloudfront_user_agent(agent)


def _pop_first(rest: dict[str, Any], paths: tuple[_Path, ...], parse: Callable[[Any], T | None]) -> T | None:
    """Remove the first of the fields that can be parsed and return its value; drop missing values before it."""
    for path in paths:
        value = _get_path(rest, path)
        if value is None:
            continue
        if type(value) is str and value in EMPTY_VALUES:
            _delete_path(rest, path)
            continue
        result = parse(value)
        if result is not None:
            _delete_path(rest, path)
            return result
    return None


def _get_path(record: Mapping[str, Any], path: _Path) -> Any:
    if len(path) == 1:
        return record.get(path[0])
    value: Any = record
    for name in path:
        if type(value) is not dict and not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _delete_path(rest: dict[str, Any], path: _Path) -> None:
    first = path[0]
    if len(path) == 1:
        del rest[first]
        return
    group = dict(rest[first])
    _delete_path(group, path[1:])
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
    status = _parse_integer(value, _STATUS_DIGITS)
    return status if status is None or status == 0 or status >= _MIN_STATUS else None


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
    if not isinstance(value, str) or value == "_":
        return None
    return strip_port(value) if is_host(value) or normalize_address(value) else None


_FIELD_PARSERS: Final[tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...]] = (
    ("@timestamp", _TIME_FIELDS, parse_log_timestamp),
    ("bytes", _SIZE_FIELDS, _parse_size),
    ("referer", _REFERRER_FIELDS, _optional_text),
    ("agent", _USER_AGENT_FIELDS, _optional_text),
    ("host", _HOST_FIELDS, _parse_host),
    ("user", _USER_FIELDS, _optional_text),
    ("duration", _DURATION_FIELDS, parse_duration),
)


NGINX_JSON: Final = LogFormat("nginx-json", lambda: parse_nginx_line)
JSON: Final = LogFormat("json", lambda: parse_nginx_line)
"""The same for other programs: their names of fields are recognized."""


_CADDY_MAPPED_FIELDS: Final = frozenset(
    {"request", "resp_headers", "user_id", "status", "size", "duration", "level", "logger", "msg", "common_log"}
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
        stamp = parse_log_timestamp(record[time])
        if stamp is None:
            raise Malformed(f"invalid timestamp {str(record[time])[:40]!r}")
        fields["@timestamp"] = stamp
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
    headers = request.get("headers")
    _set_caddy_client(fields, request, headers)
    method = _optional_text(request.get("method"))
    if method is not None and is_http_method(method):
        fields["method"] = method
    fields["url"] = request["uri"]
    host = _optional_text(request.get("host"))
    if host is not None:
        fields["host"] = strip_port(host)
    for name, header in (("referer", "Referer"), ("agent", "User-Agent")):
        value = _first_text(headers.get(header)) if isinstance(headers, dict) else None
        if value is not None:
            fields[name] = value


def _set_caddy_client(fields: dict[str, Any], request: Mapping[str, Any], headers: object) -> None:
    client = _optional_text(request.get("client_ip"))
    peer = client or _optional_text(request.get("remote_ip")) or _optional_text(request.get("remote_addr"))
    addresses = split_addresses(peer) if peer is not None else []
    if peer is None:
        return
    if not addresses:
        if not is_host(peer, allow_port=False):
            raise Malformed(f"{peer[:40]!r} is where the client's IP address should be")
        fields["clienthost"] = peer
        return
    values = headers.get("X-Forwarded-For") if client is None and isinstance(headers, dict) else None
    forwarded = split_addresses(",".join(map(str, values))) if isinstance(values, list) else []
    if forwarded:
        set_client_chain(fields, forwarded, addresses[0], needs_trusted_peer=True)
    else:
        set_client_chain(fields, addresses, "")


def _set_caddy_response(fields: dict[str, Any], record: Mapping[str, Any]) -> None:
    user = _optional_text(record.get("user_id"))
    if user is not None:
        fields["user"] = user
    for name, source in (("status", "status"), ("bytes", "size")):
        value = record.get(source)
        if type(value) is int and 0 <= value < 10**_MAX_DIGITS:
            fields[name] = value
    duration = parse_duration(record.get("duration"))
    if duration is not None:
        fields["duration"] = duration


def _first_text(values: object) -> str | None:
    return _optional_text(values[0] if isinstance(values, list) and values else values)


CADDY_JSON: Final = LogFormat("caddy-json", lambda: parse_caddy_line)
