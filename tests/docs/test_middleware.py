"""docs/middleware.md describes every field, event and count, and its examples run unchanged."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest

from metronome.middleware import events
from metronome.middleware.config import ClientConfig
from metronome.middleware.events import REQUEST_FIELDS
from metronome.middleware.matomo import SENT_PARAMETERS
from metronome.middleware.transport import LOGGER_NAME, Stats
from tests.docs.pages import ROOT, first_cells, section, text_of
from tests.middleware.test_matomo import REQUIRED_PARAMETERS
from tests.servers import Server, free_port, running_server

PAGE: Final = "docs/middleware.md"
_EXAMPLE = re.compile(
    r"<!-- executed by tests/docs/test_middleware\.py -->\n```python\n(.*?)^```\n(?:\n```console\n\$ (.*?)\n```)?",
    re.MULTILINE | re.DOTALL,
)
EXAMPLES: Final = _EXAMPLE.findall(text_of(PAGE))
SERVICES: Final = [example for example in EXAMPLES if example[1]]
SCRIPTS: Final = [example for example in EXAMPLES if not example[1]]


def test_every_field_of_the_configuration_is_described_with_its_default() -> None:
    table = section(PAGE, "Configuration")
    assert first_cells(table) >= {field.name for field in fields(ClientConfig)}
    rows = {row.split("|")[1].strip(" `"): row.split("|")[2].strip(" `") for row in table.splitlines() if "| `" in row}
    for field in fields(ClientConfig):
        documented = rows[field.name].replace("_", "").strip('"')
        if field.name not in {"url", "dimensions"}:
            assert documented == (str(field.default) if field.default else "none"), field.name


def test_every_field_of_a_request_is_described_with_its_parameter() -> None:
    table = section(PAGE, "Request fields")
    assert first_cells(table) >= {*REQUEST_FIELDS, "event_id"}
    assert [name for name in REQUIRED_PARAMETERS if not re.search(rf"`{re.escape(name)}[`=]", table)] == []
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", table, re.MULTILINE))
    irregular = {"ts": "cdt", "action": "action_name", "duration": "pf_srv", "clientip": "cip", "event_id": "rand"}
    assert {
        field: parameter for field, parameter in rows.items() if field not in irregular
    }.items() <= SENT_PARAMETERS.items()
    assert {field: rows[field] for field in irregular} == irregular


def test_every_function_that_returns_an_event_is_described() -> None:
    assert first_cells(section(PAGE, "Custom events")) >= {*events.__all__}


def test_every_count_and_the_logger_are_described() -> None:
    text = section(PAGE, "When the target is unavailable")
    assert [name for name in (*Stats._fields, LOGGER_NAME) if f"`{name}`" not in text] == []


@contextlib.contextmanager
def running(example: tuple[str, str], server: Server, folder: Path) -> Iterator[int]:
    """Run a service of the page against a server, and yield its port."""
    code, command = example
    port = free_port()
    (folder / "service.py").write_text(code.replace("http://localhost:8080", server.url))
    arguments = shlex.split(command.replace("localhost", "127.0.0.1").replace("8000", str(port)))
    assert arguments[0] == "python"
    environment = os.environ | {"PYTHONWARNINGS": ""}
    with (folder / "service.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments[1:]], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield port
        process.terminate()
        process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def get_status(port: int, path: str) -> int:
    """Send a request to a service, once it listens, and return the status."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.slow  # starts a service and a server
@pytest.mark.parametrize("example", SERVICES, ids=["FastAPI", "Flask", "Django", "aiohttp"])
def test_an_example_runs_and_its_item_has_views(example: tuple[str, str], tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with running(example, server, tmp_path) as port:
            assert get_status(port, "/health") == 404
            for _ in range(3):
                assert get_status(port, "/datasets/rivers") == 200
        server.wait_until_shipped()
        tock = server.get("/tock/rivers.json")
        assert list(tock["views"].values()) == [3]
        actions = server.get("/query?metrics=count&by=action")["rows"]
    assert actions == [["GET /datasets/:name", 3]]


@pytest.mark.slow  # starts a server
def test_the_example_of_custom_events_runs(tmp_path: Path) -> None:
    ((code, _),) = SCRIPTS
    with running_server(tmp_path / "data") as server:
        script = code.replace("http://localhost:8080", server.url)
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
        server.wait_until_shipped()
        rows = server.get("/query?metrics=count&by=event")["rows"]
    assert sorted(rows) == [["event", 1], ["order", 1], ["shared", 1]]
