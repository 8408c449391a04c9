"""What Elasticsearch cannot store waits and is reported, and the rest does not wait for it."""

import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from tests.faults.observations import failures, health, is_ready, log_lines, status_of, wait_until
from tests.faults.rounds import ServerFactory
from tests.proxies import Fault, FaultProxy
from tests.servers import Server, delete_indices, refresh_indices, unique_name

OLD_DAYS: Final = 150
QUESTION_SECONDS: Final = 3.0

pytestmark = pytest.mark.elasticsearch


@pytest.fixture
def prefix(elasticsearch_url: str) -> Iterator[str]:
    name = unique_name("fault")
    yield name
    delete_indices(elasticsearch_url, name)


def call(method: str, url: str, body: Any = None) -> Any:
    """Send a request to Elasticsearch, and return the parsed response."""
    content = None if body is None else orjson.dumps(body)
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"}, method=method)  # noqa: S310  # our own node
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  # our own node
        return orjson.loads(response.read())


def send(server: Server, *days: datetime) -> int:
    """Send an event of each day in one batch, and return their number."""
    events = [{"id": "item", "event": "view", "ts": day.strftime("%Y-%m-%d")} for day in days]
    assert orjson.loads(server.post_events(orjson.dumps(events)))["accepted"] == len(days)
    return len(days)


def count(elasticsearch_url: str, prefix: str, index: str = "*") -> int:
    refresh_indices(elasticsearch_url, prefix)
    url = f"{elasticsearch_url}/{prefix}-{index}/_count?ignore_unavailable=true&allow_no_indices=true"
    return int(call("GET", url)["count"])


@pytest.fixture
def server(new_server: ServerFactory, data: Path, elasticsearch_url: str, prefix: str) -> Iterator[Server]:
    server = new_server(data, store=elasticsearch_url, index_prefix=prefix, stop_seconds=5)
    server.start()
    yield server
    assert server.stop() == 0
    assert server.error_lines() == []


def today() -> datetime:
    return datetime.now(UTC)


@contextmanager
def at_the_shard_limit(url: str, _: str) -> Iterator[None]:
    call("PUT", f"{url}/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": 1}})
    try:
        yield
    finally:
        call("PUT", f"{url}/_cluster/settings", {"persistent": {"cluster.max_shards_per_node": None}})


@contextmanager
def without_creation_of_indices(url: str, prefix: str) -> Iterator[None]:
    setting = "action.auto_create_index"
    call("PUT", f"{url}/_cluster/settings", {"persistent": {setting: f"-{prefix}-*,+*"}})
    try:
        yield
    finally:
        call("PUT", f"{url}/_cluster/settings", {"persistent": {setting: None}})


@contextmanager
def with_closed_indices(url: str, prefix: str) -> Iterator[None]:
    names = sorted({f"{prefix}-{day:%Y.%m}" for day in old_days(2)})
    for name in names:
        call("PUT", f"{url}/{name}")
        call("POST", f"{url}/{name}/_close")
    yield
    for name in names:
        call("POST", f"{url}/{name}/_open")


@contextmanager
def at_the_flood_stage(url: str, prefix: str) -> Iterator[None]:
    names = sorted({f"{prefix}-{day:%Y.%m}" for day in old_days(2)})
    for name in names:
        call("PUT", f"{url}/{name}")
        # As Elasticsearch does itself when a disk is full.
        call("PUT", f"{url}/{name}/_settings", {"index.blocks.read_only_allow_delete": True})
    yield
    for name in names:
        call("PUT", f"{url}/{name}/_settings", {"index.blocks.read_only_allow_delete": None})


@contextmanager
def with_wrong_mappings(url: str, prefix: str) -> Iterator[None]:
    names = sorted({f"{prefix}-{day:%Y.%m}" for day in old_days(2)})
    call("DELETE", f"{url}/_index_template/{prefix}")
    for name in names:
        call("PUT", f"{url}/{name}", {"mappings": {"properties": {"id": {"type": "text"}}}})
    yield
    for name in names:
        call("DELETE", f"{url}/{name}")


def old_days(number: int) -> list[datetime]:
    return [today() - timedelta(days=300 + at) for at in range(number)]


@pytest.mark.parametrize(
    ("inject", "days", "reason", "advice"),
    [
        (at_the_shard_limit, OLD_DAYS, "ShardLimitReached", "cluster.max_shards_per_node"),
        (without_creation_of_indices, 2, "IndexMissing", "action.auto_create_index"),
        (with_closed_indices, 2, "IndexClosed", "open or delete the index"),
        (at_the_flood_stage, 2, "IndexBlocked", "free disk space"),
        (with_wrong_mappings, 2, "IndexMappingWrong", "delete the index"),
    ],
)
def test_todays_events_do_not_wait_for_those_that_elasticsearch_cannot_store(
    server: Server, elasticsearch_url: str, prefix: str, inject: Any, days: int, reason: str, advice: str
) -> None:
    sent = send(server, today())
    server.wait_until_shipped()
    with inject(elasticsearch_url, prefix):
        sent += send(server, *old_days(days))
        sent += send(server, *[today()] * 5)
        wait_until(lambda: count(elasticsearch_url, prefix, f"{today():%Y.%m}") == 6, "today's events are stored")
        wait_until(lambda: server.spooled_events() == days, "the others wait")
        assert health(server, "store") == "away"
        assert is_ready(server)
        before = failures(server)[reason]
        time.sleep(3)
        # The delays grow: there are no three attempts a second.
        assert failures(server)[reason] <= before + 4
        (line,) = log_lines(server, "events_waiting")
        assert line["count"] == days
        assert advice in line["advice"]
        assert server.get("/tock/item.json")["views"] is not None
    server.wait_until_shipped()
    wait_until(lambda: health(server, "store") == "ok", "the store's health is ok again")
    assert count(elasticsearch_url, prefix) == sent
    assert log_lines(server, "events_no_longer_waiting")
    assert not list(server.data.glob("dead/*"))


def test_events_that_wait_survive_a_crash(server: Server, elasticsearch_url: str, prefix: str) -> None:
    with at_the_shard_limit(elasticsearch_url, prefix):
        sent = send(server, *old_days(2))
        wait_until(lambda: log_lines(server, "events_waiting"), "the events wait")
        time.sleep(1)
        server.kill()
        server.start()
        assert server.spooled_events() == 2
    server.wait_until_shipped()
    assert count(elasticsearch_url, prefix) == sent


def test_a_second_installation_with_an_overlapping_prefix_says_so(
    server: Server, new_server: ServerFactory, data: Path, elasticsearch_url: str, prefix: str
) -> None:
    server.wait_until_shipped()
    second = new_server(data.with_name("second"), store=elasticsearch_url, index_prefix=f"{prefix}-dev", stop_seconds=1)
    second.start()
    sent = send(second, today())
    wait_until(lambda: log_lines(second, "shipment_failed"), "the failure is logged")
    line = log_lines(second, "shipment_failed")[0]
    assert f"'{prefix}-dev' overlaps the index template '{prefix}'" in line["error"]
    assert "METRONOME_INDEX_PREFIX" in line["error"]
    assert health(second, "store") == "away"
    assert failures(second)["TemplateRejected"]
    second.stop()
    assert second.error_lines() == []
    # With another prefix, the events that were accepted meanwhile are stored.
    other = unique_name("fault")
    second.settings["index_prefix"] = other
    second.start()
    second.wait_until_shipped()
    assert count(elasticsearch_url, other) == sent
    delete_indices(elasticsearch_url, other)
    second.stop()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.HTML, "UnexpectedResponse"),
        (Fault.EMPTY_OBJECT, "UnexpectedResponse"),
        (Fault.STATUS_429, "StoreUnavailable"),
        (Fault.STATUS_503, "StoreUnavailable"),
        (Fault.TRUNCATE, "StoreUnavailable"),
        (Fault.RESET, "StoreUnavailable"),
        (Fault.FREEZE, ""),
    ],
)
def test_events_wait_while_elasticsearch_does_not_answer_as_it_should(
    new_server: ServerFactory, data: Path, elasticsearch_url: str, prefix: str, fault: Fault, reason: str
) -> None:
    with FaultProxy(elasticsearch_url) as proxy:
        server = new_server(
            data,
            store=proxy.url,
            index_prefix=prefix,
            stop_seconds=5,
            public="tick,tock,query",
            question_seconds=QUESTION_SECONDS,
        )
        server.start()
        sent = send(server, today())
        server.wait_until_shipped()
        proxy.set_fault(fault)
        sent += send(server, *[today()] * 5)
        began = time.monotonic()
        assert status_of(server, "/tock/item.json") == 503
        # The report may wait for new events before it asks the store.
        assert time.monotonic() - began < QUESTION_SECONDS + 2.5
        assert health(server, "store") == "away"
        assert is_ready(server)
        if reason:
            wait_until(lambda: failures(server)[reason], "the failure is counted")
            assert log_lines(server, "shipment_failed")[0]["advice"]
        else:
            assert log_lines(server, "part_away")[0]["advice"]
        proxy.set_fault(Fault.NONE)
        server.wait_until_shipped()
        wait_until(lambda: health(server, "store") == "ok", "the store's health is ok again")
        assert server.stop() == 0
        assert server.error_lines() == []
    assert count(elasticsearch_url, prefix) == sent
    assert not list(server.data.glob("dead/*"))
