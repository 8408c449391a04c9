"""Five million events while the store is away: memory, refusals, and whether all arrive once it is back."""

import time
import urllib.request
from typing import Final

import orjson

from bench.batches import EACH
from bench.events import lines
from bench.figures import Row, post, scratch
from tests.elasticsearch_node import elasticsearch_node
from tests.servers import Server, delete_indices, free_port, refresh_indices, serving, unique_name
from tests.wires import Wire

EVENTS: Final = 5_000_000
_LOOK_SECONDS: Final = 5


def measure() -> list[Row]:
    """Send with the store cut off, connect it, and count."""
    prefix = unique_name("away")
    with elasticsearch_node("1g") as url, scratch() as folder:
        wire = Wire(url, free_port())
        with wire, serving(folder / "data", store=wire.url, index_prefix=prefix, public="tick,tock,query") as server:
            _fill(server)
            # Not what the client counts: it hangs up on the last requests of each run, which are taken all the same.
            sent = server.accepted()
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
        Row(
            f"store away, {sent:,} events come in",
            f"resident memory at most {memory / 2**20:,.0f} MB, none refused",
            f"{found:,} in the store afterwards, {drained:,.0f} events/s",
            f"{found / sent:.4f}",
            "< 300 MB, all arrive",
        )
    ]


def _fill(server: Server) -> None:
    bodies = lines(20 * EACH, EACH)
    while server.accepted() < EVENTS:
        post(f"{server.url}/tick", bodies, "application/x-ndjson", 2, _LOOK_SECONDS)
