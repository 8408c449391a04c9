"""Full disks, and files that are deleted, replaced or damaged: what was acknowledged is stored, once."""

import shutil
import subprocess
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.faults.observations import health, is_ready, log_lines, wait_until
from tests.faults.rounds import SentEvents, ServerFactory, count_marks_in_duckdb, ship_and_stop
from tests.servers import Server, free_port, unique_name

DISK_MIB: Final = 320
"""A server leaves 256 MiB of its disk free."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk; without the right to do so, the tests fail rather than be skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "metronome-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.stderr}; run this as root, in a container with --cap-add SYS_ADMIN")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607  # as mount, wherever it is


def send(server: Server, sent: SentEvents, count: int = 1) -> bool:
    """Send events one by one, and return whether all were acknowledged."""
    accepted = True
    for _ in range(count):
        mark = unique_name()
        sent.attempted.add(mark)
        try:
            server.post_events(orjson.dumps({"id": "x", "mark": mark}))
        except urllib.error.HTTPError as error:
            with error:
                is_retryable = error.code == 503 and int(error.headers["Retry-After"]) > 0
            if not is_retryable:
                raise
            accepted = False
        else:
            sent.acknowledged.add(mark)
    return accepted


def check(server: Server, sent: SentEvents) -> None:
    """Check that the store has what was acknowledged, once, and nothing that was refused."""
    ship_and_stop(server)
    stored = count_marks_in_duckdb(server)
    sent.check(stored, at_least=1)
    assert stored.keys() == sent.acknowledged


def fill(folder: Path, free_mib: int) -> None:
    """Fill a disk, except for some space."""
    free = shutil.disk_usage(folder).free - free_mib * 2**20
    with (folder / "filler").open("wb") as file, suppress(OSError):
        for _ in range(max(0, free) >> 20):
            file.write(b"x" * 2**20)


def test_a_server_is_not_ready_while_it_refuses_events_for_a_full_disk(
    new_server: ServerFactory, small_disk: Path
) -> None:
    server, sent = new_server(small_disk / "data"), SentEvents()
    server.start()
    assert send(server, sent, 5)
    server.wait_until_shipped()
    for free_mib in (200, 0):
        fill(small_disk, free_mib)
        wait_until(lambda: not send(server, sent), "events are refused")
        assert not is_ready(server)
        assert health(server, "spool") == "full"
        (small_disk / "filler").unlink()
        wait_until(lambda: send(server, sent), "events are accepted again")
        assert is_ready(server)
    assert len(log_lines(server, "disk_full")) == len(log_lines(server, "disk_has_space")) == 2
    assert "free disk space" in log_lines(server, "disk_full")[0]["advice"]
    check(server, sent)


@pytest.mark.parametrize("name", ["spool.sqlite", "spool.sqlite-wal"])
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_events_are_refused_while_the_spool_s_file_is_gone(
    new_server: ServerFactory, data: Path, *, name: str, replaced: bool, workers: int
) -> None:
    server, sent = new_server(data, workers=workers), SentEvents()
    server.start()
    assert send(server, sent, 5)
    for folder in data.glob("spool/*/"):
        (folder / name).rename(folder / "moved")
        if replaced:
            shutil.copy(folder / "moved", folder / name)
    assert not send(server, sent)
    if name == "spool.sqlite":
        assert not is_ready(server)
        assert health(server, "spool") == "away"
    assert "restart Metronome" in log_lines(server, "spool_file_lost")[0]["advice"]
    for folder in data.glob("spool/*/"):
        (folder / "moved").rename(folder / name)
    assert send(server, sent, 5)
    assert is_ready(server)
    assert log_lines(server, "spool_file_back")
    check(server, sent)


def overwrite_start(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 4096)


def overwrite_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 16384 * 16384)
        file.write(b"\xff" * 16384)


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "at_least"), [(overwrite_start, 0), (overwrite_middle, 30), (truncate, 10), (empty, 0)]
)
def test_a_server_starts_with_a_damaged_spool_and_salvages_what_can_be_read(
    new_server: ServerFactory, data: Path, damage: Callable[[Path], None], at_least: int
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    server, sent = new_server(data, store=away, stop_seconds=1, enrich="off"), SentEvents()
    server.start()
    marks = [unique_name() for _ in range(100)]
    for mark in marks:
        # Each commit takes a page of its own, or more.
        server.post_events(orjson.dumps({"id": "x", "mark": mark, "text": "y" * 20_000}))
    server.stop()
    damage(data / "spool" / "0" / "spool.sqlite")
    server = new_server(data, enrich="off")
    server.start()
    assert send(server, sent, 5)
    assert is_ready(server)
    ship_and_stop(server)
    stored = count_marks_in_duckdb(server)
    assert sent.acknowledged <= stored.keys()
    assert set(stored.values()) == {1}
    salvaged = stored.keys() & set(marks)
    assert len(salvaged) >= at_least
    assert stored.keys() <= set(marks) | sent.acknowledged
    if damage is not empty:
        # An empty file is a new spool.
        (line,) = log_lines(server, "spool_damaged")
        assert line["salvaged"] == len(salvaged)
        assert (Path(line["set_aside"]) / "spool.sqlite").exists()
        assert "check the disk" in line["advice"]
