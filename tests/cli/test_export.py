"""``metronome export`` and ``metronome load`` between real servers."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import orjson
import pytest

from tests.servers import (
    CommandResult,
    Server,
    delete_indices,
    launch_metronome,
    run_metronome,
    running_server,
    unique_name,
)

DOCUMENTS = [
    orjson.dumps(
        {
            "@timestamp": f"2015-01-{1 + number % 9:02}T09:30:00.000Z",
            "event_id": f"e{number:03}",
            "id": f"item{number % 3}",
            "event": "view",
            "duration": number / 8,
            "params": {"é": "=x"},
            **({"bot": "GoogleBot"} if number % 2 else {}),
        }
    )
    for number in range(100)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("export")
    (folder / "in.ndjson").write_bytes(b"\n".join(DOCUMENTS))
    with running_server(folder / "data") as running:
        assert load(running, folder / "in.ndjson").exit_code == 0
        yield running


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def export(server: Server, *arguments: object) -> CommandResult:
    return run_metronome("export", *arguments, f"--url={server.url}")


def load(server: Server, *arguments: object) -> CommandResult:
    return run_metronome("load", *arguments, f"--url={server.url}")


# Each starts a server.
@pytest.mark.parametrize(
    "suffix", ["parquet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ndjson", "csv"))]
)
def test_another_server_gets_the_same_documents(server: Server, suffix: str, tmp_path: Path) -> None:
    file, again = tmp_path / f"all.{suffix}", tmp_path / "again.ndjson"
    exported = export(server, file)
    assert (exported.exit_code, exported.stdout.split()[:2]) == (0, ["documents", "100"])
    with running_server(tmp_path / "data") as other:
        loaded = load(other, file)
        assert "new in the store                 100" in loaded.stdout
        assert "already stored                   100" in load(other, file).stdout
        assert export(other, again).exit_code == 0
    assert sorted(again.read_bytes().splitlines()) == sorted(DOCUMENTS)


def test_filters_and_ranges_select(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "some.ndjson"
    assert export(server, "id=item1", "bot!=*", "--from=2015-01-03", "--to=2015-01-05", file).exit_code == 0
    chosen = [
        line
        for number, line in enumerate(DOCUMENTS)
        if number % 3 == 1 and number % 2 == 0 and 3 <= 1 + number % 9 <= 5
    ]
    assert sorted(file.read_bytes().splitlines()) == chosen


def test_an_export_continues_after_what_it_has(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "all.ndjson"
    assert export(server, file).exit_code == 0
    lines = file.read_bytes().splitlines(keepends=True)
    file.unlink()
    (tmp_path / "all.ndjson.part").write_bytes(b"".join(lines[:70]) + lines[70][:5])
    (tmp_path / "all.ndjson.part.selection").write_text(f"{server.url}?tz=UTC\n")
    exported = export(server, file)
    assert "continuing after 70 documents" in exported.stderr
    assert file.read_bytes() == b"".join(lines)


def test_a_lost_server_leaves_no_half_file(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        server.stop()
        exported = export(server, tmp_path / "all.csv", "--retry-timeout=0")
    assert exported.exit_code == 1
    assert "start the server" in exported.stderr or "run the same command again" in exported.stderr
    assert not (tmp_path / "all.csv").exists()


def test_rejects_other_files(server: Server, tmp_path: Path) -> None:
    assert export(server, tmp_path / "all.xlsx").exit_code == 2
    (tmp_path / "other.csv").write_text("a,b\n")
    loaded = load(server, tmp_path / "other.csv")
    assert (loaded.exit_code, "expected a file of `metronome export`" in loaded.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("killing", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_commands_continue(killing: signal.Signals, tmp_path: Path) -> None:
    """A quarter of a million documents take both commands seconds, in which they are stopped."""
    lines = [
        b'{"@timestamp":"2015-01-%02dT%02d:%02d:00.000Z","event_id":"%d","event":"view"}\n'
        % (1 + number % 28, number // 28 % 24, number // 700 % 60, number)
        for number in range(250_000)
    ]
    (tmp_path / "in.ndjson").write_bytes(b"".join(lines))
    with running_server(tmp_path / "data") as server, TemporaryFile() as output:
        for arguments in (
            ("load", tmp_path / "in.ndjson", f"--url={server.url}"),
            ("export", tmp_path / "out.ndjson", f"--url={server.url}"),
        ):
            for seconds in (2.0, 3.0):
                process = launch_metronome(*arguments, output=output)
                time.sleep(seconds)
                if process.poll() is None:
                    process.send_signal(killing)
                process.wait()
            assert run_metronome(*arguments).exit_code == 0
    assert sorted((tmp_path / "out.ndjson").read_bytes().splitlines(keepends=True)) == sorted(lines)


@pytest.mark.slow
@pytest.mark.elasticsearch
def test_documents_move_from_duckdb_to_elasticsearch_and_back(
    server: Server, elasticsearch_url: str, tmp_path: Path
) -> None:
    prefix = unique_name("test")
    assert export(server, tmp_path / "first.ndjson").exit_code == 0
    with running_server(tmp_path / "data", store=elasticsearch_url, index_prefix=prefix) as other:
        try:
            assert load(other, tmp_path / "first.ndjson").exit_code == 0
            while other.get("/query?bots=1")["rows"] != [[len(DOCUMENTS)]]:
                time.sleep(0.1)
            assert export(other, tmp_path / "second.ndjson").exit_code == 0
        finally:
            delete_indices(elasticsearch_url, prefix)
    assert (tmp_path / "second.ndjson").read_bytes() == (tmp_path / "first.ndjson").read_bytes()
