"""The Common Log Format and formats derived from it: Combined, Combined with the virtual host, and S3.

Most lines match one expression. All others are parsed column by column, and each column must be what it is said to be:
servers are configured to write other columns, and a line whose columns are shifted must not be accepted.

Source for S3: Amazon's "Amazon S3 server access log format". Amazon has added columns at the end several times, so a
line may have fewer or more columns than are parsed here.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from metronome.enrich.addresses import IPV4_PATTERN, normalize_address, split_addresses
from metronome.errors import Malformed
from metronome.fields import PERCENT_ERRORS
from metronome.protocols.access_logs.formats import (
    DECODE_ERRORS,
    EMPTY_VALUES,
    STATUSES,
    USUAL_REFERRERS,
    LogFormat,
    check_request_quotes,
    check_user,
    check_visitor,
    is_host,
    is_user_agent,
    parse_status,
    set_client_chain,
    set_request_line,
    strip_port,
)
from metronome.times import parse_clf_timestamp

# Possessive quantifiers and atomic groups prevent backtracking: matching is linear for any line.
_QUOTED_PATTERN = r'"((?:[^"\\]++|\\.)*+)"'
_USUAL_LINE_PATTERN = re.compile(
    rf'(?:({IPV4_PATTERN})|([0-9A-Fa-f.:]++)) - ([^\s"\[]++) \[([^\]]++)\] {_QUOTED_PATTERN} '
    r"([1-5]\d\d) (\d{1,18}+|-)"
    rf"(?: {_QUOTED_PATTERN} {_QUOTED_PATTERN}(?: (.*+))?)?\Z",
    re.ASCII | re.DOTALL,
)
_TIME_PATTERN = re.compile(r"(?:\A|(?<= ))\[(\d{1,2}/[A-Za-z]{3}/\d{4}:[^\]]*+)\]", re.ASCII)
# Tomcat does not escape quotes: a request ends at the quote before status and size.
_REQUEST_PATTERN = re.compile(
    r' "((?:[^"\\]++|\\.|"(?! (?:\d{3}|-) (?:\d{1,18}|-)(?: |\Z)))*+)" (\d{3}|-) (\d{1,18}+|-)(?= |\Z)',
    re.ASCII | re.DOTALL,
)
_MORE_NUMBERS_PATTERN = re.compile(r'(?: (?:\d++(?:\.\d++)?|-))++(?= ")', re.ASCII)
_VISITOR_PATTERN = re.compile(
    r' "((?:[^"\\]++|\\.|"(?![ "]|\Z))*+)" "((?:[^"\\]++|\\.|"(?![\s"]|\Z))*+)(?:"|\\?\Z) ?(.*+)\Z', re.DOTALL
)
_ONE_VALUE_PATTERN = re.compile(rf" {_QUOTED_PATTERN}\Z", re.DOTALL)
_HEAD_TOKEN_PATTERN = re.compile(
    r'"[^"]*+"|\[[^\]]*+\](?::\d++)?(?:, *+[^\s",]++)*+|\([^()\s"]*+(?:, *+[^()\s"]++)*+\)'
    r'|[^\s",]++(?:, *+[^\s",]++)*+|\S'
)
_HEAD_MAX_CHARACTERS: Final = 4096
_FORWARDED_COLUMN_PATTERN = re.compile(r'"([^"]*+)"|([^\s",]++(?:, *+[^\s",]++)*+)')
_VHOST_MAX_PORT: Final = 10_000
"""An address with a higher port is a client's: proxies that append the port of a connection write such."""
_ESCAPES_PATTERN = re.compile(rb"(?:\\(?:x[0-9A-Fa-f]{2}|[\"\\bnrtv]))++")
_MAX_ESCAPES: Final = 4096
"""Further sequences of escapes stay as they are: no URL or user agent has as many."""


def _combined_stable_part(line: bytes) -> bytes:
    """Return a line up to the end of its request, if that is in quotes (see `LogFormat.stable_part`)."""
    start = line.find(b'] "')
    end = line.find(b'"', start + 3)
    return line.strip() if start < 0 or end < 0 else line[:end].lstrip()


def parse_combined(line: str) -> dict[str, Any]:  # noqa: C901  # calls would take time for each line
    """Parse a line of the Combined Log Format; referrer and user agent may be missing (see `LineParser`).

    Before the client may be the virtual host; the client may be a list of addresses, or two columns of them.
    """
    match = _USUAL_LINE_PATTERN.match(line)
    if match is None:
        return _parse_columns(line)
    client, unusual, user, time, request, status, size, referer, agent, rest = match.groups()
    if client is None:
        normalized = normalize_address(unusual)
        if normalized is None:
            return _parse_columns(line)
        client = normalized if unusual.count(":") == 1 else unusual
    fields: dict[str, Any] = {"@timestamp": parse_clf_timestamp(time), "clientip": client}
    if user != "-":
        fields["user"] = check_user(unescape(user))
    set_request_line(fields, unescape_request(request) if "\\" in request else request)
    fields["status"] = STATUSES.get(status) or parse_status(status)
    if size != "-":
        fields["bytes"] = int(size)
    if agent is not None:
        # As `_set_visitor` does it.
        if referer and referer != "-":
            fields["referer"] = unescape(referer) if "\\" in referer else referer
        if agent and agent != "-":
            fields["agent"] = unescape(agent) if "\\" in agent else agent
        if "method" not in fields or agent[:8] != "Mozilla/" or referer[:4] not in USUAL_REFERRERS:
            check_visitor(fields)
        if rest:
            _set_forwarded(fields, client, rest)
    return fields


def parse_common(line: str) -> dict[str, Any]:
    """Parse a line of the Common Log Format (see `LineParser`)."""
    fields = parse_combined(line)
    fields.pop("referer", None)
    fields.pop("agent", None)
    return fields


def parse_vhost_combined(line: str) -> dict[str, Any]:
    """Parse a line of the Combined Log Format after its virtual host (see `LineParser`)."""
    fields = parse_combined(line)
    if "host" not in fields:
        raise Malformed("no client after the host")
    return fields


def unescape(text: str, errors: str = DECODE_ERRORS) -> str:
    r"""Decode the escapes of Apache and NGINX: ``\xHH``, ``\"`` and those of C."""
    if "\\" not in text:
        return text
    return _ESCAPES_PATTERN.sub(_decode_escapes, text.encode(), _MAX_ESCAPES).decode(errors=errors)


def unescape_request(text: str) -> str:
    """Decode the escapes of a request or a URL.

    Bytes that are not UTF-8 become percent-encoded: the same bytes are the same item, however they are logged.
    """
    return unescape(text, PERCENT_ERRORS)


def _decode_escapes(match: re.Match[bytes]) -> bytes:
    # Python has the same escapes.
    return match[0].decode("unicode_escape").encode("latin-1")


def _set_visitor(fields: dict[str, Any], referer: str, agent: str) -> None:
    if referer and referer != "-":
        fields["referer"] = unescape(referer) if "\\" in referer else referer
    if agent and agent != "-":
        fields["agent"] = unescape(agent) if "\\" in agent else agent
    check_visitor(fields)


def _set_forwarded(fields: dict[str, Any], peer: str, rest: str) -> None:
    """Use the first column after the user agent if it is a forwarded address, as in NGINX's usual configuration."""
    column = _FORWARDED_COLUMN_PATTERN.match(rest)
    if "agent" not in fields and column is not None and is_user_agent(column[1] or ""):
        raise Malformed("a column between the referrer and the user agent")
    addresses = split_addresses(column[1] or column[2] or "") if column is not None else None
    if addresses:
        set_client_chain(fields, addresses, peer, needs_trusted_peer=True)


def _parse_columns(line: str) -> dict[str, Any]:
    """Parse a line of which something is unusual, column by column.

    Raises:
        Malformed: a column is not what it should be.

    """
    time = _TIME_PATTERN.search(line)
    if time is None:
        raise Malformed("no time in brackets, as in [17/May/2015:10:05:03 +0000]")
    request = _REQUEST_PATTERN.match(line, time.end())
    if request is None:
        if not line.startswith(' "', time.end()) or line.find('"', time.end() + 2) < 0:
            raise Malformed("no complete request in quotes after the time")
        raise Malformed('expected client, identity, user, [time], "request", status and size')
    check_request_quotes(request[1])
    head = _parse_head(line[: time.start()])
    fields: dict[str, Any] = {"@timestamp": parse_clf_timestamp(time[1])}
    if head.client_name:
        fields["clienthost"] = head.client_name
    elif head.addresses:
        set_client_chain(fields, head.addresses, "")
    user = head.user
    if user not in EMPTY_VALUES:
        fields["user"] = check_user(unescape(user))
    set_request_line(fields, unescape_request(request[1]))
    _set_status_and_size(fields, request[2], request[3])
    _parse_rest(fields, line, request.end())
    if head.host:
        fields["host"] = head.host
    return fields


def _set_status_and_size(fields: dict[str, Any], status: str, size: str) -> None:
    if status != "-":
        fields["status"] = parse_status(status)
    elif size not in {"-", "0"}:
        raise Malformed("a size and no status after the request")
    if size != "-":
        fields["bytes"] = int(size)


def _parse_rest(fields: dict[str, Any], line: str, start: int) -> None:
    """Parse referrer and user agent, if there are any, and what follows."""
    if '"' not in line[start:]:
        text = line[start:].strip()
        referer, _, agent = text.partition(" ")
        if referer == "-" or "://" in referer:
            fields |= {} if referer == "-" else {"referer": unescape(referer)}
            text = agent
        if is_user_agent(text):
            fields["agent"] = unescape(text)
        check_visitor(fields)
        return
    numbers = _MORE_NUMBERS_PATTERN.match(line, start)
    if numbers is not None:
        if "status" not in fields:
            raise Malformed('expected "referrer" and "user agent" after the size')
        start = numbers.end()
    visitor = _VISITOR_PATTERN.match(line, start)
    if visitor is not None:
        _set_visitor(fields, visitor[1], visitor[2])
        if visitor[3]:
            _set_forwarded(fields, fields.get("clientip", ""), visitor[3])
        return
    single = _ONE_VALUE_PATTERN.match(line, start)
    if single is None or not is_user_agent(single[1]):
        raise Malformed('expected "referrer" and "user agent" after the size, or nothing')
    fields["agent"] = unescape(single[1])


class _Head(NamedTuple):
    """The columns before the time.

    Attributes:
        host: the virtual host, or empty.
        addresses: of the client and of proxies after it, without ports.
        client_name: the host name of the client, if it has no address.
        user: the name of the user, which may have spaces; or an empty value.

    """

    host: str
    addresses: list[str]
    client_name: str
    user: str


def _parse_head(head: str) -> _Head:
    """Parse the columns before the time: a virtual host, clients, ``-`` and a user.

    Raises:
        Malformed: a column is not what it should be.

    """
    if len(head) > _HEAD_MAX_CHARACTERS:
        raise Malformed(f"the columns before the time have over {_HEAD_MAX_CHARACTERS:,} characters")
    tokens = list(_HEAD_TOKEN_PATTERN.finditer(head))
    texts = [token[0].strip('"') for token in tokens]
    host, at = "", 0
    if texts and _is_vhost(texts):
        host, at = strip_port(texts[0]), 1
    addresses: list[str] = []
    if texts[at : at + 1] == ["-"] and len(texts) > at + 1 and split_addresses(texts[at + 1]):
        # A forwarded address that is missing, before the peer's.
        at += 1
    while at < len(texts) and (found := split_addresses(texts[at])):
        addresses += found
        at += 1
    if addresses and at < len(texts) and texts[at].startswith("("):
        # The peer, and in parentheses the forwarded addresses.
        addresses = split_addresses(texts[at][1:-1]) or addresses
        at += 1
    client_name = ""
    if not addresses:
        client_name = _client_name(texts[at:])
        at += 1
    elif texts[at : at + 1] == ["-"] and texts[at + 2 : at + 3] == ["-"] and texts[at + 1].startswith("["):
        # The older default of ingress-nginx: address - [forwarded addresses] - user
        real = split_addresses(texts[at + 1][1:-1])
        if real:
            addresses, at = real, at + 2
    # What follows is the identity, and then the user.
    if any(split_addresses(text.strip("[]()")) for text in texts[at:]):
        raise Malformed("an IP address where the identity or the user should be")
    user = head[tokens[at + 1].start() :].rstrip() if len(tokens) > at + 1 else ""
    return _Head(host, addresses, client_name, user.strip('"') if user.count('"') == len('""') else user)


def _client_name(texts: list[str]) -> str:
    """Return the host name of a client without an address; empty if it is missing."""
    client = texts[0] if texts else ""
    if client != "-" and not (is_host(client, allow_port=False) or client == "unix:"):
        raise Malformed(f"the client {client[:40]!r} is neither an IP address nor a host name")
    if len(texts) < len(("client", "identity", "user")):
        raise Malformed("expected client, identity and user before the time")
    return "" if client == "-" else client


def _is_vhost(texts: list[str]) -> bool:
    """Return whether the first column is a virtual host, which is followed by the client."""
    host, _, port = texts[0].rpartition(":") if strip_port(texts[0]) != texts[0] else (texts[0], "", "")
    if split_addresses(host):
        return bool(port) and int(port) < _VHOST_MAX_PORT and len(texts) > 1 and _is_client(texts[1])
    if len(texts) < 2 or not (is_host(host, allow_port=False) or host in {"*", "_", "_default_"}):  # noqa: PLR2004
        return False
    if split_addresses(texts[1]) or (texts[1] == "-" and len(texts) > 2 and split_addresses(texts[2])):  # noqa: PLR2004
        return True
    # The client has a name, too, or is missing.
    return len(texts) > 3 and (  # noqa: PLR2004
        (texts[2] == "-" and is_host(texts[1], allow_port=False) and "." in texts[1])
        or (bool(port) and texts[1] == "-")
    )


def _is_client(text: str) -> bool:
    return text == "-" or bool(split_addresses(text)) or is_host(text, allow_port=False)


COMMON: Final = LogFormat("common", lambda: parse_common, _combined_stable_part)
COMBINED: Final = LogFormat("combined", lambda: parse_combined, _combined_stable_part)
VHOST_COMBINED: Final = LogFormat("vhost-combined", lambda: parse_vhost_combined, _combined_stable_part)
_ITEM_OPERATIONS: Final = frozenset({"REST.GET.OBJECT", "WEBSITE.GET.OBJECT"})
"""The operations that deliver an object."""
# S3 does not escape quotes in a value: the value ends at the quote before the next column. No backtracking.
_S3_REQUEST_PATTERN = r'(?:"((?:[^"]|"(?! (?:\d{3}|-) ))*+)"|-)'
_S3_REFERRER_PATTERN = r'(?:"((?:[^"]|"(?! (?:"|- )))*+)"|-)'
_S3_USER_AGENT_PATTERN = r'(?:"((?:[^"]|"(?=[^"]*+"))*+)"|-)'
_S3_LINE_PATTERN = re.compile(
    # The requester may have spaces.
    r"(\S++) (\S++) \[([^\]]++)\] (\S++) ((?>\S++(?: (?![0-9A-Z]++ [A-Z0-9]++\.[A-Z])\S++)*+)) ([0-9A-Z]++) "
    r"([A-Z0-9]++\.[A-Z][A-Z0-9_.]*+) (\S++) "
    rf"{_S3_REQUEST_PATTERN} (\d{{3}}|-) (-|[A-Za-z]\w*+) (\d{{1,18}}|-) (\d{{1,18}}|-) (\d{{1,12}}|-) (\d{{1,12}}|-) "
    rf"{_S3_REFERRER_PATTERN} {_S3_USER_AGENT_PATTERN} (\S++)(?: (\S++) (\S++) (\S++) (\S++)(?: (\S++))?)?",
    re.ASCII,
)
_S3_TEXT_FIELDS = ("bucket", "operation", "request_id", "error_code", "version_id")
_S3_STABLE_PARTS = 8
_S3_PATH_SAFE = "/!$&'()*+,;=:@~"


def parse_s3(line: str) -> dict[str, Any]:
    """Parse a line of an S3 log (see `LineParser`).

    The ``url`` is the object's key as a path, with the query of the request, whether the bucket is in the host or path.
    """
    match = _S3_LINE_PATTERN.match(line)
    if match is None:
        raise Malformed("not an S3 log line: expected owner, bucket, [time], address, requester, request ID …")
    _, bucket, time, client, user, request_id, operation, key, *rest = match.groups()
    request, status, error, sent, size, total, turnaround, referer, agent, version, *tail = rest
    fields: dict[str, Any] = {"@timestamp": parse_clf_timestamp(time)}
    if client != "-":
        if normalize_address(client) is None:
            raise Malformed(f"{client[:40]!r} is where the client's IP address should be")
        fields["clientip"] = client
    if user != "-":
        fields["user"] = check_user(user)
    set_request_line(fields, request or "")
    _set_object_url(fields, key)
    numbers = (
        ("status", status),
        ("bytes", sent),
        ("duration", total),
        ("turnaround", turnaround),
        ("object_size", size),
    )
    fields.update({name: int(text) for name, text in numbers if text != "-"})
    if "status" in fields:
        parse_status(status)
    fields.update({name: text for name, text in (("referer", referer), ("agent", agent)) if text and text != "-"})
    check_visitor(fields)
    plain = zip(_S3_TEXT_FIELDS, (bucket, operation, request_id, error, version), strict=True)
    fields.update({name: text for name, text in plain if text != "-"})
    host = tail[-1]
    if host is not None and host != "-":
        fields["host"] = strip_port(host)
    return fields


def _set_object_url(fields: dict[str, Any], key: str) -> None:
    if key != "-":
        _, mark, query = fields.get("url", "").partition("?")
        # S3 encodes a key twice: decoded once, it is a percent-encoded path.
        path = quote(unquote(key, errors=DECODE_ERRORS), safe=_S3_PATH_SAFE + "%")
        fields["url"] = f"/{path.removeprefix('/')}{mark}{query}"


def _is_item_operation(fields: Mapping[str, Any]) -> bool:
    return fields.get("operation") in _ITEM_OPERATIONS


def _s3_stable_part(line: bytes) -> bytes:
    """Return the columns up to the operation: they include the request ID."""
    return b" ".join(line.strip().split(b" ", _S3_STABLE_PARTS)[:_S3_STABLE_PARTS])


S3: Final = LogFormat("s3", lambda: parse_s3, _s3_stable_part, is_item_request=_is_item_operation)
