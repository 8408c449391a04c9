"""Five million events while the store is away: memory, refusals, and whether all arrive once it is back."""

import time
import urllib.request
from typing import Final

import orjson

from bench.batches import EVENTS_PER_REQUEST
from bench.events import build_ndjson_bodies
from bench.figures import BenchmarkRow, run_load, temporary_folder
from tests.elasticsearch_node import elasticsearch_node
from tests.servers import Server, delete_indices, free_port, refresh_indices, running_server, unique_name
from tests.wires import TcpProxy

EVENTS: Final = 5_000_000
_LOAD_SECONDS: Final = 5


def measure() -> list[BenchmarkRow]:
    """Send with the store cut off, connect it, and count."""
    prefix = unique_name("away")
    with elasticsearch_node("1g") as url, temporary_folder() as folder:
        wire = TcpProxy(url, free_port())
        with (
            wire,
            running_server(folder / "data", store=wire.url, index_prefix=prefix, public="tick,tock,query") as server,
        ):
            _fill(server)
            # Not what the client counts: it hangs up on the last requests of each run, which are taken all the same.
            sent = server.accepted_events()
            memory = server.peak_memory()
            wire.connect()
            began = time.monotonic()
            server.wait_until_shipped(3600, 1.0)
            drained = sent / (time.monotonic() - began)
        refresh_indices(url, prefix)
        with urllib.request.urlopen(f"{url}/{prefix}-*/_count") as answer:  # noqa: S310  # our own node
            found = orjson.loads(answer.read())["count"]
        delete_indices(url, prefix)
    return [
        BenchmarkRow(
            f"store away, {sent:,} events come in",
            f"resident memory at most {memory / 2**20:,.0f} MB, none refused",
            f"{found:,} in the store afterwards, {drained:,.0f} events/s",
            f"{found / sent:.4f}",
            "< 300 MB, all arrive",
        )
    ]


def _fill(server: Server) -> None:
    bodies = build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST)
    while server.accepted_events() < EVENTS:
        run_load(f"{server.url}/tick", bodies, "application/x-ndjson", 2, _LOAD_SECONDS)
