"""Formats that are defined by a string: NGINX's ``log_format``, Apache's ``LogFormat``, and the formats in this module.

A string is compiled to one expression. Each variable matches only what it can hold, and text between variables must be
there, so a line of another format does not match. Columns whose variables are not known are skipped.

Sources: NGINX's ``ngx_http_log_module``; Apache's ``mod_log_config``; Amazon's "Access logs for your Application Load
Balancer" and "Access logs for your Classic Load Balancer"; HAProxy's "HTTP log format"; Envoy's "Access logging";
NGINX Proxy Manager's ``proxy.conf``.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

import orjson

from metronome.enrich.addresses import normalize_address, split_addresses
from metronome.errors import ConfigurationError, Malformed
from metronome.protocols.access_logs.common_log import unescape, unescape_request
from metronome.protocols.access_logs.formats import (
    EMPTY_VALUES,
    LineParser,
    LogFormat,
    check_request_quotes,
    check_user,
    check_visitor,
    is_host,
    is_http_method,
    is_user_agent,
    parse_duration,
    parse_log_timestamp,
    parse_status,
    set_client_chain,
    set_request_line,
    strip_port,
)
from metronome.times import parse_clf_timestamp, parse_record_timestamp

MAX_FORMAT_CHARACTERS: Final = 4096


class _Column(NamedTuple):
    """What a variable holds.

    Attributes:
        role: the field, or what becomes of it; empty for a column that is skipped.
        pattern: of its values; None for any text up to the next literal.

    """

    role: str
    pattern: str | None = None


_ADDRESS: Final = r"\[?[0-9A-Fa-f]{0,4}+[.:][0-9A-Fa-f.:]++(?:%\w++)?\]?(?::\d++)?"
_ADDRESS_LIST: Final = rf"(?:-|unknown|{_ADDRESS})(?:, *+(?:-|unknown|{_ADDRESS}))*+|"
_CLF_TIME: Final = r"\d{1,2}/[A-Za-z]{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"
_ISO_TIME: Final = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_NUMBER: Final = r"-?\d{1,15}(?:\.\d{1,9})?|-"
_INTEGER: Final = r"[+-]?\d{1,18}|-"
_WORD: Final = r"\S*?"

_SKIPPED: Final = _Column("")
_NUMBERS: Final = _Column("", _NUMBER)
_CLIENT: Final = _Column("client", rf"{_ADDRESS}|unix:|-|[A-Za-z0-9_][\w.-]*+")
_CLIENT_ADDRESS: Final = _Column("client", rf"{_ADDRESS}|unix:")
_CLIENT_ROLES: Final = frozenset({"client", "client_with_port"})
_CLIENT_WITH_PORT: Final = _Column("client_with_port", _ADDRESS)
_FORWARDED: Final = _Column("forwarded", _ADDRESS_LIST)
_STATUS: Final = _Column("status", r"\d{3}|-1?|0")
_BYTES: Final = _Column("bytes", _INTEGER)
_REQUEST: Final = _Column("request")
_TIME_CLF: Final = _Column("time_clf", _CLF_TIME)
_TIME_ISO: Final = _Column("time_iso", _ISO_TIME)

_NGINX_VARIABLES: Final = {
    "remote_addr": _CLIENT_ADDRESS,
    "realip_remote_addr": _CLIENT_ADDRESS,
    "binary_remote_addr": _SKIPPED,
    "proxy_add_x_forwarded_for": _FORWARDED,
    "proxy_protocol_addr": _FORWARDED,
    "http_x_forwarded_for": _FORWARDED,
    "http_x_real_ip": _FORWARDED,
    "http_cf_connecting_ip": _FORWARDED,
    "http_true_client_ip": _FORWARDED,
    "http_x_original_forwarded_for": _FORWARDED,
    "remote_user": _Column("user"),
    "time_local": _TIME_CLF,
    "time_iso8601": _TIME_ISO,
    "msec": _Column("time_epoch", r"\d{9,12}(?:\.\d{1,6})?"),
    "request": _REQUEST,
    "request_method": _Column("method", r"[A-Za-z][A-Za-z_-]*+|-"),
    "request_uri": _Column("url"),
    "uri": _Column("path"),
    "document_uri": _Column("path"),
    "args": _Column("query"),
    "query_string": _Column("query"),
    "status": _STATUS,
    "body_bytes_sent": _BYTES,
    "bytes_sent": _BYTES,
    "request_length": _Column("", _INTEGER),
    "http_referer": _Column("referer"),
    "http_user_agent": _Column("agent"),
    "host": _Column("host"),
    "http_host": _Column("host"),
    "server_name": _Column("host"),
    "request_time": _Column("duration_s", _NUMBER),
    "scheme": _Column("", r"https?|-"),
    "server_protocol": _Column("", r"HTTP/[\d.]+|-"),
    "server_port": _NUMBERS,
    "remote_port": _NUMBERS,
    "connection": _NUMBERS,
    "connection_requests": _NUMBERS,
    "pid": _NUMBERS,
    # Names of the formats in this module.
    "duration_ms": _Column("duration_ms", _NUMBER),
    "word": _Column("", _WORD),
    "client_port": _CLIENT_WITH_PORT,
    "target": _Column("", rf"-|{_ADDRESS}"),
    "cipher": _Column("", r"[\w-]++"),
    "alb_type": _Column("", "https?|h2|grpcs|wss?"),
    "number": _NUMBERS,
    "haproxy_time": _Column("time_haproxy", r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d\.\d{3}"),
    "haproxy_timers": _Column("timers", r"[+-]?\d+(?:/[+-]?\d+){3,5}"),
    "haproxy_tls": _Column("", r"-?\d{1,10}/[0-9a-fA-Fx]{1,20}/-?\d{1,10}(?:/-?\d{1,10}){2}"),
    "haproxy_captures": _Column("captures", r"(?:\{[^}]*+\} )*+"),
}
_APACHE_VARIABLES: Final = {
    "h": _CLIENT,
    "a": _CLIENT_ADDRESS,
    "l": _Column("", _WORD),
    "u": _Column("user"),
    "r": _REQUEST,
    "s": _STATUS,
    "b": _BYTES,
    "B": _BYTES,
    "O": _BYTES,
    "I": _Column("", _INTEGER),
    "S": _Column("", _INTEGER),
    "D": _Column("duration_us", _INTEGER),
    "T": _Column("duration_s", _NUMBER),
    "m": _Column("method", r"[A-Za-z][A-Za-z_-]*+|-"),
    "U": _Column("path"),
    "q": _Column("query"),
    "v": _Column("host"),
    "V": _Column("host"),
    "p": _NUMBERS,
    "P": _NUMBERS,
    "k": _NUMBERS,
    "X": _Column("", r"[X+-]"),
    "H": _Column("", r"HTTP/[\d.]+|-"),
}
_APACHE_HEADERS: Final = {
    "referer": _Column("referer"),
    "referrer": _Column("referer"),
    "user-agent": _Column("agent"),
    "host": _Column("host"),
    "x-forwarded-for": _FORWARDED,
    "x-real-ip": _FORWARDED,
    "true-client-ip": _FORWARDED,
    "cf-connecting-ip": _FORWARDED,
    "x-client-ip": _FORWARDED,
}
_APACHE_PARAMETERS: Final = {
    ("c", "a"): _CLIENT_ADDRESS,
    ("ms", "T"): _Column("duration_ms", _NUMBER),
    ("us", "T"): _Column("duration_us", _NUMBER),
    ("s", "T"): _Column("duration_s", _NUMBER),
    ("sec", "t"): _Column("time_epoch", r"\d{9,12}"),
    ("msec", "t"): _Column("time_epoch", r"\d{12,15}"),
    ("%Y-%m-%dT%H:%M:%S%z", "t"): _TIME_ISO,
    ("%Y-%m-%d %H:%M:%S", "t"): _TIME_ISO,
    ("%d/%b/%Y:%H:%M:%S %z", "t"): _TIME_CLF,
    ("[%d/%b/%Y:%H:%M:%S %z]", "t"): _Column("time_clf", rf"\[{_CLF_TIME}\]"),
}
_NGINX_TOKEN_PATTERN: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
_APACHE_TOKEN_PATTERN: Final = re.compile(r"%(?:%|[!<>\d,]*(?:\{([^}]*)\})?[!<>]*(\^t[io]|[A-Za-z]))", re.ASCII)
_DIRECTIVE_PATTERN: Final = re.compile(r"\s*(?:log_format\s+\S+|LogFormat)\s+", re.IGNORECASE)
_QUOTED_PIECE_PATTERN: Final = re.compile(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
_JSON_PAIR_PATTERN: Final = re.compile(r'"([^"]+)"\s*:\s*"?\$\{?(\w+)\}?"?')

_Token = str | _Column


def is_format_string(text: str) -> bool:
    """Return whether *text* is a format string rather than a format's name."""
    return "$" in text or "%" in text


def compile_format(text: str, name: str = "") -> LogFormat:
    """Return the format of a ``log_format`` of NGINX or a ``LogFormat`` of Apache.

    Args:
        text: the string, or the whole directive.
        name: of the format.

    Raises:
        ConfigurationError: a line in this format has no time, or neither a request nor a path.

    """
    if len(text) > MAX_FORMAT_CHARACTERS:
        raise ConfigurationError(f"the log format has over {MAX_FORMAT_CHARACTERS:,} characters")
    text = _strip_directive(text)
    if text.lstrip().startswith("{") and "$" in text:
        return _compile_json(text, name or text)
    tokens = _tokenize_nginx(text) if "$" in text else _tokenize_apache(text)
    parser = _compile_tokens(tokens, text)
    return LogFormat(name or text, lambda: parser, _stable_part)


def _strip_directive(text: str) -> str:
    directive = _DIRECTIVE_PATTERN.match(text)
    if directive is not None:
        pieces = [piece[1] if piece[1] is not None else piece[2] for piece in _QUOTED_PIECE_PATTERN.finditer(text)]
        if directive[0].lstrip().lower().startswith("logformat"):
            pieces = pieces[:1]
        text = "".join(pieces)
    return text.replace('\\"', '"').replace("\\t", "\t").strip()


def _tokenize_nginx(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    for match in _NGINX_TOKEN_PATTERN.finditer(text):
        tokens += [text[at : match.start()], _NGINX_VARIABLES.get(match[1] or match[2], _SKIPPED)]
        at = match.end()
    return [*tokens, text[at:]]


def _tokenize_apache(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    for match in _APACHE_TOKEN_PATTERN.finditer(text):
        tokens.append(text[at : match.start()])
        at = match.end()
        parameter, letter = match[1], match[2]
        if letter is None:
            tokens.append("%")
        elif parameter is None:
            tokens += ["[", _TIME_CLF, "]"] if letter == "t" else [_APACHE_VARIABLES.get(letter, _SKIPPED)]
        elif letter == "i":
            tokens.append(_APACHE_HEADERS.get(parameter.lower(), _SKIPPED))
        else:
            tokens.append(_APACHE_PARAMETERS.get((parameter.removeprefix("begin:"), letter), _SKIPPED))
    return [*tokens, text[at:]]


def _compile_tokens(tokens: list[_Token], text: str) -> LineParser:
    columns: list[tuple[str, str]] = []
    pattern = ""
    merged = tuple(_merge_literals(tokens))
    for number, token in enumerate(merged):
        if isinstance(token, str):
            # Where the format has one blank, some servers write several.
            pattern += re.escape(token).replace(r"\ ", " +")
            continue
        following = merged[number + 1] if number + 1 < len(merged) else ""
        group = f"c{len(columns)}"
        columns.append((group, token.role))
        pattern += f"(?P<{group}>{_value_pattern(token, following if isinstance(following, str) else '')})"
    roles = {role for _, role in columns}
    if not any(role.startswith("time_") for role in roles):
        raise ConfigurationError(f"the log format {text!r} has no time: add $time_local, or %t")
    if not roles & {"request", "url", "path"}:
        raise ConfigurationError(f"the log format {text!r} has no request: add $request, or %r")
    compiled = re.compile(pattern, re.ASCII | re.DOTALL)
    named = [(group, role) for group, role in columns if role]

    def parse(line: str) -> dict[str, Any]:
        match = compiled.match(line)
        if match is None:
            raise Malformed(_describe_mismatch(line, merged))
        return _build_fields([(role, match[group]) for group, role in named], is_escaped=True)

    return parse


def _merge_literals(tokens: list[_Token]) -> list[_Token]:
    merged: list[_Token] = []
    for token in tokens:
        if isinstance(token, str) and merged and isinstance(merged[-1], str):
            merged[-1] += token
        elif token != "":
            merged.append(token)
    return merged


def _value_pattern(column: _Column, following: str) -> str:
    """Return the pattern of a column's values: linear for any line."""
    if column.pattern is not None and column.pattern != _WORD:
        return column.pattern
    if column.role == "request" and following.startswith('"'):
        # Not every server escapes quotes.
        end = re.escape(following[1:2]) if len(following) > 1 else r"\Z"
        return rf'(?:[^"\\]++|\\.|"(?!{end}))*+'
    if following.startswith('"'):
        return r'(?:[^"\\]++|\\.)*+'
    if not following:
        return r".*+" if column.pattern is None else r"\S*+"
    stop = re.escape(following[0])
    if column.role in {"user", "request"} and len(following) > 1:
        # A name may have spaces.
        return rf"(?:(?!{re.escape(following)}).)*+"
    return rf"[^{stop}]*+"


@lru_cache(maxsize=32)
def _beginnings(tokens: tuple[_Token, ...]) -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns of a format's beginnings, each with one column more, and the column's name."""
    pattern = ""
    beginnings = []
    for number, token in enumerate(tokens):
        if isinstance(token, str):
            pattern += re.escape(token).replace(r"\ ", " +")
            name = repr(token)
        else:
            following = tokens[number + 1] if number + 1 < len(tokens) else ""
            pattern += f"(?:{_value_pattern(token, following if isinstance(following, str) else '')})"
            name = token.role.replace("_", " ") or "a column"
        beginnings.append((re.compile(pattern, re.ASCII | re.DOTALL), name))
    return beginnings


def _describe_mismatch(line: str, tokens: tuple[_Token, ...]) -> str:
    """Return up to which column a line has the format."""
    at, column = 0, "the beginning"
    for pattern, name in _beginnings(tokens):
        match = pattern.match(line)
        if match is None:
            return f"expected {name} at {line[at : at + 40]!r}, after {column}"
        at, column = match.end(), name
    return "the line does not have the format"


def _build_fields(values: list[tuple[str, str]], *, is_escaped: bool) -> dict[str, Any]:
    """Return the fields of a line's columns.

    Raises:
        Malformed: a column is not what its name says.

    """
    fields: dict[str, Any] = {}
    clients: list[str] = []
    forwarded: list[str] = []
    path = query = ""
    for role, text in values:
        if text in EMPTY_VALUES or text == "-1":
            continue
        value = unescape(text) if is_escaped else text
        if role in _CLIENT_ROLES:
            clients.append(value if role == "client" else _strip_client_port(value))
        elif role == "forwarded":
            forwarded += split_addresses(value)
        elif role == "request":
            check_request_quotes(text)
            set_request_line(fields, unescape_request(text))
        elif role == "path":
            path = unescape_request(text)
        elif role == "query":
            query = unescape_request(text).removeprefix("?")
        else:
            _SETTERS[role](fields, unescape_request(text) if role == "url" else value)
    if path and "url" not in fields:
        fields["url"] = f"{path}?{query}" if query else path
    if "@timestamp" not in fields:
        raise Malformed("no time")
    _set_clients(fields, clients, forwarded)
    check_visitor(fields)
    return fields


def _strip_client_port(text: str) -> str:
    """Return a client without its port, which some servers write after IPv6 addresses without brackets, too."""
    address, _, port = text.rpartition(":")
    return address if port.isdigit() and normalize_address(address) else text


def _set_clients(fields: dict[str, Any], clients: list[str], forwarded: list[str]) -> None:
    peers = [address for client in clients for address in split_addresses(client)]
    if forwarded:
        set_client_chain(fields, forwarded, peers[0] if peers else "")
    elif peers:
        set_client_chain(fields, peers, "")
    elif clients:
        if not is_host(clients[0], allow_port=False) and clients[0] != "unix:":
            raise Malformed(f"the client {clients[0][:40]!r} is neither an IP address nor a host name")
        fields["clienthost"] = clients[0]


def _set_time(parse: Callable[[str], str | None]) -> Callable[[dict[str, Any], str], None]:
    def set_time(fields: dict[str, Any], text: str) -> None:
        stamp = parse(text)
        if stamp is None:
            raise Malformed(f"invalid timestamp {text[:40]!r}")
        fields["@timestamp"] = stamp

    return set_time


def _set_method(fields: dict[str, Any], text: str) -> None:
    if is_http_method(text):
        fields["method"] = text


def _set_url(fields: dict[str, Any], text: str) -> None:
    if not (text.startswith(("/", "*")) or "://" in text):
        raise Malformed(f"{text[:40]!r} is where the path should be")
    fields["url"] = text


def _set_status(fields: dict[str, Any], text: str) -> None:
    if text != "0":
        fields["status"] = parse_status(text)


def _set_bytes(fields: dict[str, Any], text: str) -> None:
    fields.setdefault("bytes", int(text))


def _set_host(fields: dict[str, Any], text: str) -> None:
    if text != "_":
        if not (is_host(text) or split_addresses(text)):
            raise Malformed(f"{text[:40]!r} is where the host should be")
        fields["host"] = strip_port(text)


def _set_duration(unit: str) -> Callable[[dict[str, Any], str], None]:
    def set_duration(fields: dict[str, Any], text: str) -> None:
        duration = parse_duration(text, unit)
        if duration is not None:
            fields["duration"] = duration

    return set_duration


def _set_timers(fields: dict[str, Any], text: str) -> None:
    total = text.rpartition("/")[2].lstrip("+")
    if total.isdigit():
        fields["duration"] = int(total)


def _set_captures(fields: dict[str, Any], text: str) -> None:
    """Use the request headers that HAProxy captured, which are told by what they look like."""
    for capture in re.findall(r"[^{}|]+", text.replace("} {", "|")):
        value = capture.strip()
        if is_user_agent(value):
            fields.setdefault("agent", value)
        elif "://" in value:
            fields.setdefault("referer", value)
        elif is_host(value) and "." in value:
            fields.setdefault("host", strip_port(value))


def _parse_haproxy_time(text: str) -> str:
    clock, _, fraction = text.partition(".")
    return f"{parse_clf_timestamp(f'{clock} +0000')[:-4]}{fraction}Z"


_SETTERS: Final[dict[str, Callable[[dict[str, Any], str], None]]] = {
    "time_clf": _set_time(lambda text: parse_clf_timestamp(text.strip("[]"))),
    "time_iso": _set_time(parse_log_timestamp),
    "time_epoch": _set_time(parse_record_timestamp),
    "time_haproxy": _set_time(_parse_haproxy_time),
    "user": lambda fields, text: fields.update(user=check_user(text)),
    "method": _set_method,
    "url": _set_url,
    "status": _set_status,
    "bytes": _set_bytes,
    "referer": lambda fields, text: fields.update(referer=text),
    "agent": lambda fields, text: fields.update(agent=text),
    "host": _set_host,
    "duration_s": _set_duration("s"),
    "duration_ms": _set_duration("ms"),
    "duration_us": _set_duration("us"),
    "timers": _set_timers,
    "captures": _set_captures,
}


def _compile_json(text: str, name: str) -> LogFormat:
    """Return the format of a JSON object whose values are variables of NGINX."""
    roles = {
        key: _NGINX_VARIABLES[variable].role
        for key, variable in _JSON_PAIR_PATTERN.findall(text)
        if variable in _NGINX_VARIABLES
    }

    def parse(line: str) -> dict[str, Any]:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"invalid JSON: {error}") from None
        if type(record) is not dict:
            raise Malformed("not a JSON object")
        values = [(roles[key], str(value)) for key, value in record.items() if roles.get(key) and value is not None]
        fields = _build_fields(values, is_escaped=False)
        if not fields.keys() & {"url", "request"}:
            raise Malformed("no request or path")
        return fields

    return LogFormat(name, lambda: parse)


def _stable_part(line: bytes) -> bytes:
    """Return a line without its last column, which may be incomplete."""
    return line.strip().rpartition(b" ")[0]


def _define(name: str, *texts: str) -> LogFormat:
    """Return a format with several forms: the first that a line has is used."""

    @cache
    def compiled() -> list[LineParser]:
        # Not when the module is imported: each takes milliseconds.
        return [_compile_tokens(_tokenize_nginx(text), text) for text in texts]

    def parse(line: str) -> dict[str, Any] | None:
        reason = None
        for parser in compiled():
            try:
                return parser(line)
            except Malformed as error:
                reason = reason or error
        raise reason or Malformed("no form")

    return LogFormat(name, lambda: parse, _stable_part)


ALB: Final = _define(
    "aws-alb",
    "$alb_type $time_iso8601 $word $client_port $target $number $number $number $status $word $number $bytes_sent "
    '"$request" "$http_user_agent" $cipher',
)
ELB: Final = _define(
    "aws-elb",
    '$time_iso8601 $word $client_port $target $number $number $number $status $word $number $bytes_sent "$request" '
    '"$http_user_agent" $cipher',
    '$time_iso8601 $word $client_port $target $number $number $number $status $word $number $bytes_sent "$request"',
)
HAPROXY: Final = _define(
    "haproxy",
    "$client_port [$haproxy_time] $word $word $haproxy_timers $status $bytes_sent $word $word $word $word "
    '$word $haproxy_captures"$request"',
    # option httpslog
    "$client_port [$haproxy_time] $word $word $haproxy_timers $status $bytes_sent $word $word $word $word "
    '$word $haproxy_captures"$request" $haproxy_tls $word',
)
ENVOY: Final = _define(
    "envoy",
    '[$time_iso8601] "$request" $status $word $number $bytes_sent $duration_ms $number "$http_x_forwarded_for" '
    '"$http_user_agent" "$word" "$host" "$word"',
    '[$time_iso8601] "$request" $status $word $word $word "$word" $number $bytes_sent $duration_ms $number '
    '"$http_x_forwarded_for" "$http_user_agent" "$word" "$host" "$word"',
)
NGINX_PROXY_MANAGER: Final = _define(
    "nginx-proxy-manager",
    '[$time_local] $word $word $status - $request_method $scheme $host "$request_uri" [Client $remote_addr] '
    '[Length $body_bytes_sent] [Gzip $word] [Sent-to $word] "$http_user_agent" "$http_referer"',
    '[$time_local] $status - $request_method $scheme $host "$request_uri" [Client $remote_addr] '
    '[Length $body_bytes_sent] [Gzip $word] "$http_user_agent" "$http_referer"',
)
