"""The FastAPI example, and what Metronome counts."""

import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import orjson
import pytest

from tests.examples.services import examples, run, started
from tests.servers import Server, running_server

pytestmark = pytest.mark.slow  # starts a service and a server

NAME = "fastapi"


def wait_for(server: Server, count: int) -> None:
    while server.accepted_events() < count:
        time.sleep(0.02)
    server.wait_until_shipped()


def test_the_steps_of_the_readme_give_the_output_that_it_shows(tmp_path: Path) -> None:
    *steps, (usage, usage_output) = examples(NAME)
    assert len(steps) == 3
    with running_server(tmp_path / "data") as server, started(NAME, server, tmp_path) as url:
        for step, output in steps:
            assert run(step, url).splitlines() == output.splitlines()
        wait_for(server, len(steps) + 1)
        actual, documented = orjson.loads(run(usage, url)), orjson.loads(usage_output)
        assert actual["downloads"] == documented["downloads"]
        assert list(actual["views"].values()) == list(documented["views"].values())


def test_views_downloads_searches_and_errors_are_counted(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with started(NAME, server, tmp_path) as url:
            for path in ("/datasets", "/datasets/lakes", "/datasets/lakes", "/datasets/lakes.csv", "/search?q=aare"):
                urllib.request.urlopen(url + path, timeout=30).close()  # noqa: S310  # the example
            with pytest.raises(urllib.error.HTTPError, match="404") as missing:
                urllib.request.urlopen(f"{url}/datasets/hills", timeout=30)  # noqa: S310  # the example
            missing.value.close()
        server.wait_until_shipped()
        tock = server.get("/tock/lakes.json")
        assert (list(tock["views"].values()), tock["downloads"]) == ([2], {"csv": 1})
        by_event = dict(server.get("/query?metrics=count&by=event&bots=1")["rows"])
        by_action = dict(server.get("/query?metrics=count&by=action&bots=1")["rows"])
        searches = server.get("/query?metrics=count,max:search_count&by=search&event=search&bots=1")["rows"]
    assert by_event == {"view": 2, "download": 1, "request": 2, "error": 1, "search": 1}
    assert by_action == {
        "GET /datasets": 1,
        "GET /datasets/:name": 3,
        "GET /datasets/:name.csv": 1,
        "GET /search": 1,
    }
    assert searches == [["aare", 1, 1]]


def test_while_metronome_is_down_it_responds_and_reports_usage_as_unavailable(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server, started(NAME, server, tmp_path) as url:
        assert run(f"curl -s {url}/datasets/rivers", url).startswith('{"name":"rivers"')
        process = subprocess.run(
            ["curl", "-s", "-w", "%{http_code}", f"{url}/datasets/rivers/usage"],  # noqa: S607  # the machine's
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert process.stdout.endswith("503")
