"""How a real server tells how it is, and how it starts and ends."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.installations import read_stored_documents
from tests.servers import (
    STOP_TIMEOUT_SECONDS,
    CommandResult,
    Server,
    ServerError,
    free_port,
    run_metronome,
    running_server,
    unique_name,
)

OPERATIONS: Final = Path(__file__).parents[2] / "docs" / "operations.md"
SECONDS: Final = aiohttp.ClientTimeout(total=60)
PARTS_OF_A_FAMILY: Final = re.compile(r"_(total|bucket|sum|count)$")


NewServer = Callable[..., Server]


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """Make servers as `Server` does; those that still run at the test's end are killed."""
    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(Server(*arguments, **settings))


async def metrics(server: Server) -> dict[str, float]:
    """Return each sample by its name, with its labels behind it."""
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http, http.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await answer.text()
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = " ".join([sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))])
            assert name not in samples
            samples[name] = sample.value
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(families) == len(set(families))
    return samples


def stored_ids(server: Server) -> list[str]:
    """Return the event ids that the store of a server that has ended holds."""
    return sorted(document["event_id"] for document in read_stored_documents(server.data))


class TestHealth:
    async def test_a_server_that_runs_is_live_and_ready(self, either: Server) -> None:
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
            async with http.get("/health/live") as answer:
                assert (answer.status, await answer.json()) == (200, {"status": "ok"})
            async with http.get("/health/ready") as answer:
                assert answer.status == 200
                told = await answer.json()
            assert set(told) == {"status", "spool", "store"}
            assert [told["status"], told["spool"]["status"], told["store"]["status"]] == ["ok"] * 3
            for part in ("store", "spool"):
                async with http.get(f"/health/ready/{part}") as answer:
                    assert answer.status == 200
                    told = await answer.json()
                assert set(told) == {"status", part}
                assert told[part]["status"] == "ok"

    @pytest.mark.slow
    async def test_the_spool_s_depth_is_told_while_the_store_is_away(self, tmp_path: Path) -> None:
        away = f"http://127.0.0.1:{free_port()}"
        # Keys are in the store too, so nobody is known who could ask for the metrics.
        with running_server(tmp_path / "data", store=away, stop_seconds=1, public="tick,query") as server:
            server.post_events(orjson.dumps([{"id": "x"}] * 7))
            server.post_events(orjson.dumps([{"id": "x"}] * 4))
            told = server.get("/health/ready")
            assert told["status"] == "ok"
            assert told["spool"]["events"] == 11
            assert told["spool"]["bytes"] > 11 * 50
            assert told["store"]["status"] == "away"
            # Operators read in the log where the store is; strangers are not told.
            assert len(told["store"]["detail"].split()) >= 4
            assert away.rpartition(":")[2] not in orjson.dumps(told).decode()
            assert away.rpartition(":")[2] in server.log
            samples = await metrics(server)
            assert samples["metronome_spool_events"] == 11
            assert samples["metronome_spool_bytes"] == told["spool"]["bytes"]
            assert 0 < samples["metronome_spool_oldest_seconds"] < 30

    @pytest.mark.slow
    async def test_a_spool_that_is_nearly_full_is_not_ready(self, tmp_path: Path) -> None:
        away = f"http://127.0.0.1:{free_port()}"
        with running_server(tmp_path / "data", store=away, spool_max_bytes=10_000, stop_seconds=1) as server:
            server.post_events(orjson.dumps({"id": "x", "text": "y" * 9500}))
            async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
                for path in ("/health/ready", "/health/ready/spool"):
                    async with http.get(path) as answer:
                        assert answer.status == 503
                        told = await answer.json()
                    assert (told["status"], told["spool"]["status"]) == ("not ready", "full")
                async with http.get("/health/live") as answer:
                    assert answer.status == 200


class TestMetrics:
    async def test_they_are_those_of_the_documentation(self, either: Server) -> None:
        rows = [line for line in OPERATIONS.read_text().splitlines() if line.startswith("|")]
        documented = {PARTS_OF_A_FAMILY.sub("", name) for row in rows for name in re.findall(r"metronome_[a-z_]+", row)}
        async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http, http.get("/metrics") as answer:
            text = await answer.text()
        exported = {
            PARTS_OF_A_FAMILY.sub("", line.split()[2]) for line in text.splitlines() if line.startswith("# TYPE ")
        }
        assert exported == documented

    async def test_no_time_of_creation_is_exported(self, either: Server) -> None:
        assert not [name for name in await metrics(either) if "_created" in name]

    @pytest.mark.slow
    @pytest.mark.crew
    async def test_each_is_counted_over_all_processes(self, either: Server) -> None:
        before = await metrics(either)
        for _ in range(20):
            # A connection each, so that both workers get some.
            async with aiohttp.ClientSession(either.url, timeout=SECONDS) as http:
                event = {"id": "x", "event_id": "always the same", "ts": "2024-01-01"}
                async with http.post("/tick", json=[event, {"id": "x"}, {"ts": "never"}]) as answer:
                    assert answer.status == 200
                async with http.post("/tick", data=b"nonsense") as answer:
                    assert answer.status == 400
                async with http.get("/tock/x.json?limit=x") as answer:
                    assert answer.status == 400
        await asyncio.to_thread(either.wait_until_shipped)
        after = await metrics(either)
        more = {name: after[name] - before.get(name, 0) for name in after}
        assert more["metronome_events_accepted_total"] == 40
        assert more["metronome_refused_total reason=Malformed"] == 40
        assert more["metronome_refused_total reason=InvalidQuery"] == 20
        assert more["metronome_events_shipped_total"] + more["metronome_events_duplicate_total"] == 40
        assert more["metronome_events_shipped_total"] in {20, 21}
        assert more["metronome_events_dead_total"] == 0
        assert more["metronome_commit_seconds_count"] == more["metronome_commit_seconds_bucket le=+Inf"] == 20
        assert more["metronome_shipment_seconds_count"] >= 1
        assert after["metronome_spool_events"] == 0

    async def test_buckets_are_in_their_order(self, either: Server) -> None:
        samples = await metrics(either)
        head = "metronome_commit_seconds_bucket le="
        bounds = [float(name.removeprefix(head)) for name in samples if name.startswith(head)]
        counts = [count for name, count in samples.items() if name.startswith(head)]
        assert bounds == sorted(bounds)
        assert counts == sorted(counts)

    @pytest.mark.slow
    async def test_asking_all_the_time_disturbs_no_shipment(self, server: Server) -> None:
        item = unique_name()
        done = asyncio.Event()

        async def look() -> None:
            async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
                while not done.is_set():
                    async with http.get("/health/ready") as answer:
                        assert answer.status == 200

        looks = [asyncio.create_task(look()) for _ in range(4)]
        async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
            for _ in range(300):
                async with http.post("/tick", json={"id": item}) as answer:
                    assert answer.status == 204
        done.set()
        await asyncio.gather(*looks)
        await asyncio.to_thread(server.wait_until_shipped)
        assert sum(server.get(f"/tock/{item}.json")["views"].values()) == 300
        assert server.error_lines() == []


@pytest.mark.slow
class TestStop:
    @pytest.mark.parametrize("workers", [1, 2])
    async def test_a_clean_stop_under_load_loses_nothing(
        self, new_server: NewServer, tmp_path: Path, workers: int
    ) -> None:
        server = new_server(tmp_path / "data", workers=workers)
        await asyncio.to_thread(server.start)
        acknowledged: list[str] = []
        sent: list[str] = []
        async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
            senders = [asyncio.create_task(send_until_refused(http, sent, acknowledged)) for _ in range(8)]
            await asyncio.sleep(1)
            code = await asyncio.to_thread(server.stop)
            await asyncio.gather(*senders)
        assert code == 0
        assert server.error_lines() == []
        assert orjson.loads(server.log.splitlines()[-1])["all_shipped"] is True
        found = stored_ids(server)
        assert len(acknowledged) > 50
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found) <= set(sent)

    async def test_a_stop_while_the_store_is_away_keeps_the_spool(self, new_server: NewServer, tmp_path: Path) -> None:
        server = new_server(tmp_path / "data", store=f"http://127.0.0.1:{free_port()}", stop_seconds=1)
        server.start()
        server.post_events(orjson.dumps([{"event_id": "a"}, {"event_id": "b"}]))
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8
        assert server.error_lines() == []
        with running_server(server.data) as other:
            other.wait_until_shipped()
        assert stored_ids(other) == ["a", "b"]

    async def test_idle_connections_do_not_hold_up_a_stop(self, tmp_path: Path) -> None:
        with running_server(tmp_path / "data") as server:
            async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
                async with http.post("/tick", json={"id": "x"}) as answer:
                    assert answer.status == 204
                _, half = await asyncio.open_connection("127.0.0.1", server.port)
                half.write(b"POST /tick HTTP/1.1\r\n")
                await half.drain()
                began = time.monotonic()
                assert await asyncio.to_thread(server.stop) == 0
                assert time.monotonic() - began < 5
                half.transport.abort()


async def send_until_refused(http: aiohttp.ClientSession, sent: list[str], acknowledged: list[str]) -> None:
    try:
        while True:
            ids = [unique_name() for _ in range(3)]
            sent += ids
            async with http.post("/tick", json=[{"event_id": one, "id": "x"} for one in ids]) as answer:
                if answer.status == 503:
                    return
                assert await answer.json() == {"accepted": 3, "rejected": []}
                acknowledged += ids
    except (aiohttp.ClientError, ConnectionError):
        return


class TestStart:
    @pytest.mark.slow  # the second server waits five seconds for the first to exit
    @pytest.mark.parametrize("workers", [1, 2])
    def test_a_second_server_in_the_same_folder_says_so(self, server: Server, workers: int) -> None:
        ended = run_metronome("serve", data=server.data, port=free_port(), workers=workers)
        assert_sentence(ended, "METRONOME_DATA")
        assert str(server.data) in ended.stderr
        assert server.get("/health/live") == {"status": "ok"}

    # Several workers wait five seconds for the port.
    @pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
    def test_a_port_in_use_is_told(self, server: Server, tmp_path: Path, workers: int) -> None:
        ended = run_metronome("serve", data=tmp_path / "data", port=server.port, workers=workers)
        assert_sentence(ended, "METRONOME_PORT")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(
                ("workers", "none"),
                ("workers", "0"),
                ("port", "99999"),
                ("store", "mysql://x"),
                ("tick_max_age", "soon"),
            ),
            *(("item_pattern", "("), ("item_pattern", "x"), ("spool_max_bytes", "many"), ("log_level", "loud")),
            *(("index_prefix", "A B"), ("duckdb_memory", "lots"), ("stop_seconds", "-1"), ("body_max_bytes", "-1")),
        ],
    )
    def test_a_wrong_setting_is_named(self, tmp_path: Path, name: str, value: str) -> None:
        ended = run_metronome("serve", f"--{name.replace('_', '-')}={value}", data=tmp_path / "data", port=free_port())
        assert_sentence(ended, f"METRONOME_{name.upper()}")
        # The address of a store may hold a password.
        assert (value in ended.stderr) == (name != "store")

    def test_a_data_folder_that_cannot_be_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        ended = run_metronome("serve", data=tmp_path / "file", port=free_port())
        assert_sentence(ended, "METRONOME_DATA")

    @pytest.mark.slow
    async def test_with_port_0_all_workers_share_the_port_that_is_logged(
        self, new_server: NewServer, tmp_path: Path
    ) -> None:
        server = new_server(tmp_path / "data", workers=2)
        server.port = 0
        server.launch()
        try:
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            while len(urls := re.findall(r'"url": "([^"]+)"', server.log)) < 2:
                assert time.monotonic() < deadline, server.log
                await asyncio.sleep(0.05)
            assert len(set(urls)) == 1
        finally:
            assert server.stop() == 0

    async def test_a_report_may_be_asked_for_as_soon_as_the_server_is_live(self, tmp_path: Path) -> None:
        with running_server(tmp_path / "data") as server:
            assert server.get("/tock/x.json") == {
                "views": {},
                "downloads": {},
                "referers": {},
                "totals": {"views": 0, "downloads": 0},
            }


def assert_sentence(ended: CommandResult, named: str) -> None:
    assert ended.exit_code == 2, ended
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len([line for line in ended.stderr.splitlines() if line.startswith("metronome serve: ")]) == 1


@pytest.mark.slow
class TestWorkers:
    @pytest.fixture
    async def http(self, crew: Server) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(crew.url, timeout=SECONDS, connector=connector) as session:
            yield session

    async def test_a_killed_worker_is_started_again_and_its_spool_is_shipped(
        self, crew: Server, http: aiohttp.ClientSession
    ) -> None:
        item, sent = unique_name(), 0
        for _ in range(3):
            # First with spools that are empty, for a new worker to find; then with what the last round left.
            sent += await tick_many(http, item, 40)
            await asyncio.to_thread(crew.wait_until_shipped)
            sent += await tick_many(http, item, 5)
            before = crew.worker_pids()
            for pid in before:
                crew.kill_worker(pid)
            await until_restarted(crew, before)
        sent += await tick_many(http, item, 40)
        await asyncio.to_thread(crew.wait_until_shipped)
        assert sum(crew.get(f"/tock/{item}.json")["views"].values()) == sent
        assert crew.log.count('"worker_died"') >= 6
        assert crew.error_lines() == []

    async def test_a_worker_that_died_leaves_its_counts(self, crew: Server, http: aiohttp.ClientSession) -> None:
        before, pids = (await metrics(crew))["metronome_events_accepted_total"], crew.worker_pids()
        await tick_many(http, unique_name(), 20)
        crew.kill_worker(pids[0])
        await until_restarted(crew, pids[:1])
        assert (await metrics(crew))["metronome_events_accepted_total"] == before + 20

    def test_fewer_workers_ship_what_more_have_left(self, new_server: NewServer, tmp_path: Path) -> None:
        server = new_server(tmp_path / "data", workers=3, store=f"http://127.0.0.1:{free_port()}", stop_seconds=1)
        server.start()
        sent = [unique_name() for _ in range(60)]
        for one in sent:
            server.post_events(orjson.dumps({"event_id": one}))
        assert server.stop() == 0
        assert len(list(server.data.glob("spool/*/spool.sqlite"))) == 3
        with running_server(server.data) as other:
            other.wait_until_shipped()
        assert stored_ids(other) == sorted(sent)

    def test_workers_end_when_the_main_process_is_killed(self, new_server: NewServer, tmp_path: Path) -> None:
        server = new_server(tmp_path / "data", workers=2)
        server.start()
        pids = server.worker_pids()
        assert len(pids) == 2
        server.kill()
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(ServerError, match="the server exited with -9"):
            server.wait_until_ready()


# The only test of how a main process starts its workers: other tests fork them.
@pytest.mark.slow
def test_a_server_and_its_workers_start_without_being_forked_too(
    new_server: NewServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.servers.can_fork", lambda _: False)
    server = new_server(tmp_path / "data", workers=2)
    server.start()
    assert len(server.worker_pids()) == 2
    server.post_events(b'{"event_id":"a"}')
    server.wait_until_shipped()
    assert server.stop() == 0
    assert stored_ids(server) == ["a"]


async def tick_many(http: aiohttp.ClientSession, item: str, count: int) -> int:
    """Send events one by one, each over a connection of its own, and return how many were taken."""
    for _ in range(count):
        async with http.post("/tick", json={"id": item}) as answer:
            assert answer.status == 204
    return count


async def until_restarted(server: Server, killed: list[int]) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while len(alive := server.worker_pids()) < 2 or set(alive) & set(killed) or not both_listen(server):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def both_listen(server: Server) -> bool:
    """Tell whether two sockets listen at the server's port."""
    listening = f"0100007F:{server.port:04X} 00000000:0000 0A "
    return Path("/proc/net/tcp").read_text().count(listening) == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_may_have_more_connections_than_machines_usually_allow(tmp_path: Path, workers: int) -> None:
    with running_server(tmp_path / "data", workers=workers) as server:
        for pid in (server.pid, *server.worker_pids()):
            limits = Path(f"/proc/{pid}/limits").read_text()
            (files,) = [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")]
            assert files[0] == files[1] or int(files[0]) >= 65_536
