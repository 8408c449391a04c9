"""The Flask example, and what Metronome counts."""

import urllib.error
import urllib.request
from pathlib import Path

import orjson
import pytest

from tests.examples.services import examples, run, started
from tests.examples.test_fastapi import wait_for
from tests.servers import running_server

pytestmark = pytest.mark.slow  # starts a service and a server

NAME = "flask"


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


def test_views_downloads_ratings_and_log_records_are_counted(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with started(NAME, server, tmp_path) as url:
            for path in ("/datasets", "/datasets/lakes", "/datasets/lakes", "/datasets/lakes.csv"):
                urllib.request.urlopen(url + path, timeout=30).close()  # noqa: S310  # the example
            run(f"curl -s -d stars=4 {url}/datasets/lakes/ratings", url)
            with pytest.raises(urllib.error.HTTPError, match="400") as rejected:
                urllib.request.urlopen(f"{url}/datasets/lakes/ratings", b"stars=9", timeout=30)  # noqa: S310  # the example
            rejected.value.close()
        server.wait_until_shipped()
        tock = server.get("/tock/lakes.json")
        assert (list(tock["views"].values()), tock["downloads"]) == ([2], {"csv": 1})
        by_event = dict(server.get("/query?metrics=count&by=event&bots=1")["rows"])
        by_message = dict(server.get("/query?metrics=count&by=message&event=log&bots=1")["rows"])
        ratings = server.get("/query?metrics=count,avg:value&by=id&event=event&bots=1")["rows"]
    assert by_event == {"view": 2, "download": 1, "request": 2, "event": 1, "error": 1, "log": 1}
    assert by_message == {"a rating of 9 stars": 1}
    assert ratings == [["lakes", 1, 4]]
