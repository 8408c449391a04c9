"""The protocols of shippers, from request to DuckDB, compared with NDJSON to ``/tick`` in the same run."""

import socket
import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Final

import msgpack
import orjson

from bench.harness import BenchmarkRow, build_events, build_ndjson_bodies, run_load, sized, temporary_folder
from tests.servers import Server, free_port, running_server

EVENTS_PER_REQUEST: Final = 1000
LOAD_SECONDS: Final = sized(15, 1)
_BODIES: Final = 20
_CONNECTIONS: Final = 4
_ACTION: Final = b'{"create":{"_index":"logs"}}\n'
_ACK_BYTES: Final = 64


def measure() -> list[BenchmarkRow]:
    """Measure each protocol on its own server."""
    native = _ingest_rate(_send_lines)
    return [
        _row("`_bulk`, 1,000 documents a request", _ingest_rate(_send_bulks), native),
        _row("forward, PackedForward, 1,000 entries a chunk, acknowledged", _ingest_rate(_send_chunks), native),
    ]


def _row(name: str, rate: float, native: float) -> BenchmarkRow:
    return BenchmarkRow(
        f"{name}, end to end into DuckDB",
        f"{rate:,.0f} events/s",
        f"{native:,.0f} (NDJSON to `/tick`)",
        f"{rate / native:.2f}",
        "≥ 0.8",
    )


def _ingest_rate(send: Callable[[Server, int], int]) -> float:
    """Return how many events per second reach the store when *send* sends them."""
    port = free_port()
    with temporary_folder() as folder, running_server(folder / "data", forward_port=port) as server:
        started = time.monotonic()
        requests = send(server, port)
        server.wait_until_shipped(600, 0.2)
        return requests * EVENTS_PER_REQUEST / (time.monotonic() - started)


def _send_lines(server: Server, _: int) -> int:
    bodies = build_ndjson_bodies(_BODIES * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST)
    return run_load(f"{server.url}/tick", bodies, "application/x-ndjson", _CONNECTIONS, LOAD_SECONDS).requests


def _send_bulks(server: Server, _: int) -> int:
    bodies = [
        _ACTION + body.rstrip().replace(b"\n", b"\n" + _ACTION) + b"\n"
        for body in build_ndjson_bodies(_BODIES * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST)
    ]
    return run_load(f"{server.url}/es/_bulk", bodies, "application/x-ndjson", _CONNECTIONS, LOAD_SECONDS).requests


def _send_chunks(_: Server, port: int) -> int:
    packed = [
        _pack_entries([orjson.loads(text) for text in build_events(EVENTS_PER_REQUEST, seed)])
        for seed in range(_BODIES)
    ]
    deadline = time.monotonic() + LOAD_SECONDS
    with ThreadPoolExecutor(_CONNECTIONS) as senders:
        sent = [senders.submit(_send_until, deadline, port, packed, number) for number in range(_CONNECTIONS)]
        return sum(sender.result() for sender in sent)


def _pack_entries(records: Sequence[object]) -> bytes:
    seconds = int(time.time())
    timestamp = msgpack.ExtType(0, struct.pack(">II", seconds, 0))
    return b"".join(msgpack.packb([timestamp, record]) for record in records)


def _send_until(deadline: float, port: int, packed: Sequence[bytes], sender: int) -> int:
    """Send chunks over one connection, each after the previous is acknowledged; return their number."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for number in count():
            if time.monotonic() > deadline:
                return number
            head = b"\x93" + msgpack.packb("bench") + struct.pack(">BI", 0xC6, len(packed[number % len(packed)]))
            options = msgpack.packb({"chunk": f"{sender:08x}{number:08x}", "size": EVENTS_PER_REQUEST})
            connection.sendall(head + packed[number % len(packed)] + options)
            if not connection.recv(_ACK_BYTES):
                raise SystemExit("forward: the connection was closed")
    raise AssertionError
