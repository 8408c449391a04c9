"""Attacks on a server over HTTP: requests just as they are sent, and how every answer has to look."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import quote

import orjson

from tests.docs.pages import first_cells, section
from tests.servers import Server, unique_name

HOST: Final = "127.0.0.1"
TIMEOUT_SECONDS: Final = 60.0
MIB: Final = 2**20
MAX_CONCURRENT: Final = 8
JSON_HEADERS: Final = (("Content-Type", "application/json"),)
FORM_HEADERS: Final = (("Content-Type", "application/x-www-form-urlencoded"),)


class RawResponse(NamedTuple):
    """What came back over HTTP."""

    status: int
    content_type: str
    body: bytes


class RawRequest(NamedTuple):
    """One request, just as it is sent."""

    method: str
    target: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


async def send_request(port: int, request: RawRequest) -> RawResponse:
    """Send one request over a connection of its own, and return what comes back before the server hangs up."""
    named = [("Host", "x"), ("Connection", "close"), ("Content-Length", str(len(request.body))), *request.headers]
    head = "".join(f"{name}: {value}\r\n" for name, value in named)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"{request.method} {request.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + request.body)
        came = await reader.read()
        writer.close()
    head_came, _, body = came.partition(b"\r\n\r\n")
    kind = re.search(rb"(?i)^content-type: ([^;\r]*)", head_came, re.MULTILINE)
    return RawResponse(int(came.split(b" ", 2)[1]), kind[1].decode() if kind else "", body)


def exchange_bytes(port: int, request: bytes) -> bytes:
    """Send bytes, say no more, and return what comes back until the server hangs up."""
    came = b""
    with socket.create_connection((HOST, port), TIMEOUT_SECONDS) as line, contextlib.suppress(ConnectionError):
        line.sendall(request)
        line.shutdown(socket.SHUT_WR)
        while data := line.recv(65536):
            came += data
    return came


def send_requests(server: Server, requests: Sequence[RawRequest], port: int = 0) -> list[RawResponse]:
    """Send many requests, a few at once."""
    gate = asyncio.Semaphore(MAX_CONCURRENT)

    async def one(asked: RawRequest) -> RawResponse:
        async with gate:
            return await send_request(port or server.port, asked)

    async def every() -> list[RawResponse]:
        return await asyncio.gather(*map(one, requests))

    return asyncio.run(every())


def count_views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{quote(item, safe='')}.json")["views"].values())


@contextlib.contextmanager
def still_counting(server: Server) -> Iterator[None]:
    """See that, after what the block does, a good event is counted once."""
    yield
    item = unique_name()
    server.post_events(b'{"id":"%b"}' % item.encode())
    assert count_views(server, item) == 1


ERROR_SHAPES: Final = tuple(
    (re.compile(pattern), frozenset(names.split()))
    for pattern, names in (
        ("/es(/|$)", "error status"),
        ("/es/", "_index found"),
        ("/api/", "statusCode error message"),
        ("/(sessions|events)(/|$)", "status error description"),
        ("//?(matomo|piwik).php$", "status tracked invalid message"),
        ("//?(index.php)?$", "result message"),
    )
)
"""What answers to bad requests hold, by the address."""
PROTOCOL_PATHS: Final = re.compile("/es(/|$)|/api/|/(sessions|events)(/|$)")


def has_expected_shape(request: RawRequest, response: RawResponse) -> bool:
    """Tell whether an answer has the shape of the protocol that is spoken at an address."""
    if response.status < HTTPStatus.BAD_REQUEST or request.method == "HEAD":
        return True
    path = request.target.partition("?")[0]
    if path.startswith("/hit") and response.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return response.content_type == "text/plain"
    try:
        found = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return False
    if "detail" in found and (response.status == HTTPStatus.METHOD_NOT_ALLOWED or not PROTOCOL_PATHS.match(path)):
        return bool(found["status"] == response.status and response.content_type == "application/problem+json")
    return any(shape.match(path) and keys <= found.keys() for shape, keys in ERROR_SHAPES)


def check_responses(requests: Sequence[RawRequest], responses: Sequence[RawResponse]) -> None:
    wrong = [
        (one.method, one.target[:80], one.body[:80], one.headers[:1], answer.status, answer.body[:200])
        for one, answer in zip(requests, responses, strict=True)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or not has_expected_shape(one, answer)
    ]
    assert not wrong, (len(wrong), wrong[:10])


def documented_routes() -> list[tuple[str, str]]:
    """List the addresses that the documentation lists."""
    found = []
    for cell in sorted(first_cells(section("docs/operations.md", "Routes"))):
        method, path = cell.split(" ", 1)
        found.append(("GET" if method == "*" else method, re.sub(r"\{\w+\}", "x", path)))
    assert len(found) > 40
    return [*found, ("POST", "/es/_bulk"), ("PUT", "/es/x/_bulk"), ("POST", "/es/x/_doc"), ("PUT", "/es/x/_create/1")]
