"""A cluster of three Elasticsearch nodes of which one is killed, paused, or cut off in a minority, under load."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.faults.cluster import running_cluster
from tests.faults.observations import health, is_ready, log_lines, status_of, wait_until
from tests.faults.rounds import SentEvents, ServerFactory, ship_and_stop
from tests.faults.test_crash import count_marks_in_elasticsearch, load
from tests.servers import refresh_indices, unique_name

pytestmark = [pytest.mark.elasticsearch, pytest.mark.timeout(600)]


async def test_events_are_stored_once_though_nodes_are_killed_paused_and_cut_off(
    new_server: ServerFactory, data: Path
) -> None:
    with running_cluster() as cluster:
        first, second, third = cluster.nodes
        prefix = unique_name("cluster")
        server = new_server(data, store=first.url, index_prefix=prefix, stop_seconds=20, question_seconds=3)
        sent = SentEvents()
        await asyncio.to_thread(server.start)
        await load(server, sent, 1.0)
        await asyncio.to_thread(server.wait_until_shipped, 120)
        await asyncio.to_thread(cluster.wait_until_green)

        for node in (second, third):
            # Killed amid bulks; the other copy of each shard takes over.
            sending = asyncio.create_task(load(server, sent, 2.0))
            await asyncio.sleep(0.5)
            node.kill()
            await sending
            assert await asyncio.to_thread(is_ready, server)
            node.start()
            await asyncio.to_thread(cluster.wait_until_green)

        sending = asyncio.create_task(load(server, sent, 3.0))
        await asyncio.sleep(0.3)
        third.signal(signal.SIGSTOP)
        await sending
        third.signal(signal.SIGCONT)
        await asyncio.to_thread(cluster.wait_until_green)

        # Without the two others, the first node is in a minority: it has no master.
        sending = asyncio.create_task(load(server, sent, 3.0))
        await asyncio.sleep(0.3)
        second.signal(signal.SIGSTOP)
        third.signal(signal.SIGSTOP)
        await sending
        await asyncio.to_thread(wait_until, lambda: health(server, "store") == "away", "the store's health says so")
        assert await asyncio.to_thread(is_ready, server)
        await asyncio.to_thread(
            wait_until, lambda: status_of(server, "/tock/crash.json") in {200, 503}, "reports are answered"
        )
        second.signal(signal.SIGCONT)
        third.signal(signal.SIGCONT)
        await asyncio.to_thread(cluster.wait_until_green)
        await asyncio.to_thread(server.wait_until_shipped, 180)
        await asyncio.to_thread(wait_until, lambda: health(server, "store") == "ok", "the store's health is ok again")
        assert log_lines(server, "shipment_failed") or log_lines(server, "part_away")
        await asyncio.to_thread(ship_and_stop, server)
        await asyncio.to_thread(refresh_indices, first.url, prefix)
        sent.check(await count_marks_in_elasticsearch(first.url, prefix))
    assert not list(server.data.glob("dead/*"))
