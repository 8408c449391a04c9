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
    """A client of the forward protocol that does just what it is told."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        plain = _connected(port)
        self.socket = context.wrap_socket(plain, server_hostname="localhost") if context else plain
        self._unpacker = Unpacker(raw=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: object) -> None:
        self.socket.sendall(b"".join(frame if isinstance(frame, bytes) else packb(frame) for frame in frames))

    def answers(self, count: int) -> list[Any]:
        """Return so many answers; fewer if the server closes the connection."""
        found: list[Any] = []
        while True:
            for answer in self._unpacker:
                found.append(answer)
                if len(found) == count:
                    return found
            data = self._received()
            if not data:
                return found
            self._unpacker.feed(data)

    def is_closed(self) -> bool:
        """Wait until the server closes the connection; tell whether it does so without another word."""
        return self.answers(1) == []

    def acks(self, *chunks: str) -> bool:
        return self.answers(len(chunks)) == [{b"ack": chunk.encode()} for chunk in chunks]

    def shake(self, key: str = KEY, user: str = "", word: str = "") -> list[Any]:
        """Go through the handshake and return the PONG."""
        ((_, options),) = self.answers(1)
        salt, host = b"\x00\xffsalt", b"client"
        proof = _digest(options[b"auth"], user.encode(), word.encode()) if user else ""
        self.send(["PING", host, salt, _digest(salt, host, options[b"nonce"], key.encode()), user, proof])
        (pong,) = self.answers(1)
        if pong[1]:
            assert pong[4].decode() == _digest(salt, pong[3], options[b"nonce"], key.encode())
        return list(pong)

    def _received(self) -> bytes:
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""


def _connected(port: int) -> socket.socket:
    # Workers begin to listen here a little later than at the server's own port.
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
    """Return packed entries: views of an item that have just happened."""
    at = time.time_ns()
    stamp = ExtType(0, (at // 10**9).to_bytes(4, "big") + (at % 10**9).to_bytes(4, "big"))
    return b"".join(packb([stamp, {"id": item, "event": "view", "n": n, **more}]) for n in range(count))


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    found: Mapping[str, int] = server.get(f"/tock/{item}.json")["views"]
    return sum(found.values())


def refused(server: Server, reason: str) -> int:
    with socket.create_connection((HOST, server.port), timeout=SECONDS) as asking:
        asking.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        lines = b"".join(iter(lambda: asking.recv(65536), b"")).decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if f'reason="{reason}"' in line)


def port_of(server: Server) -> int:
    return int(str(server.settings["forward_port"]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("forward") / "open"
    # With a key, not everyone has every scope: nobody here may send what is too old.
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


def test_all_four_modes_are_counted_and_acknowledged(either: Server, item: str) -> None:
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


@pytest.mark.clock
def test_the_tag_is_the_type_and_a_line_of_an_access_log_is_a_hit(tmp_path: Path) -> None:
    line = '203.0.113.9 - - [{}] "GET /items/7 HTTP/1.1" 200 5 "https://www.example.org/" "curl/8"'
    stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    with running_server(tmp_path / "data", forward_port=free_port()) as running, Client(port_of(running)) as client:
        client.send(["docker.web", int(time.time()), {"log": line.format(stamp), "stream": "stdout"}, {"chunk": "c"}])
        assert client.acks("c")
        assert views(running, "%2Fitems%2F7") == 1
    (found,) = read_stored_documents(running.data)
    assert (found["type"], found["clientip"], found["referer"]) == ("docker.web", "203.0.113.0", "example.org")


def test_chunks_that_are_sent_without_waiting_are_acknowledged_in_their_order(either: Server, item: str) -> None:
    chunks = [f"chunk {number}" for number in range(60)]
    # Some are split, some compressed apart; each is answered in its turn.
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


def test_messages_without_a_chunk_are_counted_though_the_client_has_gone(server: Server, item: str) -> None:
    with Client(port_of(server)) as client:
        client.send(*[["t", int(time.time()), {"id": item}] for _ in range(300)])
    # The next connection is served after what came before.
    deadline = time.monotonic() + SECONDS
    while views(server, item) < 300:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert views(server, item) == 300


def test_a_client_may_end_its_own_side_and_still_be_answered(client: Client, server: Server, item: str) -> None:
    client.send(["t", now(item, 90), {"chunk": "last"}])
    client.socket.shutdown(socket.SHUT_WR)
    assert client.acks("last")
    assert client.is_closed()
    assert views(server, item) == 90


def test_a_chunk_of_more_events_than_a_batch_may_have_is_taken_in_parts(
    client: Client, server: Server, item: str
) -> None:
    frame = ["t", now(item, 1050), {"chunk": item}]
    client.send(frame)
    assert client.acks(item)
    assert views(server, item) == 1050
    client.send(frame)
    assert client.acks(item)
    assert views(server, item) == 1050


def test_a_chunk_that_comes_again_counts_once_however_it_is_compressed(
    client: Client, server: Server, item: str
) -> None:
    entries = now(item, 50)
    client.send(["t", entries, {"chunk": item}])
    for level in (1, 9):
        client.send(["t", gzip.compress(entries, level, mtime=level), {"chunk": item, "compressed": "gzip"}])
    assert client.acks(item, item, item)
    assert views(server, item) == 50
    # What is not the same is not taken for it, though it calls itself so.
    client.send(["t", now(item, 50), {"chunk": item}])
    assert client.acks(item)
    assert views(server, item) == 100


def test_a_chunk_that_is_refused_whole_is_acknowledged_so_that_it_does_not_come_again(
    client: Client, server: Server, item: str
) -> None:
    before = refused(server, "Malformed")
    client.send(["t", [[OLD, {"id": item}], ["yesterday", {"id": item}], 7], {"chunk": "old"}])
    assert client.acks("old")
    assert refused(server, "Malformed") == before + 3
    assert "forward_refused" in server.log
    assert views(server, item) == 0


def test_a_bad_entry_fails_no_neighbour(client: Client, server: Server, item: str) -> None:
    client.send(["t", now(item) + packb("bad") + now(item) + b"\xc1", {"chunk": "c"}])
    assert client.acks("c")
    assert views(server, item) == 2


def test_a_frame_without_sense_is_not_acknowledged_and_the_connection_goes_on(
    client: Client, server: Server, item: str
) -> None:
    before = refused(server, "Malformed")
    client.send(
        ["t"],
        7,
        {"tag": "t"},
        ["t", {}, {}, {"chunk": "a"}],
        ["t", now(item), {"chunk": "good"}],
    )
    assert client.acks("good")
    assert refused(server, "Malformed") == before + 4
    assert views(server, item) == 1


@pytest.mark.parametrize("options", [{"compressed": "gzip"}, {"compressed": "lz4"}], ids=lambda one: one["compressed"])
def test_entries_that_cannot_be_unpacked_end_the_connection_after_what_was_whole(
    client: Client, server: Server, item: str, options: dict[str, str]
) -> None:
    before = refused(server, "Malformed")
    client.send(["t", now(item), {"chunk": "good"}], ["t", b"no gzip", {"chunk": "bad"} | options])
    assert client.acks("good")
    assert client.is_closed()
    assert refused(server, "Malformed") == before + 1
    assert views(server, item) == 1


@pytest.mark.parametrize(
    "garbage", [b"\xc1", b"GET / HTTP/1.1\r\nHost: metronome\r\n" + b"A-Header: value\r\n" * 9, b"\x91" * 3000]
)
def test_what_is_another_protocol_is_closed_after_what_was_whole(
    client: Client, server: Server, item: str, garbage: bytes
) -> None:
    client.send(["t", now(item), {"chunk": "good"}], garbage)
    assert client.acks("good")
    assert client.is_closed()
    assert views(server, item) == 1


@pytest.mark.parametrize(
    "promise",
    [
        b"\x92\xa1t\xc6\xff\xff\xff\xff",
        b"\x92\xa1t\xdd\xff\xff\xff\xff",
        b"\x93\xa1t\x01\xdf\xff\xff\xff\xff",
        b"\x92\xa1t\x91\x92\x01\x81\xa1a\xdb\x7f\xff\xff\xff",
        packb(["t", bytes(2**20), {"chunk": "too large"}]),
    ],
)
def test_a_length_that_promises_too_much_is_closed_at_once(
    client: Client, server: Server, item: str, promise: bytes
) -> None:
    memory = server.peak_memory()
    client.send(["t", now(item), {"chunk": "good"}])
    with contextlib.suppress(ConnectionError):
        client.send(promise)
    assert client.acks("good")
    assert client.is_closed()
    assert views(server, item) == 1
    assert server.peak_memory() < memory + 64 * 2**20


def test_entries_that_grow_beyond_the_limit_are_not_decoded(client: Client, server: Server) -> None:
    before, memory = refused(server, "PayloadTooLarge"), server.peak_memory()
    client.send(["t", [], {"chunk": "good"}])
    assert client.acks("good")
    client.send(["t", gzip.compress(bytes(256 * 2**20), 9), {"chunk": "bomb", "compressed": "gzip"}])
    assert client.is_closed()
    assert refused(server, "PayloadTooLarge") == before + 1
    assert server.peak_memory() < memory + 64 * 2**20


def test_heartbeats_are_answered_over_udp_and_need_none_over_tcp(either: Server, item: str) -> None:
    Client(port_of(either)).socket.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as old:
        old.settimeout(SECONDS)
        old.connect((HOST, port_of(either)))
        old.send(b"\0")
        assert old.recv(16) == b"\0"
    with Client(port_of(either)) as client:
        client.send(None, ["", []], None, ["t", now(item), {"chunk": "c"}])
        assert client.acks("c")


@pytest.mark.parametrize(("user", "word"), USERS.items())
def test_who_knows_the_key_and_is_a_user_may_send_any_time(guarded: Server, item: str, user: str, word: str) -> None:
    with Client(port_of(guarded)) as client:
        assert client.shake(user=user, word=word)[:4] == [b"PONG", True, b"", b"metronome"]
        client.send(["t", OLD, {"id": item, "event": "view"}, {"chunk": "c"}])
        client.send(["t", gzip.compress(now(item, 999)), {"chunk": "d", "compressed": "gzip"}])
        assert client.acks("c", "d")
    guarded.wait_until_shipped()
    with serving_of(guarded) as documents:
        assert sum(one.get("id") == item for one in documents) == 1000


@contextlib.contextmanager
def serving_of(server: Server) -> Iterator[list[dict[str, Any]]]:
    """Look into the store of a server, which does not run meanwhile."""
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
def test_who_does_not_is_told_why_and_not_let_in(
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
        b"\x92\xa1t\xc6\x00\x01\x00\x00",
        packb(["t", bytes(20_000)]),
    ],
)
def test_nothing_is_taken_before_the_handshake(guarded: Server, first: bytes) -> None:
    before = guarded.accepted_events()
    with Client(port_of(guarded)) as client:
        (helo,) = client.answers(1)
        assert helo[0] == b"HELO"
        client.send(first)
        assert not [answer for answer in client.answers(2) if answer[:2] != [b"PONG", False]]
        assert client.is_closed()
    assert guarded.accepted_events() == before


def test_over_tls_as_over_tcp(tmp_path: Path, item: str) -> None:
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
def test_what_was_acknowledged_outlives_a_kill_and_is_not_counted_twice(
    tmp_path: Path, item: str, workers: int
) -> None:
    frames = {f"{item} {number}": now(item, 40) for number in range(30)}
    with Server(tmp_path / "data", forward_port=free_port(), workers=workers) as server:
        sure: list[Any] = []
        for wanted in (1, 20):
            server.start()
            with Client(port_of(server)) as client:
                client.send(*[["t", entries, {"chunk": chunk}] for chunk, entries in frames.items()])
                sure = client.answers(wanted)
            server.kill()
            assert sure == [{b"ack": chunk.encode()} for chunk in list(frames)[:wanted]]
        server.start()
        found = views(server, item)
        assert len(sure) * 40 <= found <= 1200
        with Client(port_of(server)) as client:
            client.send(*[["t", entries, {"chunk": chunk}] for chunk, entries in frames.items()])
            assert client.acks(*frames)
        assert views(server, item) == 1200
        assert server.stop() == 0
        assert server.error_lines() == []


def test_a_stop_finishes_what_was_sent_and_closes(tmp_path: Path, item: str) -> None:
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


def test_a_full_spool_acknowledges_nothing_until_there_is_room(tmp_path: Path, item: str) -> None:
    away = {"store": f"http://{HOST}:{free_port()}", "forward_port": free_port(), "stop_seconds": 1}
    frame = ["t", now(item, 200, text="x" * 100), {"chunk": "c"}]
    with (
        running_server(tmp_path / "data", spool_max_bytes=20_000, **away) as running,
        Client(port_of(running)) as client,
    ):
        client.send(frame, ["t", now(item), {"chunk": "d"}], ["t", now(item, 200, text="x" * 100)])
        deadline = time.monotonic() + SECONDS
        while "SpoolFull" not in running.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert running.stop() == 0
        assert client.is_closed()
    with running_server(tmp_path / "data", **away) as running, Client(port_of(running)) as client:
        client.send(frame)
        assert client.acks("c")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"forward_users": "alice:secret"}, "METRONOME_FORWARD_SHARED_KEY"),
        ({"public": "none", "host": "0.0.0.0"}, "METRONOME_FORWARD_SHARED_KEY"),  # noqa: S104  # it never listens
        ({"forward_certificate": "nowhere.pem"}, "METRONOME_FORWARD_CERTIFICATE"),
        ({"forward_certificate_key": "nowhere.pem"}, "METRONOME_FORWARD_CERTIFICATE"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_settings_that_do_not_go_together_are_told_at_the_start(
    tmp_path: Path, settings: dict[str, object], told: str, workers: int
) -> None:
    given: dict[str, Any] = {"data": tmp_path / "data", "port": free_port(), "forward_port": free_port(), **settings}
    ended = run_metronome("serve", workers=workers, timeout=SECONDS, **given)
    assert ended.exit_code == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
