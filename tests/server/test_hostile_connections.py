"""The ports of forward and syslog, attacked: memory stays bounded, and the connections of others go on."""

import contextlib
import gzip
import random
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgpack import packb

from metronome.scopes import Scope
from tests.installations import create_key
from tests.protocols.forward.test_server import KEY, Client
from tests.servers import Server, free_port, running_server, unique_name

pytestmark = pytest.mark.slow  # attacks a real server, over and over

HERE: Final = "127.0.0.1"
SECONDS: Final = 60.0
MIB: Final = 2**20
ROOM: Final = 96 * MIB
"""So much more memory an attack may take: a turn's events, and what the allocator keeps of them."""
DATA: Final = Path(__file__).parents[1] / "data" / "hostile.ndjson"
SHARED: Final = Path(__file__).parents[3] / "shared" / "data" / "hostile-events.ndjson"
NOISE: Final = random.Random(7).randbytes(MIB)  # bytes to attack with
HTTP: Final = b'POST /tick HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{"id":"a"}'
TLS: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + NOISE[:500]


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ssl.SSLContext]:
    folder, authority = tmp_path_factory.mktemp("certificate"), trustme.CA()
    made = authority.issue_cert("localhost")
    made.private_key_pem.write_to_path(folder / "key.pem")
    for at, part in enumerate(made.cert_chain_pems):
        part.write_to_path(folder / "chain.pem", append=at > 0)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return folder / "chain.pem", folder / "key.pem", context


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    ports = {name: free_port() for name in ("forward_port", "syslog_port")}
    with running_server(tmp_path_factory.mktemp("hostile") / "open", body_max_bytes=4 * MIB, **ports) as running:
        deadline = time.monotonic() + SECONDS
        while "syslog+udp://" not in running.log:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, trust: tuple[Path, Path, ssl.SSLContext]) -> Iterator[Server]:
    """Have a server that wants TLS and a shared key at its forward port."""
    folder = tmp_path_factory.mktemp("hostile") / "guarded"
    create_key(folder, "someone", Scope.ADMIN)
    wanted = {"forward_port": free_port(), "forward_shared_key": KEY}
    with running_server(folder, forward_certificate=trust[0], forward_certificate_key=trust[1], **wanted) as running:
        yield running


def port_of(server: Server, protocol: str) -> int:
    return int(str(server.settings[f"{protocol}_port"]))


def attack(port: int, sent: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """Send bytes and no more, and return what comes back until the server hangs up, as it may before the end."""
    came = b""
    with contextlib.ExitStack() as sockets:
        line = sockets.enter_context(socket.create_connection((HERE, port), SECONDS))
        if context is not None:
            line = sockets.enter_context(context.wrap_socket(line, server_hostname="localhost"))
        with contextlib.suppress(ConnectionError):
            line.sendall(sent)
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while data := line.recv(65536):
                came += data
    return came


def view(item: str) -> bytes:
    """Return a packed entry: a view of an item that has just happened."""
    return bytes(packb([int(time.time()), {"id": item, "event": "view"}]))


def line(item: str) -> bytes:
    """Return the same as a syslog message."""
    return b'<13>1 - h a - - - {"id":"%b","event":"view"}\n' % item.encode()


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json")["views"].values())


FRAMES: Final = {
    "noise": NOISE,
    "NUL": bytes(MIB),
    "no msgpack": b"\xc1" * 1000,
    "HTTP": HTTP,
    "TLS": TLS,
    "half a frame": packb(["t", 1, {"id": "x"}])[:-3],
    "four billion values": b"\xdd\xff\xff\xff\xff" + b"\xa1a" * 100_000,
    "four billion pairs": b"\xdf\xff\xff\xff\xff" + b"\xa1a" * 100_000,
    "four gigabytes": b"\x92\xa1t\xc6\xff\xff\xff\xff" + bytes(MIB),
    "four gigabytes of text": b"\x92\xdb\xff\xff\xff\xffaaaa",
    "deep": b"\x91" * MIB,
    "deep maps": b"\x81\xa1a" * 300_000,
    "tiny frames": packb(["t", 1, {}]) * 20_000,
    "tiny frames of many tags": b"".join(packb([f"t{n}", 1, {}]) for n in range(5000)),
    "heartbeats": b"\xc0" * 300_000,
    "numbers": b"\x01" * MIB,
    "long tag": packb(["t" * MIB, 1, {}]),
    "bomb": packb(["t", gzip.compress(bytes(100 * MIB)), {"compressed": "gzip", "chunk": "c"}]),
    "long chunk": packb(["t", b"", {"chunk": b"x" * 100_000, "compressed": {"a": 1}}]),
}
"""After these, the connection may be lost; all else goes on."""
ODD: Final[tuple[Any, ...]] = (
    [None, None],
    ["x", {}],
    [1e300, {}],
    [-(2**63), {"id": 1}],
    [0, {b"\xff": {1: None}}],
    {},
    [],
    7,
)
SENSELESS: Final = {
    "tiny entries": packb(["t", b"\x90" * 250_000, {"chunk": "c"}]),
    "promising entries": packb(["t", b"\xdd\xff\xff\xff\xff" * 10, {"chunk": "c"}]),
    "deep entry": packb(["t", b"\x92\x00\x81\xa1a" + b"\x91" * 400 + b"\xc0", {"chunk": "c"}]),
    "odd entries": packb(["t", b"".join(map(packb, ODD)), {"chunk": "c"}]),
}
"""These are acknowledged: they would fail again for ever."""
MESSAGES: Final = {
    "noise": NOISE,
    "NUL": bytes(MIB),
    "line feeds": b"\n" * MIB,
    "one long line": b"\xff" * 4 * MIB,
    "HTTP": HTTP,
    "TLS": TLS,
    "promise": b"9999999999 <13>x",
    "longer promise": b"9" * 19 + b" <13>x",
    "half a message": b"60000 <13>" + b"x" * 100,
    "digits": b"1" * MIB,
    "tiny frames": b"1 <" * 20_000,
    "odd priorities": b"<999999999999>1 x\n<>\n<191\n<-1>\n<1a>x\n",
    "odd structures": b"<13>1 - - - - - [" + b'a b="' * 9000 + b"\n<13>1 - - - - - " + b'[a b="\\]"]' * 6000 + b"\n",
    "odd times": b"<13>Feb 31 25:61:61 h a: x\n<13>1 9999-99-99T99:99:99Z - - - - x\n",
    "odd objects": b'<13>1 - - - - - {"id":"x"' + b"[" * 50_000 + b'\n<13>1 - - - - - {"id":{"a":1e999}}\n',
}


@pytest.mark.parametrize("name", [*FRAMES, *SENSELESS])
def test_what_is_sent_to_forward_harms_nobody_else(server: Server, name: str) -> None:
    item, port, before = unique_name(), port_of(server, "forward"), server.peak_memory()
    with Client(port) as other:
        other.send(["t", view(item), {"chunk": "before"}])
        assert other.acks("before")
        came = attack(port, {**FRAMES, **SENSELESS}[name])
        assert (b"\x81\xa3ack\xa1c" in came) == (name in SENSELESS)
        other.send(["t", view(item) + view(item)[:-3], {"chunk": "after"}])
        assert other.acks("after")
    assert views(server, item) == 2
    assert server.peak_memory() < before + ROOM


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_sent_to_syslog_harms_nobody_else(server: Server, name: str) -> None:
    item, port, before = unique_name(), port_of(server, "syslog"), server.peak_memory()
    with socket.create_connection((HERE, port), SECONDS) as other:
        other.sendall(line(item))
        assert attack(port, line(item) + MESSAGES[name]) == b""
        other.sendall(b"<999>\n" + line(item))
        other.shutdown(socket.SHUT_WR)
        assert other.recv(1) == b""
    assert views(server, item) == 3
    assert server.peak_memory() < before + ROOM


def test_datagrams_may_hold_anything(server: Server) -> None:
    item, before = unique_name(), server.accepted_events()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for sent in (b"", b"\0", b"\xff" * 60_000, NOISE[:9000], HTTP, *(one[:60_000] for one in MESSAGES.values())):
            sender.sendto(sent, (HERE, port_of(server, "syslog")))
        sender.sendto(line(item), (HERE, port_of(server, "syslog")))
    deadline = time.monotonic() + SECONDS
    while server.accepted_events() == before or views(server, item) == 0:
        assert time.monotonic() < deadline
    assert views(server, item) == 1


def test_bytes_that_come_slowly_hold_up_nobody(server: Server) -> None:
    item = unique_name()
    slow = [socket.create_connection((HERE, port_of(server, name)), SECONDS) for name in ("forward", "syslog") * 50]
    frame = packb(["t", view(item), {"chunk": "c"}])
    for at in range(10):
        for one in slow:
            one.sendall(frame[at : at + 1])
    with Client(port_of(server, "forward")) as other:
        other.send(["t", view(item), {"chunk": "quick"}])
        assert other.acks("quick")
    attack(port_of(server, "syslog"), line(item))
    for one in slow[::2]:
        one.sendall(frame[10:])
        assert one.recv(100) == b"\x81\xa3ack\xa1c"
    for one in slow:
        one.close()
    # All are the same chunk.
    assert views(server, item) == 3


@pytest.mark.parametrize("name", FRAMES)
def test_nobody_gets_past_tls_and_a_shared_key_by_noise(
    guarded: Server, trust: tuple[Path, Path, ssl.SSLContext], name: str
) -> None:
    item, port, context, before = unique_name(), port_of(guarded, "forward"), trust[2], guarded.peak_memory()
    with Client(port, context) as other:
        assert other.shake()[1]
        assert b"ack" not in attack(port, FRAMES[name])
        assert b"ack" not in attack(port, FRAMES[name], context)
        other.send(["t", view(item), {"chunk": "after"}])
        assert other.acks("after")
    assert guarded.peak_memory() < before + ROOM


def test_events_that_are_hostile_by_themselves_harm_no_neighbour(server: Server) -> None:
    item = unique_name()
    bodies = [
        orjson.loads(event)["body"].encode()
        for path in (DATA, SHARED)
        if path.exists()
        for event in path.read_bytes().splitlines()
    ]
    assert len(bodies) >= 30
    entries = b"".join(filter(None, map(packed, bodies)))
    with Client(port_of(server, "forward")) as client:
        client.send(["t", entries + view(item), {"chunk": "c"}])
        assert client.acks("c")
    messages = [b"<13>1 - h a - - - %b\n" % body for body in bodies if len(body) < 60_000]
    attack(port_of(server, "syslog"), b"".join(messages) + line(item))
    assert views(server, item) == 2


def packed(body: bytes) -> bytes:
    """Return an entry with what a body holds, or nothing if msgpack cannot hold it."""
    try:
        return bytes(packb([int(time.time()), orjson.loads(body)]))
    except (orjson.JSONDecodeError, OverflowError, ValueError):
        return b""


_SEEDS: Final = (
    packb(["t", 1, {"id": "x"}, {"chunk": "c"}]),
    packb(["t", [[1, {"id": "x"}], [2, {"a": [1]}]], {"chunk": "c"}]),
    packb(["t", gzip.compress(view("x"), mtime=0), {"compressed": "gzip", "chunk": "c"}]),
    line("x") + b"%d %b" % (len(line("x")), line("x")),
    b"<34>Oct 11 22:14:15 host su[1]: it failed\n",
)


@given(
    seed=st.sampled_from(_SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=5),
    end=st.integers(1, 120),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_changed_on_its_way_harms_nobody(
    server: Server, seed: bytes, changes: list[tuple[int, int]], end: int
) -> None:
    changed = bytearray(seed)
    for at, value in changes:
        changed[at % len(changed)] = value
    for protocol in ("forward", "syslog"):
        attack(port_of(server, protocol), bytes(changed[:end]))
    assert server.get("/health/live")["status"] == "ok"
