"""Syslog of a real server over TCP and UDP."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry

from metronome.auth.authorizer import Authorizer
from metronome.auth.key_cache import KeyCache
from metronome.config import read_settings
from metronome.protocols.syslog.listener import FRAME_MAX_BYTES, SyslogConnections, run_syslog_listener
from metronome.scopes import Scope
from metronome.server.bootstrap import build_ingest_context
from metronome.spool import SpoolReader, SpoolWriter
from metronome.state.sqlite import SQLiteState
from metronome.telemetry import Telemetry
from metronome.web.handlers import IngestContext
from tests.installations import create_key, read_stored_documents
from tests.servers import Server, free_port, run_metronome, running_server, unique_name

HOST: Final = "127.0.0.1"
SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02


def until(
    condition: Callable[[], bool], message: Callable[[], object] = lambda: "the condition was never true"
) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def running_listener(data: Path, **settings: object) -> Iterator[Server]:
    """Run a server that listens for syslog in each of its processes."""
    with running_server(data, syslog_port=free_port(), **settings) as running:
        workers = int(str(settings.get("workers", 1)))
        until(lambda: running.log.count("syslog+udp://") == workers, lambda: running.log)
        yield running


@pytest.fixture(scope="module", params=[1, 2], ids=["single", "crew"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_listener(tmp_path_factory.mktemp("syslog") / f"of{request.param}", workers=request.param) as running:
        yield running


def connect(server: Server) -> socket.socket:
    return socket.create_connection((HOST, int(str(server.settings["syslog_port"]))), SECONDS)


def send_datagrams(server: Server, *messages: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        for message in messages:
            connection.sendto(message, (HOST, int(str(server.settings["syslog_port"]))))


def send(server: Server, sent: bytes) -> None:
    """Send over a new connection, and wait until the server has read everything and closed it."""
    with connect(server) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json")["views"].values())


def object_of(item: str) -> bytes:
    return b'<14>1 - h app - - - {"id":"%b","event":"view"}' % item.encode()


def test_accepts_both_ways_of_framing_over_tcp(server: Server) -> None:
    item = unique_name()
    message = object_of(item)
    counted = b"%d %b" % (len(message), message)
    send(server, message + b"\n" + counted + counted + message + b"\0" + counted + b"\n" + message)
    assert views(server, item) == 6


@pytest.mark.crew
def test_accepts_datagrams(server: Server) -> None:
    item = unique_name()
    before = server.accepted_events()
    send_datagrams(server, object_of(item), object_of(item) + b"\n", b"\n", b"", object_of(item) + b"\0")
    until(lambda: server.accepted_events() == before + 3)
    assert views(server, item) == 3


def test_accepts_a_message_byte_by_byte(server: Server) -> None:
    item = unique_name()
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(object_of(item))):
            connection.sendall(object_of(item)[at : at + 1])
        connection.sendall(b"\n")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert views(server, item) == 1


def test_closes_the_connection_of_an_oversized_message_after_the_complete_ones(server: Server) -> None:
    item = unique_name()
    with connect(server) as connection:
        connection.sendall(object_of(item) + b"\n%d <13>" % (FRAME_MAX_BYTES + 1))
        assert connection.recv(1) == b""
    assert views(server, item) == 1


def test_a_line_that_is_too_long_does_not_end_the_connection(server: Server) -> None:
    item = unique_name()
    send(server, b"<13>" + b"x" * (3 * FRAME_MAX_BYTES) + b"\n" + object_of(item) + b"\n")
    assert views(server, item) == 1


def test_other_bytes_do_not_end_the_connection(server: Server) -> None:
    item = unique_name()
    send(server, bytes(range(256)) * 50 + b"\n" + object_of(item) + b"\n")
    send(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert views(server, item) == 1


def test_stores_complete_messages_of_an_aborted_connection(server: Server) -> None:
    item = unique_name()
    before = server.accepted_events()
    connection = connect(server)
    connection.sendall(object_of(item) + b"\n100 <13>half")
    until(lambda: server.accepted_events() == before + 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    assert views(server, item) == 1


def stable_fields(document: dict[str, Any]) -> dict[str, Any]:
    changing = {"@timestamp", "event_id", "@version", "visitor", "session", "enrich_version"}
    return {name: value for name, value in document.items() if name not in changing}


@pytest.mark.slow
@pytest.mark.clock
def test_stores_hits_objects_and_logs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    hit = b'<190>Jan 22 09:30:00 web1 nginx: 192.0.2.77 - - [22/Jan/2015:09:30:00 +0000] "GET /a" 200 6 "-" "curl/8"'
    with running_listener(data, tick_max_age="7d") as running:
        # The server is unrestricted, and so accepts events of any age.
        send(running, hit + b"\n")
        send(running, b'<14>1 2015-01-22T09:30:01Z app1 app - - - @cee: {"event":"signup","plan":"large"}\n')
        send(running, b"<38>1 2015-01-22T09:30:02Z web1 sshd 812 - - Accepted publickey for ops\n")
        send(running, b"<38>1 2015-01-22T09:30:03Z - - - - - unnamed\n")
        running.wait_until_shipped()
    assert [stable_fields(document) for document in read_stored_documents(data)] == [
        {
            "event": "view",
            "id": "/a",
            "url": "/a",
            "method": "GET",
            "status": 200,
            "bytes": 6,
            "agent": "curl/8",
            "clientip": "192.0.2.0",
            "host": "web1",
            "program": "nginx",
            "facility": "local7",
            "severity": "info",
            "browser": "curl",
            "browser_version": "8",
            "device": "script",
            "channel": "direct",
        },
        {
            "event": "signup",
            "plan": "large",
            "host": "app1",
            "program": "app",
            "facility": "user",
            "severity": "info",
        },
        {
            "event": "log",
            "message": "Accepted publickey for ops",
            "host": "web1",
            "program": "sshd",
            "procid": "812",
            "facility": "auth",
            "severity": "info",
        },
        {"event": "log", "message": "unnamed", "host": HOST, "facility": "auth", "severity": "info"},
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_loses_no_complete_message(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    half = b"<13>1 - h app - - - half a mess"
    with running_listener(data, workers=workers) as running:
        connections = [connect(running) for _ in range(4)]
        for number, connection in enumerate(connections):
            connection.sendall(b"".join(b"<13>1 - h app %d - - %d\n" % (number, at) for at in range(3000)) + half)
        running.stop()
        for connection in connections:
            connection.close()
        running.start()
        until(lambda: running.log.count("syslog+udp://") == 2 * workers)
        send(running, b"".join(b"<13>1 - h app 0 - - %d\n" % at for at in range(3000, 4000)))
        running.wait_until_shipped()
    stored = [(document["procid"], document["message"]) for document in read_stored_documents(data)]
    sent = [(str(number), str(at)) for number in range(4) for at in range(4000 if number == 0 else 3000)]
    assert sorted(stored) == sorted(sent)


@pytest.mark.parametrize("workers", [1, 2])
def test_does_not_start_if_sending_needs_a_key(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    create_key(data, "any", Scope.TICK)
    result = run_metronome(
        "serve", data=data, port=free_port(), syslog_port=free_port(), public="tock", workers=workers
    )
    assert result.exit_code == 2
    assert "METRONOME_SYSLOG_PORT is set, but METRONOME_PUBLIC does not allow sending without a key" in result.stderr


def test_starts_if_sending_needs_a_key_but_there_is_none(tmp_path: Path) -> None:
    with running_listener(tmp_path / "data", public="none") as running:
        send(running, b"<13>hello\n")
        assert running.accepted_events() == 1


@pytest.mark.parametrize(("workers", "kind"), [(1, socket.SOCK_STREAM), (2, socket.SOCK_DGRAM)])
def test_does_not_start_if_the_port_is_in_use(tmp_path: Path, workers: int, kind: socket.SocketKind) -> None:
    with socket.socket(type=kind) as other:
        other.bind((HOST, 0))
        used_port = other.getsockname()[1]
        result = run_metronome(
            "serve", data=tmp_path / "data", port=free_port(), syslog_port=used_port, workers=workers, host=HOST
        )
    assert result.exit_code == 2
    assert "already in use" in result.stderr
    if workers == 1:
        assert f"port {used_port} of {HOST} is already in use; stop the process that uses it" in result.stderr
        assert "choose another port with METRONOME_SYSLOG_PORT" in result.stderr


class Context:
    """The context of a listener in this process, with a spool that is not shipped."""

    def __init__(self, data: Path, **settings: object) -> None:
        data.mkdir()
        self.port = free_port()
        self.registry = CollectorRegistry()
        self.key_cache = KeyCache(SQLiteState(data))
        self.spool = SpoolWriter(data / "spool", int(str(settings.pop("spool_max_bytes", 2**30))))
        self.reader = SpoolReader(data / "spool")
        authorizer = Authorizer(self.key_cache, frozenset(), time.time, on_loopback=True)
        self.ingest: IngestContext = build_ingest_context(
            read_settings({"data": data}), self.spool, authorizer, Telemetry(self.registry)
        )

    def rejected_count(self, reason: str) -> float:
        return self.registry.get_sample_value("metronome_refused_total", {"reason": reason}) or 0.0

    def take(self) -> list[bytes]:
        """Remove and return the documents in the spool."""
        chunk = self.reader.read_chunk(0, 2**30)
        if chunk is None:
            return []
        self.reader.acknowledge(chunk.last_seq)
        return chunk.batch.documents()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def until_async(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, condition)


@contextlib.asynccontextmanager
async def opened(data: Path, **settings: object) -> AsyncIterator[Context]:
    context = Context(data, **settings)
    await context.key_cache.refresh()
    try:
        yield context
    finally:
        await context.spool.close()
        context.reader.close()


@pytest.mark.slow
async def test_a_connection_waits_while_the_spool_is_full(tmp_path: Path) -> None:
    async with (
        opened(tmp_path / "data", spool_max_bytes=200_000) as context,
        run_syslog_listener(context.ingest, HOST, context.port),
        context.connected() as (reader, writer),
    ):
        writer.write(b"".join(b"<13>1 - h app - - - %d %b\n" % (at, b"x" * 1000) for at in range(400)))
        writer.write_eof()
        await until_async(lambda: context.rejected_count("SpoolFull") > 0)
        documents: list[bytes] = []
        async with asyncio.timeout(SECONDS):
            while not reader.at_eof():
                documents += context.take()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), POLL_SECONDS)
        documents += context.take()
    assert len(documents) == 400
    assert [b'"message":"%d x' % at in document for at, document in enumerate(documents)] == [True] * 400


async def test_rejects_datagrams_while_the_spool_is_full(tmp_path: Path) -> None:
    async with (
        opened(tmp_path / "data", spool_max_bytes=1) as context,
        run_syslog_listener(context.ingest, HOST, context.port),
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
            for _ in range(5):
                connection.sendto(b"<13>hello", (HOST, context.port))
        await until_async(lambda: context.rejected_count("SpoolFull") == 5)
        assert context.take() == []


async def test_logs_the_messages_that_are_lost_at_shutdown_with_a_full_spool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        opened(tmp_path / "data", spool_max_bytes=1) as context,
        run_syslog_listener(context.ingest, HOST, context.port),
        context.connected() as (_, writer),
    ):
        writer.write(b"<13>one\n<13>two\n")
        await until_async(lambda: context.rejected_count("SpoolFull") > 0)
    assert "syslog_lost" in "".join(capsys.readouterr())


async def test_stores_the_last_line_of_an_idle_connection_and_closes_it(tmp_path: Path) -> None:
    async with (
        opened(tmp_path / "data") as context,
        run_syslog_listener(context.ingest, HOST, context.port, idle_timeout_seconds=0.05),
        context.connected() as (reader, writer),
    ):
        writer.write(b"<13>hello")
        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        assert len(context.take()) == 1


async def test_idle_connections_over_the_limit_make_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(tmp_path / "data") as context:
        connections = SyslogConnections(context.ingest, max_connections=3)
        server = await asyncio.start_server(connections.serve, HOST, context.port)
        async with contextlib.AsyncExitStack() as stack:
            _, single = await stack.enter_async_context(context.connected())
            single.write(b"<13>one\n")
            await until_async(lambda: context.reader.pending_stats().events == 1)
            # Of the address that has the most connections, the one that is idle for longest is closed.
            others = []
            for _ in range(4):
                others.append(await asyncio.open_connection(HOST, context.port, local_addr=("127.0.0.2", 0)))
                stack.callback(others[-1][1].close)
                if len(others) == 1:
                    others[0][1].write(b"<13>incomplete")
            assert await asyncio.wait_for(others[0][0].read(), SECONDS) == b""
            others[-1][1].write(b"<13>last\n")
            single.write(b"<13>two\n")
            await until_async(lambda: context.reader.pending_stats().events == 4)
            assert context.rejected_count("Unavailable") == 2
        await connections.stop(server)
    (line,) = [line for line in "".join(capsys.readouterr()).splitlines() if "syslog_connections_full" in line]
    assert "127.0.0.2" in line


async def test_rejects_connections_over_the_limit_if_none_is_idle(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as context:
        connections = SyslogConnections(context.ingest, max_connections=0)
        server = await asyncio.start_server(connections.serve, HOST, context.port)
        async with context.connected() as (reader, _):
            assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        assert context.rejected_count("Unavailable") == 1
        await connections.stop(server)


async def test_closes_the_connection_once_sending_needs_a_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with (
        opened(data) as context,
        run_syslog_listener(context.ingest, HOST, context.port),
        context.connected() as (reader, writer),
    ):
        writer.write(b"<13>one\n")
        await until_async(lambda: context.reader.pending_stats().events == 1)
        await asyncio.to_thread(create_key, data, "first", Scope.TICK)
        await context.key_cache.refresh()
        writer.write(b"<13>two\n")
        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        assert context.reader.pending_stats().events == 1
        assert context.rejected_count("Unauthorized") == 1
