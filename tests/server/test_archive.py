"""A server with an archive: what is away, wrong or silent holds up nothing, and says so."""

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.s3_server import environment_variables, running_s3_server
from tests.servers import Server, free_port, run_metronome, running_server, unique_name

pytestmark = [pytest.mark.usefixtures("s3_environment"), pytest.mark.slow]


def wait_for(server: Server, holds: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not holds(told := server.get("/health/ready")):
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    found: dict[str, Any] = told
    return found


def tick(server: Server, item: str, count: int = 1) -> None:
    for _ in range(count):
        server.post_events(b'{"id":"%s"}' % item.encode())


def metrics(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:  # noqa: S310  # our own server
        lines = [line.split() for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(figure) for name, figure in lines}


def views(server: Server, item: str) -> int:
    return sum(server.get(f"/tock/{item}.json")["views"].values())


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unavailable_archive_delays_nothing_and_receives_everything_later(tmp_path: Path, workers: int) -> None:
    port = free_port()
    with (
        environment_variables({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}),
        running_server(tmp_path / "data", archive="s3://bucket/x", archive_roll_bytes=1, workers=workers) as server,
    ):
        tick(server, "a", 5)
        server.wait_until_shipped()
        assert views(server, "a") == 5
        told = wait_for(server, lambda told: told["archive"]["status"] == "away")
        assert (told["status"], told["archive"]["events"], told["spool"]["events"]) == ("ok", 5, 5)
        assert told["archive"]["detail"] == "the archive is unavailable at the moment; no event is lost"
        assert server.get("/health/ready/archive")["status"] == "not ready"
        with running_s3_server(port) as s3:
            # There is no such bucket yet: that is told, and waited for, too.
            wait_for(server, lambda _: "the bucket of s3://bucket/x does not exist" in server.log)
            s3.create_bucket("bucket")
            # The worker that answers may hear of the bucket after the other.
            told = wait_for(
                server, lambda told: (told["archive"]["status"], told["archive"]["events"]) == ("ok", 0), 90
            )
            assert told["spool"]["events"] == 0
            verified = run_metronome("verify", "s3://bucket/x", f"--url={server.url}")
            assert verified.exit_code == 0, verified


def test_an_archive_that_is_silent_delays_no_answer_and_no_stop_for_long(tmp_path: Path) -> None:
    with running_s3_server() as s3, environment_variables(s3.environment):
        archive = f"s3://{s3.create_unique_bucket()}/x"
        with Server(tmp_path / "data", archive=archive, archive_roll_bytes=1, stop_seconds=1) as server:
            server.start()
            with s3.paused():
                tick(server, "a", 30)
                server.wait_until_shipped()
                assert views(server, "a") == 30
                assert server.get("/health/ready")["archive"]["events"] == 30
                assert server.stop() == 0
            assert '"all_archived": false' in server.log
            server.start()
            wait_for(server, lambda told: not told["archive"]["events"])
            assert server.stop() == 0
            assert server.error_lines() == []


def test_an_unusable_archive_folder_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run_metronome("serve", archive=f"file://{tmp_path}/file/archive", data=tmp_path / "data", port=0)
    assert ended.exit_code == 2
    assert f"cannot use the folder {tmp_path}/file/archive: " in ended.stderr


def test_an_archive_can_be_given_up_and_taken_on_again(tmp_path: Path) -> None:
    item, archive = unique_name("item"), f"file://{tmp_path}/archive"
    for number, settings in enumerate([{}, {"archive": archive}, {}, {"archive": archive}], start=1):
        with running_server(tmp_path / "data", **settings) as server:
            tick(server, item)
            server.wait_until_shipped()
            assert views(server, item) == number
    objects = [*(tmp_path / "archive").rglob("*.ndjson.gz")]
    assert len(objects) == 2
    assert len({path.name for path in objects}) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_metrics_tell_what_waits_and_what_is_there(tmp_path: Path, workers: int) -> None:
    settings = {"archive": f"file://{tmp_path}/archive", "workers": workers}
    with running_server(tmp_path / "data", **settings) as server:
        tick(server, "a", 3)
        server.wait_until_shipped()
        told = metrics(server)
        assert (told["metronome_unshipped_events"], told["metronome_unarchived_events"]) == (0, 3)
        assert (told["metronome_spool_events"], told["metronome_events_archived_total"]) == (3, 0)
    with running_server(tmp_path / "data", **settings) as server:
        assert metrics(server)["metronome_spool_events"] == 0
