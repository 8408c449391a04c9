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

HERE: Final = "127.0.0.1"
SECONDS: Final = 60.0
MIB: Final = 2**20
AT_ONCE: Final = 8
JSON: Final = (("Content-Type", "application/json"),)
FORM: Final = (("Content-Type", "application/x-www-form-urlencoded"),)


class Answer(NamedTuple):
    """What came back over HTTP."""

    status: int
    kind: str
    body: bytes


class Asked(NamedTuple):
    """One request, just as it is sent."""

    method: str
    target: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


async def ask(port: int, asked: Asked) -> Answer:
    """Send one request over a connection of its own, and return what comes back before the server hangs up."""
    named = [("Host", "x"), ("Connection", "close"), ("Content-Length", str(len(asked.body))), *asked.headers]
    head = "".join(f"{name}: {value}\r\n" for name, value in named)
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(HERE, port)
        writer.write(f"{asked.method} {asked.target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + asked.body)
        came = await reader.read()
        writer.close()
    head_came, _, body = came.partition(b"\r\n\r\n")
    kind = re.search(rb"(?i)^content-type: ([^;\r]*)", head_came, re.MULTILINE)
    return Answer(int(came.split(b" ", 2)[1]), kind[1].decode() if kind else "", body)


def talk(port: int, sent: bytes) -> bytes:
    """Send bytes, say no more, and return what comes back until the server hangs up."""
    came = b""
    with socket.create_connection((HERE, port), SECONDS) as line, contextlib.suppress(ConnectionError):
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        while data := line.recv(65536):
            came += data
    return came


def ask_all(server: Server, wanted: Sequence[Asked], port: int = 0) -> list[Answer]:
    """Send many requests, a few at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(asked: Asked) -> Answer:
        async with gate:
            return await ask(port or server.port, asked)

    async def every() -> list[Answer]:
        return await asyncio.gather(*map(one, wanted))

    return asyncio.run(every())


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{quote(item, safe='')}.json")["views"].values())


@contextlib.contextmanager
def going_on(server: Server) -> Iterator[None]:
    """See that, after what the block does, a good event is counted once."""
    yield
    item = unique_name()
    server.tick(b'{"id":"%b"}' % item.encode())
    assert views(server, item) == 1


SHAPES: Final = tuple(
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
OWN_SHAPES: Final = re.compile("/es(/|$)|/api/|/(sessions|events)(/|$)")


def is_in_shape(asked: Asked, answer: Answer) -> bool:
    """Tell whether an answer has the shape of the protocol that is spoken at an address."""
    if answer.status < HTTPStatus.BAD_REQUEST or asked.method == "HEAD":
        return True
    path = asked.target.partition("?")[0]
    if path.startswith("/hit") and answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return answer.kind == "text/plain"
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return False
    if "detail" in found and (answer.status == HTTPStatus.METHOD_NOT_ALLOWED or not OWN_SHAPES.match(path)):
        return bool(found["status"] == answer.status and answer.kind == "application/problem+json")
    return any(shape.match(path) and keys <= found.keys() for shape, keys in SHAPES)


def check(asked: Sequence[Asked], answers: Sequence[Answer]) -> None:
    wrong = [
        (one.method, one.target[:80], one.body[:80], one.headers[:1], answer.status, answer.body[:200])
        for one, answer in zip(asked, answers, strict=True)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or not is_in_shape(one, answer)
    ]
    assert not wrong, (len(wrong), wrong[:10])


def routes() -> list[tuple[str, str]]:
    """List the addresses that the documentation lists."""
    found = []
    for cell in sorted(first_cells(section("docs/operations.md", "Routes"))):
        method, path = cell.split(" ", 1)
        found.append(("GET" if method == "*" else method, re.sub(r"\{\w+\}", "x", path)))
    assert len(found) > 40
    return [*found, ("POST", "/es/_bulk"), ("PUT", "/es/x/_bulk"), ("POST", "/es/x/_doc"), ("PUT", "/es/x/_create/1")]
