"""``metronome import --follow`` imports logs that grow and are rotated, in real processes."""

import gzip
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

from metronome.cli import app
from tests.servers import Server, launch_metronome, run_metronome, running_server, unique_name

SECONDS: Final = 90.0
QUIET_SECONDS: Final = 0.02


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("follow") / "data") as running:
        yield running


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} does not come"
        time.sleep(QUIET_SECONDS)


class Follower:
    """A ``metronome import --follow`` of its own."""

    def __init__(self, folder: Path, url: str, *files: Path, options: tuple[str, ...] = ()) -> None:
        self.output = folder / "follower.log"
        self.positions = folder / "positions.json"
        words = ("--url", url, "--positions", str(self.positions), *options)
        with self.output.open("ab") as output:
            self.process = launch_metronome("import", "--follow", *files, *words, output=output)

    @property
    def said(self) -> str:
        return self.output.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


class Scene:
    """A log that is written to, the commands that follow it, and what the server counts of it."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.item = unique_name("/")
        self.log = folder / "access.log"
        self.written = 0

    def lines(self, count: int) -> str:
        """Return new lines, no two of them alike."""
        first = self.written
        self.written += count
        return "".join(
            f'192.0.2.1 - - [17/May/2025:10:05:03 +0000] "GET {self.item}?{number} HTTP/1.1" 200 5 "-" "curl/8"\n'
            for number in range(first, self.written)
        )

    def write(self, count: int, log: Path | None = None) -> None:
        with (log or self.log).open("a") as file:
            file.write(self.lines(count))

    @contextmanager
    def following(self, *files: Path, options: tuple[str, ...] = (), expected: int = 0) -> Iterator[Follower]:
        follower = Follower(self.folder, self.server.url, *(files or (self.log,)), options=options)
        try:
            yield follower
            assert follower.process.poll() is not None or follower.stop() == expected
        finally:
            if follower.process.poll() is None:
                follower.process.kill()
                follower.process.wait()

    def counted(self) -> int:
        item = quote(self.item, safe="")
        return sum(self.server.get(f"/tock/{item}.json?bots=1&limit=0")["views"].values())

    def wait(self, count: int | None = None) -> None:
        """Wait until all that was written is counted, or as many as are said."""
        number = self.written if count is None else count
        wait_for(lambda: self.counted() >= number, f"{number} (there are {self.counted()})")

    def check(self) -> None:
        """See that all was counted, and nothing twice."""
        self.server.wait_until_shipped()
        assert self.counted() == self.written


@pytest.fixture
def scene(tmp_path: Path, server: Server) -> Scene:
    return Scene(tmp_path, server)


@pytest.mark.slow
def test_imports_complete_lines_as_a_log_grows(scene: Scene) -> None:
    scene.write(3)
    with scene.following():
        scene.wait()
        scene.write(2)
        line = scene.lines(1)
        with scene.log.open("a") as file:
            file.write(line[:-5])
        scene.wait(5)
        with scene.log.open("a") as file:
            file.write(line[-5:])
        scene.wait()
    scene.check()


def test_waits_for_a_log_to_be_created(scene: Scene) -> None:
    with scene.following() as follower:
        wait_for(lambda: "does not exist yet" in follower.said, "the sentence")
        scene.write(2)
        scene.wait()
    scene.check()


@pytest.mark.slow
def test_reads_a_renamed_log_to_its_end(scene: Scene) -> None:
    scene.write(2)
    renamed = scene.folder / "access.log.1"
    with scene.following():
        scene.wait()
        scene.log.rename(renamed)
        scene.write(1, renamed)
        scene.wait()
        scene.write(2)
        scene.wait()
        scene.write(1, renamed)
        scene.wait()
        (scene.folder / "access.log.1.gz").write_bytes(gzip.compress(renamed.read_bytes()))
        renamed.unlink()
        scene.write(1)
        scene.wait()
    assert run_metronome("import", scene.folder / "access.log.1.gz", "--url", scene.server.url).exit_code == 0
    scene.check()


@pytest.mark.slow
@pytest.mark.parametrize("regrown", [0, 1, 9])
def test_reads_a_log_that_is_copied_and_truncated(scene: Scene, regrown: int) -> None:
    scene.write(4)
    with scene.following():
        scene.wait()
        # Written after the last look, so that only the copy has it.
        scene.write(1)
        (scene.folder / "access.log.1").write_bytes(scene.log.read_bytes())
        scene.log.write_text(scene.lines(regrown))
        scene.wait()
        scene.write(2)
        scene.wait()
    scene.check()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_resumes_after_a_restart(scene: Scene, number: signal.Signals) -> None:
    scene.write(5000)
    with scene.following(options=("--batch", "500")) as follower:
        wait_for(follower.positions.exists, "the positions")
        assert follower.stop(number) == {signal.SIGTERM: 0, signal.SIGINT: 130}.get(number, -number)
    scene.write(300)
    with scene.following():
        scene.wait()
    scene.check()
    before = scene.server.accepted_events()
    scene.write(7)
    with scene.following():
        scene.wait()
    scene.check()
    assert scene.server.accepted_events() == before + 7


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, b"", b'{"logs":[{"url":1}]}', b'{"logs":7}', "other"])
def test_reads_a_log_again_without_valid_positions(scene: Scene, content: bytes | str | None) -> None:
    scene.write(3)
    with scene.following() as follower:
        scene.wait()
    if content is None:
        follower.positions.unlink()
    elif content == "other":
        text = follower.positions.read_text()
        follower.positions.write_text(text.replace('"offset":', '"offset":9'))
    else:
        assert isinstance(content, bytes)
        follower.positions.write_bytes(content)
    scene.write(1)
    with scene.following():
        scene.wait()
    scene.check()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["renamed", "renamed twice", "compressed", "copied and truncated", "moved and gone"])
def test_imports_what_was_rotated_while_not_following(scene: Scene, way: str) -> None:
    scene.write(3)
    with scene.following():
        scene.wait()
    scene.write(2)
    first = scene.folder / ("elsewhere" if way == "moved and gone" else "access.log.1")
    if way == "copied and truncated":
        first.write_bytes(scene.log.read_bytes())
        scene.log.write_text("")
    else:
        scene.log.rename(first)
    if way == "compressed":
        (scene.folder / "access.log.1.gz").write_bytes(gzip.compress(first.read_bytes()))
        first.unlink()
    if way == "renamed twice":
        first.rename(scene.folder / "access.log.2")
        scene.write(4, first)
    if way != "moved and gone":
        scene.write(1)
    with scene.following():
        scene.wait()
    scene.check()


@pytest.mark.slow
def test_waits_for_an_unreachable_server(scene: Scene, tmp_path: Path) -> None:
    with Server(tmp_path / "own") as server:
        server.start()
        scene.server = server
        scene.write(3)
        with scene.following(options=("--retry-timeout", "0")) as follower:
            scene.wait()
            server.kill()
            scene.write(2)
            wait_for(lambda: "does not respond" in follower.said, "the sentence")
            scene.log.rename(scene.folder / "access.log.1")
            scene.write(2)
            server.start()
            scene.wait()
        assert follower.said.count("does not respond") == 1
        scene.check()
        server.stop()


@pytest.mark.slow
def test_positions_exclude_what_the_server_has_not_acknowledged(scene: Scene) -> None:
    with Server(scene.folder / "own") as away:
        scene.write(3)
        follower = Follower(scene.folder, away.url, scene.log)
        wait_for(lambda: "does not respond" in follower.said, "the sentence")
        # It gives what is on its way a few seconds.
        assert follower.stop(signal.SIGINT) == 130
        assert '"offset":0,' in follower.positions.read_text()
        assert "accepted by the server" in follower.said


def test_follows_several_logs(scene: Scene) -> None:
    other = scene.folder / "other.log"
    scene.write(1)
    scene.write(2, other)
    with scene.following(scene.log, other):
        scene.wait()
        scene.write(1, other)
        scene.write(1)
        scene.wait()
    scene.check()


@pytest.mark.slow
def test_knows_the_columns_of_a_log_after_a_restart(scene: Scene) -> None:
    def hits(count: int) -> str:
        scene.written += count
        return "".join(f"10:05:{scene.written:02} {number} GET {scene.item} 200\n" for number in range(count))

    scene.log.write_text(
        "#Software: a server\n#Date: 2025-05-17 10:00:00\n#Fields: time c-port cs-method cs-uri-stem sc-status\n"
    )
    with scene.following():
        with scene.log.open("a") as file:
            file.write(hits(3))
        scene.wait()
    with scene.log.open("a") as file:
        file.write(hits(2))
    with scene.following() as follower:
        scene.wait()
    assert "unreadable                         0" in follower.said
    scene.check()


def test_reports_a_log_of_unknown_format_and_follows_the_others(scene: Scene) -> None:
    other = scene.folder / "diary"
    other.write_text("dear diary\n" * 300)
    with scene.following(scene.log, other) as follower:
        scene.write(2)
        scene.wait()
        wait_for(lambda: "unknown log format" in follower.said, "the sentence")
        other.rename(scene.folder / "diary.1")
        scene.write(1, other)
        scene.wait()
    scene.check()


def test_rejects_files_that_cannot_be_followed(tmp_path: Path) -> None:
    log = tmp_path / "access.log.gz"
    log.write_bytes(gzip.compress(b"x"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for arguments, says in [
        (("-",), "cannot follow standard input"),
        ((log,), ": compressed files do not grow"),
        ((tmp_path,), ": not a regular file"),
        ((pipe,), ": not a regular file"),
        ((tmp_path / "a" / "b",), ": no such folder"),
        ((log, "--dry-run"), "--dry-run cannot be combined with --follow"),
        ((log, "--positions", log / "x"), "cannot create the folder of --positions"),
    ]:
        words = ["import", "--follow", "--positions", tmp_path / "p.json", *arguments]
        ended = CliRunner().invoke(app, [str(word) for word in words])
        assert (ended.exit_code, says in ended.stderr) == (2, True), ended.output
