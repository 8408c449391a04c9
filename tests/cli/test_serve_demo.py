"""``metronome serve --demo`` runs a throwaway server with demo data."""

import re
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from tests.servers import Process, launch_metronome, run_metronome

START_SECONDS: Final = 30.0
LOAD_SECONDS: Final = 120.0
UNUSABLE_STORE: Final = "http://127.0.0.1:9"


def wait_for_log(log: Path, event: str, seconds: float) -> dict[str, Any]:
    """Return the first log event of that name."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in log.read_bytes().splitlines():
            fields: dict[str, Any] = orjson.loads(line)
            if fields["event"] == event:
                return fields
        time.sleep(0.05)
    raise AssertionError(f"no {event} in {log.read_text()}")


def data_folder(process: Process) -> Path:
    """Return the temporary folder in which a process has files open."""
    paths = [str(file.readlink()) for file in Path(f"/proc/{process.pid}/fd").iterdir() if file.is_symlink()]
    found = next(filter(None, (re.match(r".*/metronome-demo-[^/]+", path) for path in paths)))
    return Path(found[0])


@pytest.mark.slow
def test_a_throwaway_server_that_is_stopped_while_it_loads_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        # The environment of another server must not matter.
        process = launch_metronome(
            "serve", "--demo", "--port", 0, output=output, data=tmp_path / "data", store=UNUSABLE_STORE, workers=2
        )
    try:
        wait_for_log(log, "demo_loading", START_SECONDS)
        folder = data_folder(process)
        assert folder.is_dir()
        process.terminate()
        assert process.wait(START_SECONDS) == 0
        assert not folder.exists()
        assert not (tmp_path / "data").exists()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()


@pytest.mark.slow
def test_a_throwaway_server_loads_the_demo_and_ctrl_c_deletes_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = launch_metronome("serve", "--demo", "--port", 0, output=output)
    try:
        loaded = wait_for_log(log, "demo_loaded", LOAD_SECONDS)
        folder = data_folder(process)
        items = get_json(f"{loaded['url']}items.json?limit=100")["items"]
        counts = get_json(f"{loaded['url']}query?by=event&bots=1&limit=0")
        assert len(items) == 40
        assert sum(row[-1] for row in counts["rows"]) >= loaded["events"] > 80_000
        process.send_signal(signal.SIGINT)
        assert process.wait(START_SECONDS) == 0
        assert not folder.exists()
    finally:
        process.kill()


@pytest.mark.parametrize("option", [("--data", "somewhere"), ("--store", "http://localhost:9200"), ("--workers", "2")])
def test_a_throwaway_server_has_its_own_data_folder_store_and_process(option: tuple[str, str]) -> None:
    result = run_metronome("serve", "--demo", *option)
    assert result.exit_code == 2
    assert f"leave out {option[0]}" in result.stderr


def get_json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=START_SECONDS) as response:  # noqa: S310  # our own server
        return orjson.loads(response.read())
