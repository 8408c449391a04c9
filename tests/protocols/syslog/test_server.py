"""Syslog of a real server over real sockets: nothing that is whole is lost over TCP, and UDP is told apart."""

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

HERE: Final = "127.0.0.1"
SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.02


def until(holds: Callable[[], bool], said: Callable[[], object] = lambda: "it did not come to hold") -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, said()
        time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def listening(data: Path, **settings: object) -> Iterator[Server]:
    """Have a server run that listens for syslog in each of its processes."""
    with running_server(data, syslog_port=free_port(), **settings) as running:
        workers = int(str(settings.get("workers", 1)))
        until(lambda: running.log.count("syslog+udp://") == workers, lambda: running.log)
        yield running


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "crew"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with listening(tmp_path_factory.mktemp("syslog") / f"of{request.param}", workers=request.param) as running:
        yield running


def connect(server: Server) -> socket.socket:
    return socket.create_connection((HERE, int(str(server.settings["syslog_port"]))), SECONDS)


def send_datagrams(server: Server, *messages: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for message in messages:
            line.sendto(message, (HERE, int(str(server.settings["syslog_port"]))))


def send(server: Server, sent: bytes) -> None:
    """Send over a connection of its own, and wait until the server has read it all and hung up."""
    with connect(server) as line:
        line.sendall(sent)
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json")["views"].values())


def object_of(item: str) -> bytes:
    return b'<14>1 - h app - - - {"id":"%b","event":"view"}' % item.encode()


def test_both_ways_of_framing_may_be_mixed_over_tcp(server: Server) -> None:
    item = unique_name()
    message = object_of(item)
    counted = b"%d %b" % (len(message), message)
    send(server, message + b"\n" + counted + counted + message + b"\0" + counted + b"\n" + message)
    assert views(server, item) == 6


def test_a_datagram_is_a_message(server: Server) -> None:
    item = unique_name()
    before = server.accepted_events()
    send_datagrams(server, object_of(item), object_of(item) + b"\n", b"\n", b"", object_of(item) + b"\0")
    until(lambda: server.accepted_events() == before + 3)
    assert views(server, item) == 3


def test_a_message_may_come_in_any_pieces(server: Server) -> None:
    item = unique_name()
    with connect(server) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(object_of(item))):
            line.sendall(object_of(item)[at : at + 1])
        line.sendall(b"\n")
        line.shutdown(socket.SHUT_WR)
        assert line.recv(1) == b""
    assert views(server, item) == 1


def test_a_promise_of_too_much_ends_the_connection_and_what_was_whole_is_kept(server: Server) -> None:
    item = unique_name()
    with connect(server) as line:
        line.sendall(object_of(item) + b"\n%d <13>" % (FRAME_MAX_BYTES + 1))
        assert line.recv(1) == b""
    assert views(server, item) == 1


def test_a_line_that_is_too_long_ends_nothing(server: Server) -> None:
    item = unique_name()
    send(server, b"<13>" + b"x" * (3 * FRAME_MAX_BYTES) + b"\n" + object_of(item) + b"\n")
    assert views(server, item) == 1


def test_what_is_no_syslog_at_all_ends_nothing(server: Server) -> None:
    item = unique_name()
    send(server, bytes(range(256)) * 50 + b"\n" + object_of(item) + b"\n")
    send(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert views(server, item) == 1


def test_a_sender_that_breaks_off_takes_nothing_with_it(server: Server) -> None:
    item = unique_name()
    before = server.accepted_events()
    line = connect(server)
    line.sendall(object_of(item) + b"\n100 <13>half")
    until(lambda: server.accepted_events() == before + 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    line.close()
    assert views(server, item) == 1


def plain(found: dict[str, Any]) -> dict[str, Any]:
    changing = {"@timestamp", "event_id", "@version", "visitor", "session", "enrich_version"}
    return {name: value for name, value in found.items() if name not in changing}


@pytest.mark.clock
def test_hits_objects_and_logs_are_stored_as_what_they_are(tmp_path: Path) -> None:
    data = tmp_path / "data"
    hit = b'<190>Jan 22 09:30:00 web1 nginx: 192.0.2.77 - - [22/Jan/2015:09:30:00 +0000] "GET /a" 200 6 "-" "curl/8"'
    with listening(data, tick_max_age="7d") as running:
        # The service is open, and so takes events of any age.
        send(running, hit + b"\n")
        send(running, b'<14>1 2015-01-22T09:30:01Z app1 app - - - @cee: {"event":"signup","plan":"large"}\n')
        send(running, b"<38>1 2015-01-22T09:30:02Z web1 sshd 812 - - Accepted publickey for ops\n")
        send(running, b"<38>1 2015-01-22T09:30:03Z - - - - - unnamed\n")
        running.wait_until_shipped()
    assert [plain(found) for found in read_stored_documents(data)] == [
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
        {"event": "log", "message": "unnamed", "host": HERE, "facility": "auth", "severity": "info"},
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_in_the_middle_loses_nothing_that_was_whole(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    half = b"<13>1 - h app - - - half a mess"
    with listening(data, workers=workers) as running:
        lines = [connect(running) for _ in range(4)]
        for number, line in enumerate(lines):
            line.sendall(b"".join(b"<13>1 - h app %d - - %d\n" % (number, at) for at in range(3000)) + half)
        running.stop()
        for line in lines:
            line.close()
        running.start()
        until(lambda: running.log.count("syslog+udp://") == 2 * workers)
        send(running, b"".join(b"<13>1 - h app 0 - - %d\n" % at for at in range(3000, 4000)))
        running.wait_until_shipped()
    found = [(document["procid"], document["message"]) for document in read_stored_documents(data)]
    sent = [(str(number), str(at)) for number in range(4) for at in range(4000 if number == 0 else 3000)]
    assert sorted(found) == sorted(sent)


@pytest.mark.parametrize("workers", [1, 2])
def test_where_nobody_may_send_without_a_key_it_does_not_start(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    create_key(data, "any", Scope.TICK)
    ended = run_metronome("serve", data=data, port=free_port(), syslog_port=free_port(), public="tock", workers=workers)
    assert ended.exit_code == 2
    assert "METRONOME_SYSLOG_PORT is set, but METRONOME_PUBLIC lets nobody send without a key" in ended.stderr


def test_where_nobody_may_send_without_a_key_but_no_key_was_made_it_starts(tmp_path: Path) -> None:
    with listening(tmp_path / "data", public="none") as running:
        send(running, b"<13>hello\n")
        assert running.accepted_events() == 1


@pytest.mark.parametrize(("workers", "kind"), [(1, socket.SOCK_STREAM), (2, socket.SOCK_DGRAM)])
def test_a_port_that_is_taken_is_said_so(tmp_path: Path, workers: int, kind: socket.SocketKind) -> None:
    with socket.socket(type=kind) as other:
        other.bind((HERE, 0))
        taken = other.getsockname()[1]
        ended = run_metronome(
            "serve", data=tmp_path / "data", port=free_port(), syslog_port=taken, workers=workers, host=HERE
        )
    assert ended.exit_code == 2
    assert "address already in use" in ended.stderr.lower()


class Place:
    """A listener in this process, with a spool that nobody ships."""

    def __init__(self, data: Path, **settings: object) -> None:
        data.mkdir()
        self.port = free_port()
        self.registry = CollectorRegistry()
        self.keyring = KeyCache(SQLiteState(data))
        self.spool = SpoolWriter(data / "spool", int(str(settings.pop("spool_max_bytes", 2**30))))
        self.outlet = SpoolReader(data / "spool")
        guard = Authorizer(self.keyring, frozenset(), time.time, on_loopback=True)
        self.doorway: IngestContext = build_ingest_context(
            read_settings({"data": data}), self.spool, guard, Telemetry(self.registry)
        )

    def refused(self, reason: str) -> float:
        return self.registry.get_sample_value("metronome_refused_total", {"reason": reason}) or 0.0

    def take(self) -> list[bytes]:
        """Take all that is in the spool out of it."""
        taken = self.outlet.read_chunk(0, 2**30)
        if taken is None:
            return []
        self.outlet.acknowledge(taken.last_seq)
        return taken.batch.documents()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(HERE, self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def until_soon(holds: Callable[[], bool]) -> None:
    await asyncio.to_thread(until, holds)


@contextlib.asynccontextmanager
async def placed(data: Path, **settings: object) -> AsyncIterator[Place]:
    place = Place(data, **settings)
    await place.keyring.refresh()
    try:
        yield place
    finally:
        await place.spool.close()
        place.outlet.close()


async def test_when_the_spool_is_full_a_connection_waits_and_loses_nothing(tmp_path: Path) -> None:
    async with (
        placed(tmp_path / "data", spool_max_bytes=200_000) as place,
        run_syslog_listener(place.doorway, HERE, place.port),
        place.connected() as (reader, writer),
    ):
        writer.write(b"".join(b"<13>1 - h app - - - %d %b\n" % (at, b"x" * 1000) for at in range(400)))
        writer.write_eof()
        await until_soon(lambda: place.refused("SpoolFull") > 0)
        found: list[bytes] = []
        async with asyncio.timeout(SECONDS):
            while not reader.at_eof():
                found += place.take()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), LOOK_SECONDS)
        found += place.take()
    assert len(found) == 400
    assert [b'"message":"%d x' % at in document for at, document in enumerate(found)] == [True] * 400


async def test_when_the_spool_is_full_datagrams_are_counted_as_refused(tmp_path: Path) -> None:
    async with (
        placed(tmp_path / "data", spool_max_bytes=1) as place,
        run_syslog_listener(place.doorway, HERE, place.port),
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            for _ in range(5):
                line.sendto(b"<13>hello", (HERE, place.port))
        await until_soon(lambda: place.refused("SpoolFull") == 5)
        assert place.take() == []


async def test_a_stop_while_the_spool_is_full_says_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        placed(tmp_path / "data", spool_max_bytes=1) as place,
        run_syslog_listener(place.doorway, HERE, place.port),
        place.connected() as (_, writer),
    ):
        writer.write(b"<13>one\n<13>two\n")
        await until_soon(lambda: place.refused("SpoolFull") > 0)
    assert "syslog_lost" in "".join(capsys.readouterr())


async def test_a_connection_that_is_silent_is_closed_and_its_line_kept(tmp_path: Path) -> None:
    async with (
        placed(tmp_path / "data") as place,
        run_syslog_listener(place.doorway, HERE, place.port, idle_timeout_seconds=0.05),
        place.connected() as (reader, writer),
    ):
        writer.write(b"<13>hello")
        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        assert len(place.take()) == 1


async def test_past_so_many_senders_the_next_is_turned_away(tmp_path: Path) -> None:
    async with placed(tmp_path / "data") as place:
        connections = SyslogConnections(place.doorway, max_connections=1)
        server = await asyncio.start_server(connections.serve, HERE, place.port)
        async with place.connected() as (_, first):
            first.write(b"<13>one\n")
            await until_soon(lambda: place.outlet.pending_stats().events == 1)
            async with place.connected() as (reader, _):
                assert await asyncio.wait_for(reader.read(), SECONDS) == b""
            assert place.refused("Unavailable") == 1
        await connections.stop(server)


async def test_once_a_key_is_needed_the_connection_is_closed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with (
        placed(data) as place,
        run_syslog_listener(place.doorway, HERE, place.port),
        place.connected() as (reader, writer),
    ):
        writer.write(b"<13>one\n")
        await until_soon(lambda: place.outlet.pending_stats().events == 1)
        await asyncio.to_thread(create_key, data, "first", Scope.TICK)
        await place.keyring.refresh()
        writer.write(b"<13>two\n")
        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        assert place.outlet.pending_stats().events == 1
        assert place.refused("Unauthorized") == 1
