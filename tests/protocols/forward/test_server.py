"""The forward protocol of a real server: sockets, acknowledgements, handshakes, TLS, workers, crashes."""

import contextlib
import gzip
import hashlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import pytest
import trustme
from msgpack import ExtType, Unpacker, packb

from metronome.scopes import Scope
from tests.installations import create_key, read_stored_documents
from tests.servers import Server, free_port, run_metronome, running_server

HOST: Final = "127.0.0.1"
KEY: Final = "geheim"
USERS: Final = {"alice": "secret", "bob": "pass:word"}
SECONDS: Final = 20.0
OLD: Final = 1421919000


class Client:
    """A client of the forward protocol that sends any frames."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        connection = _connect(port)
        self.socket = context.wrap_socket(connection, server_hostname="localhost") if context else connection
        self._unpacker = Unpacker(raw=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: object) -> None:
        self.socket.sendall(b"".join(frame if isinstance(frame, bytes) else packb(frame) for frame in frames))

    def read(self, count: int) -> list[Any]:
        """Return *count* frames from the server, or fewer if it closes the connection."""
        frames: list[Any] = []
        while True:
            for frame in self._unpacker:
                frames.append(frame)
                if len(frames) == count:
                    return frames
            data = self._receive()
            if not data:
                return frames
            self._unpacker.feed(data)

    def is_closed(self) -> bool:
        """Wait for the next frame or the end of the connection, and return whether it ended."""
        return self.read(1) == []

    def acks(self, *chunks: str) -> bool:
        return self.read(len(chunks)) == [{b"ack": chunk.encode()} for chunk in chunks]

    def shake(self, key: str = KEY, user: str = "", word: str = "") -> list[Any]:
        """Perform the handshake and return the PONG."""
        ((_, options),) = self.read(1)
        salt, host = b"\x00\xffsalt", b"client"
        proof = _digest(options[b"auth"], user.encode(), word.encode()) if user else ""
        self.send(["PING", host, salt, _digest(salt, host, options[b"nonce"], key.encode()), user, proof])
        (pong,) = self.read(1)
        if pong[1]:
            assert pong[4].decode() == _digest(salt, pong[3], options[b"nonce"], key.encode())
        return list(pong)

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""


def _connect(port: int) -> socket.socket:
    # Workers listen on this port a little later than on the server's HTTP port.
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return socket.create_connection((HOST, port), timeout=SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _digest(*contents: bytes) -> str:
    return hashlib.sha512(b"".join(contents)).hexdigest()


def now(item: str, count: int = 1, **more: object) -> bytes:
    """Return packed entries: views of an item at the current time."""
    now_ns = time.time_ns()
    event_time = ExtType(0, (now_ns // 10**9).to_bytes(4, "big") + (now_ns % 10**9).to_bytes(4, "big"))
    return b"".join(packb([event_time, {"id": item, "event": "view", "n": n, **more}]) for n in range(count))


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    views_by_day: Mapping[str, int] = server.get(f"/tock/{item}.json")["views"]
    return sum(views_by_day.values())


def rejected_count(server: Server, reason: str) -> int:
    with socket.create_connection((HOST, server.port), timeout=SECONDS) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        lines = b"".join(iter(lambda: connection.recv(65536), b"")).decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if f'reason="{reason}"' in line)


def port_of(server: Server) -> int:
    return int(str(server.settings["forward_port"]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("forward") / "open"
    # As soon as there is a key, anonymous clients lose the scope import, and may not send old events.
    create_key(folder, "someone", Scope.ADMIN)
    limits = {"batch_max_events": 100, "body_max_bytes": 2**20}
    with running_server(folder, forward_port=free_port(), public="tick,tock,query", **limits) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    users = ",".join(f"{name}:{word}" for name, word in USERS.items())
    settings = {"forward_shared_key": KEY, "forward_users": users, "public": "query"}
    folder = tmp_path_factory.mktemp("forward") / "guarded"
    create_key(folder, "someone", Scope.ADMIN)
    with running_server(folder, forward_port=free_port(), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("forward") / "crew", forward_port=free_port(), workers=2) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(port_of(server)) as connected:
        yield connected


@pytest.mark.crew
def test_counts_and_acknowledges_all_four_modes(either: Server, item: str) -> None:
    with Client(port_of(either)) as client:
        entries = now(item, 3)
        client.send(["t", int(time.time()), {"id": item, "event": "view"}, {"chunk": "message"}])
        client.send(["t", [[int(time.time()), {"id": item}], [time.time(), {"id": item}]], {"chunk": "forward"}])
        client.send(["t", entries, {"chunk": "packed"}])
        client.send(packb(["t", entries, {"chunk": "text", "compressed": "text"}], use_bin_type=False))
        client.send(["t", gzip.compress(entries), {"chunk": "gzip", "compressed": "gzip"}])
        client.send(["t", [], {"chunk": "none"}])
        assert client.acks("message", "forward", "packed", "text", "gzip", "none")
    assert views(either, item) == 12


@pytest.mark.slow
@pytest.mark.clock
def test_the_tag_is_the_type_and_an_access_log_line_is_a_hit(tmp_path: Path) -> None:
    line = '203.0.113.9 - - [{}] "GET /items/7 HTTP/1.1" 200 5 "https://www.example.org/" "curl/8"'
    stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    with running_server(tmp_path / "data", forward_port=free_port()) as running, Client(port_of(running)) as client:
        client.send(["docker.web", int(time.time()), {"log": line.format(stamp), "stream": "stdout"}, {"chunk": "c"}])
        assert client.acks("c")
        assert views(running, "%2Fitems%2F7") == 1
    (document,) = read_stored_documents(running.data)
    assert (document["type"], document["clientip"], document["referer"]) == ("docker.web", "203.0.113.0", "example.org")


def test_acknowledges_pipelined_chunks_in_order(either: Server, item: str) -> None:
    chunks = [f"chunk {number}" for number in range(60)]
    # Some are split into parts and some decompressed in a thread.
    with Client(port_of(either)) as client:
        frames: list[object] = []
        for number, chunk in enumerate(chunks):
            entries = now(item, 1 if number % 7 else 250)
            packed = gzip.compress(entries) if number % 3 == 0 else entries
            frames.append(["t", packed, {"chunk": chunk, **({"compressed": "gzip"} if number % 3 == 0 else {})}])
            frames += [["t", int(time.time()), {"id": item}], None]
        client.send(*frames)
        assert client.acks(*chunks)
    assert views(either, item) == sum(1 if number % 7 else 250 for number in range(60)) + 60


def test_counts_messages_without_a_chunk_id_after_the_client_has_left(server: Server, item: str) -> None:
    with Client(port_of(server)) as client:
        client.send(*[["t", int(time.time()), {"id": item}] for _ in range(300)])
    deadline = time.monotonic() + SECONDS
    while views(server, item) < 300:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert views(server, item) == 300


def test_a_client_may_close_its_side_and_still_receive_acknowledgements(
    client: Client, server: Server, item: str
) -> None:
    client.send(["t", now(item, 90), {"chunk": "last"}])
    client.socket.shutdown(socket.SHUT_WR)
    assert client.acks("last")
    assert client.is_closed()
    assert views(server, item) == 90


def test_stores_a_chunk_with_more_events_than_a_batch_in_parts(client: Client, server: Server, item: str) -> None:
    frame = ["t", now(item, 1050), {"chunk": item}]
    client.send(frame)
    assert client.acks(item)
    assert views(server, item) == 1050
    client.send(frame)
    assert client.acks(item)
    assert views(server, item) == 1050


def test_counts_a_resent_chunk_once_however_it_is_compressed(client: Client, server: Server, item: str) -> None:
    entries = now(item, 50)
    client.send(["t", entries, {"chunk": item}])
    for level in (1, 9):
        client.send(["t", gzip.compress(entries, level, mtime=level), {"chunk": item, "compressed": "gzip"}])
    assert client.acks(item, item, item)
    assert views(server, item) == 50
    # Other entries under the same chunk ID are counted.
    client.send(["t", now(item, 50), {"chunk": item}])
    assert client.acks(item)
    assert views(server, item) == 100


def test_acknowledges_a_chunk_of_rejected_entries_so_that_it_is_not_resent(
    client: Client, server: Server, item: str
) -> None:
    before = rejected_count(server, "Malformed")
    client.send(["t", [[OLD, {"id": item}], ["yesterday", {"id": item}], 7], {"chunk": "old"}])
    assert client.acks("old")
    assert rejected_count(server, "Malformed") == before + 3
    assert "forward_refused" in server.log
    assert views(server, item) == 0


def test_an_invalid_entry_does_not_affect_the_others(client: Client, server: Server, item: str) -> None:
    client.send(["t", now(item) + packb("bad") + now(item) + b"\xc1", {"chunk": "c"}])
    assert client.acks("c")
    assert views(server, item) == 2


def test_an_invalid_frame_is_not_acknowledged_and_the_connection_stays_open(
    client: Client, server: Server, item: str
) -> None:
    before = rejected_count(server, "Malformed")
    client.send(
        ["t"],
        7,
        {"tag": "t"},
        ["t", {}, {}, {"chunk": "a"}],
        ["t", now(item), {"chunk": "good"}],
    )
    assert client.acks("good")
    assert rejected_count(server, "Malformed") == before + 4
    assert views(server, item) == 1


@pytest.mark.parametrize(
    "options", [{"compressed": "gzip"}, {"compressed": "lz4"}], ids=lambda options: options["compressed"]
)
def test_closes_the_connection_after_entries_that_cannot_be_decompressed(
    client: Client, server: Server, item: str, options: dict[str, str]
) -> None:
    before = rejected_count(server, "Malformed")
    client.send(["t", now(item), {"chunk": "good"}], ["t", b"no gzip", {"chunk": "bad"} | options])
    assert client.acks("good")
    assert client.is_closed()
    assert rejected_count(server, "Malformed") == before + 1
    assert views(server, item) == 1


@pytest.mark.parametrize(
    "garbage", [b"\xc1", b"GET / HTTP/1.1\r\nHost: metronome\r\n" + b"A-Header: value\r\n" * 9, b"\x91" * 3000]
)
def test_closes_the_connection_of_another_protocol(client: Client, server: Server, item: str, garbage: bytes) -> None:
    client.send(["t", now(item), {"chunk": "good"}], garbage)
    assert client.acks("good")
    assert client.is_closed()
    assert views(server, item) == 1


def test_closes_the_connection_after_an_oversized_frame_in_bounded_memory(
    client: Client, server: Server, item: str
) -> None:
    memory = server.peak_memory()
    client.send(["t", now(item), {"chunk": "good"}])
    with contextlib.suppress(ConnectionError):
        # The header announces 4 GB.
        client.send(b"\x92\xa1t\xc6\xff\xff\xff\xff" + bytes(2**20))
    assert client.acks("good")
    assert client.is_closed()
    assert views(server, item) == 1
    assert server.peak_memory() < memory + 64 * 2**20


def test_does_not_decompress_entries_beyond_the_limit(client: Client, server: Server) -> None:
    before, memory = rejected_count(server, "PayloadTooLarge"), server.peak_memory()
    client.send(["t", [], {"chunk": "good"}])
    assert client.acks("good")
    client.send(["t", gzip.compress(bytes(256 * 2**20), 9), {"chunk": "bomb", "compressed": "gzip"}])
    assert client.is_closed()
    assert rejected_count(server, "PayloadTooLarge") == before + 1
    assert server.peak_memory() < memory + 64 * 2**20


def test_answers_heartbeats_over_udp_and_accepts_them_over_tcp(either: Server, item: str) -> None:
    Client(port_of(either)).socket.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as old:
        old.settimeout(SECONDS)
        old.connect((HOST, port_of(either)))
        old.send(b"\0")
        assert old.recv(16) == b"\0"
    with Client(port_of(either)) as client:
        client.send(None, ["", []], None, ["t", now(item), {"chunk": "c"}])
        assert client.acks("c")


@pytest.mark.slow
@pytest.mark.parametrize(("user", "word"), USERS.items())
def test_authenticated_clients_may_send_any_time(guarded: Server, item: str, user: str, word: str) -> None:
    with Client(port_of(guarded)) as client:
        assert client.shake(user=user, word=word)[:4] == [b"PONG", True, b"", b"metronome"]
        client.send(["t", OLD, {"id": item, "event": "view"}, {"chunk": "c"}])
        client.send(["t", gzip.compress(now(item, 999)), {"chunk": "d", "compressed": "gzip"}])
        assert client.acks("c", "d")
    guarded.wait_until_shipped()
    with serving_of(guarded) as documents:
        assert sum(document.get("id") == item for document in documents) == 1000


@contextlib.contextmanager
def serving_of(server: Server) -> Iterator[list[dict[str, Any]]]:
    """Stop a server and return the documents in its store; start it again at the end."""
    server.stop()
    try:
        yield read_stored_documents(server.data)
    finally:
        server.start()


@pytest.mark.parametrize(
    ("key", "user", "word", "reason"),
    [
        ("wrong", "alice", "secret", b"shared_key mismatch"),
        (KEY, "", "", b"username/password mismatch"),
        (KEY, "alice", "pass:word", b"username/password mismatch"),
        (KEY, "carol", "secret", b"username/password mismatch"),
    ],
)
def test_rejects_invalid_credentials_with_a_reason(
    guarded: Server, item: str, key: str, user: str, word: str, reason: bytes
) -> None:
    before = guarded.accepted_events()
    with Client(port_of(guarded)) as client:
        assert client.shake(key, user, word) == [b"PONG", False, reason, b"", b""]
        with contextlib.suppress(ConnectionError):
            client.send(["t", now(item), {"chunk": "c"}])
        assert client.is_closed()
    assert guarded.accepted_events() == before


@pytest.mark.parametrize(
    "first",
    [
        packb(["t", now("never"), {"chunk": "c"}]),
        packb(["PING", "host", "salt", "digest", "alice", "secret"]),
        b"\xc1",
        packb(["t", bytes(20_000)]),
    ],
)
def test_accepts_no_events_before_the_handshake(guarded: Server, first: bytes) -> None:
    before = guarded.accepted_events()
    with Client(port_of(guarded)) as client:
        (helo,) = client.read(1)
        assert helo[0] == b"HELO"
        client.send(first)
        assert not [frame for frame in client.read(2) if frame[:2] != [b"PONG", False]]
        assert client.is_closed()
    assert guarded.accepted_events() == before


@pytest.mark.slow
def test_accepts_events_over_tls(tmp_path: Path, item: str) -> None:
    authority = trustme.CA()
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    issued = authority.issue_cert("localhost")
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    settings = {"forward_certificate": certificate, "forward_certificate_key": key, "forward_shared_key": KEY}
    with running_server(tmp_path / "data", forward_port=free_port(), **settings) as running:
        with Client(port_of(running)) as plain:
            plain.send(["t", now(item), {"chunk": "plain"}])
            assert plain.is_closed()
        with Client(port_of(running), context) as client:
            assert client.shake()[1] is True
            client.send(["t", now(item, 5000), {"chunk": "c"}])
            assert client.acks("c")
        assert views(running, item) == 5000
        with pytest.raises(ssl.SSLError):
            Client(port_of(running), ssl.create_default_context())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_acknowledged_events_survive_a_kill_and_are_counted_once(tmp_path: Path, item: str, workers: int) -> None:
    frames = {f"{item} {number}": now(item, 40) for number in range(30)}
    with Server(tmp_path / "data", forward_port=free_port(), workers=workers) as server:
        acks: list[Any] = []
        for count in (1, 20):
            server.start()
            with Client(port_of(server)) as client:
                client.send(*[["t", entries, {"chunk": chunk}] for chunk, entries in frames.items()])
                acks = client.read(count)
            server.kill()
            assert acks == [{b"ack": chunk.encode()} for chunk in list(frames)[:count]]
        server.start()
        assert len(acks) * 40 <= views(server, item) <= 1200
        with Client(port_of(server)) as client:
            client.send(*[["t", entries, {"chunk": chunk}] for chunk, entries in frames.items()])
            assert client.acks(*frames)
        assert views(server, item) == 1200
        assert server.stop() == 0
        assert server.error_lines() == []


@pytest.mark.slow
def test_stores_received_events_at_shutdown_and_closes(tmp_path: Path, item: str) -> None:
    with running_server(tmp_path / "data", forward_port=free_port()) as running:
        with Client(port_of(running)) as idle, Client(port_of(running)) as half, Client(port_of(running)) as client:
            half.send(b"\x93\xa1t\xc6\x00\x00\x10\x00")
            client.send(["t", now(item, 3000), {"chunk": "c"}])
            assert client.acks("c")
            assert running.stop() == 0
            assert idle.is_closed()
            assert half.is_closed()
            assert client.is_closed()
        running.start()
        assert views(running, item) == 3000


@pytest.mark.slow
def test_a_full_spool_acknowledges_nothing(tmp_path: Path, item: str) -> None:
    settings = {"store": f"http://{HOST}:{free_port()}", "forward_port": free_port(), "stop_seconds": 1}
    frame = ["t", now(item, 200, text="x" * 100), {"chunk": "c"}]
    with (
        running_server(tmp_path / "data", spool_max_bytes=20_000, **settings) as running,
        Client(port_of(running)) as client,
    ):
        client.send(frame, ["t", now(item), {"chunk": "d"}], ["t", now(item, 200, text="x" * 100)])
        deadline = time.monotonic() + SECONDS
        while "SpoolFull" not in running.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert running.stop() == 0
        assert client.is_closed()
    with running_server(tmp_path / "data", **settings) as running, Client(port_of(running)) as client:
        client.send(frame)
        assert client.acks("c")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"forward_users": "alice:secret"}, "METRONOME_FORWARD_SHARED_KEY"),
        ({"public": "none", "host": "0.0.0.0"}, "METRONOME_FORWARD_SHARED_KEY"),  # noqa: S104  # it never listens
        ({"forward_certificate": "nowhere.pem"}, "METRONOME_FORWARD_CERTIFICATE"),
        ({"forward_certificate_key": "nowhere.pem"}, "METRONOME_FORWARD_CERTIFICATE"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_contradictory_settings_stop_the_start(
    tmp_path: Path, settings: dict[str, object], setting: str, workers: int
) -> None:
    all_settings: dict[str, Any] = {
        "data": tmp_path / "data",
        "port": free_port(),
        "forward_port": free_port(),
        **settings,
    }
    result = run_metronome("serve", workers=workers, timeout=SECONDS, **all_settings)
    assert result.exit_code == 2
    assert setting in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
