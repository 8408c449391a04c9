"""Attacks on a server over HTTP: raw requests, and the expected shapes of error responses."""

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
    """A response to a `RawRequest`."""

    status: int
    content_type: str
    body: bytes


class RawRequest(NamedTuple):
    """A request that is sent byte for byte."""

    method: str
    target: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


async def send_request(port: int, request: RawRequest) -> RawResponse:
    """Send a request over a new connection, and return the response."""
    headers = [
        ("Host", "localhost"),
        ("Connection", "close"),
        ("Content-Length", str(len(request.body))),
        *request.headers,
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"{request.method} {request.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + request.body)
        received = await reader.read()
        writer.close()
    response_head, _, body = received.partition(b"\r\n\r\n")
    content_type = re.search(rb"(?i)^content-type: ([^;\r]*)", response_head, re.MULTILINE)
    return RawResponse(int(received.split(b" ", 2)[1]), content_type[1].decode() if content_type else "", body)


def exchange_bytes(port: int, request: bytes) -> bytes:
    """Send bytes, shut down the sending side, and return all bytes received until the server disconnects."""
    received = b""
    with socket.create_connection((HOST, port), TIMEOUT_SECONDS) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    return received


def send_requests(server: Server, requests: Sequence[RawRequest], port: int = 0) -> list[RawResponse]:
    """Send requests, a few concurrently."""
    semaphore = asyncio.Semaphore(MAX_CONCURRENT)

    async def send(request: RawRequest) -> RawResponse:
        async with semaphore:
            return await send_request(port or server.port, request)

    async def send_all() -> list[RawResponse]:
        return await asyncio.gather(*map(send, requests))

    return asyncio.run(send_all())


def count_views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{quote(item, safe='')}.json")["views"].values())


@contextlib.contextmanager
def still_counting(server: Server) -> Iterator[None]:
    """Check after the block that a valid event is counted once."""
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
        ("/v1/logs$", "code message"),
        ("//?(matomo|piwik).php$", "status tracked invalid message"),
        ("//?(index.php)?$", "result message"),
    )
)
"""Members of error responses, by path."""
PROTOCOL_PATHS: Final = re.compile("/es(/|$)|/api/(?!event$|send$|v0/count$)|/(sessions|events)(/|$)")

PAGE_PATHS: Final = re.compile("/($|items/|tables/|live$|embed/|sign-in$|sign-out$)")
"""Errors of these are pages."""


def has_expected_shape(request: RawRequest, response: RawResponse) -> bool:
    """Return whether an error response has the shape of the path's protocol."""
    path = request.target.partition("?")[0]
    # GoatCounter's pixel has its errors in headers.
    is_pixel = path == "/count" and response.content_type == "image/gif" and response.body.startswith(b"GIF89a")
    if response.status < HTTPStatus.BAD_REQUEST or request.method == "HEAD" or is_pixel:
        return True
    if path.startswith("/hit") and response.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return response.content_type == "text/plain"
    if response.content_type == "text/html":
        return PAGE_PATHS.match(path) is not None and response.body.startswith(b"<!doctype html>")
    try:
        body = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return False
    if "detail" in body and (response.status == HTTPStatus.METHOD_NOT_ALLOWED or not PROTOCOL_PATHS.match(path)):
        return bool(body["status"] == response.status and response.content_type == "application/problem+json")
    return any(shape.match(path) and keys <= body.keys() for shape, keys in ERROR_SHAPES)


def check_responses(requests: Sequence[RawRequest], responses: Sequence[RawResponse]) -> None:
    unexpected = [
        (
            request.method,
            request.target[:80],
            request.body[:80],
            request.headers[:1],
            response.status,
            response.body[:200],
        )
        for request, response in zip(requests, responses, strict=True)
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or not has_expected_shape(request, response)
    ]
    assert not unexpected, (len(unexpected), unexpected[:10])


def documented_routes() -> list[tuple[str, str]]:
    """Return the method and path of every documented route."""
    routes = []
    # The demo would be loaded into the server of many tests.
    for cell in sorted(first_cells(section("docs/operations.md", "Routes")) - {"POST /demo"}):
        method, path = cell.split(" ", 1)
        routes.append(("GET" if method == "*" else method, re.sub(r"\{\w+\}", "x", path)))
    assert len(routes) > 40
    return [*routes, ("POST", "/es/_bulk"), ("PUT", "/es/x/_bulk"), ("POST", "/es/x/_doc"), ("PUT", "/es/x/_create/1")]
