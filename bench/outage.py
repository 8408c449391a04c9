"""An outage of Elasticsearch while millions of events come in: memory, rejected events, and whether all arrive."""

import time
import urllib.request
from typing import Final

import orjson

from bench.harness import BenchmarkRow, build_ndjson_bodies, run_load, sized, temporary_folder
from tests.elasticsearch_node import elasticsearch_node
from tests.proxies import Fault, FaultProxy
from tests.servers import Server, delete_indices, refresh_indices, running_server, unique_name

EVENTS_PER_REQUEST: Final = 1000
EVENTS: Final = sized(5_000_000, 100_000)
_LOAD_SECONDS: Final = sized(5, 1)


def measure() -> list[BenchmarkRow]:
    """Send events while the store is disconnected, connect it, and count the stored events."""
    prefix = unique_name("outage")
    with elasticsearch_node("1g") as url, temporary_folder() as folder:
        with FaultProxy(url) as wire:
            wire.set_fault(Fault.REFUSE)
            with running_server(
                folder / "data", store=wire.url, index_prefix=prefix, public="tick,tock,query"
            ) as server:
                _fill(server)
                # Counted by the server, which accepts the last requests of each run although wrk disconnects early.
                sent = server.accepted_events()
                memory = server.peak_memory()
                wire.set_fault(Fault.NONE)
                started = time.monotonic()
                server.wait_until_shipped(3600, 1.0)
                drained = sent / (time.monotonic() - started)
        refresh_indices(url, prefix)
        with urllib.request.urlopen(f"{url}/{prefix}-*/_count") as answer:  # noqa: S310  # our own node
            stored = orjson.loads(answer.read())["count"]
        delete_indices(url, prefix)
    return [
        BenchmarkRow(
            f"store unavailable while {sent:,} events come in",
            f"resident memory at most {memory / 2**20:,.0f} MB, none rejected",
            f"{stored:,} in the store afterwards, {drained:,.0f} events/s",
            f"{stored / sent:.4f}",
            "< 300 MB, all arrive",
        )
    ]


def _fill(server: Server) -> None:
    bodies = build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST)
    while server.accepted_events() < EVENTS:
        run_load(f"{server.url}/tick", bodies, "application/x-ndjson", 2, _LOAD_SECONDS)
