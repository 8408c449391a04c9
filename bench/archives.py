"""The archive: what it costs the server that writes one, and how fast a replay is beside an import."""

import time
from typing import Final

from bench.events import build_ndjson_bodies
from bench.figures import BenchmarkRow, run_load, temporary_folder
from bench.imports import write_log
from tests.servers import Server, run_metronome, running_server

EVENTS_PER_REQUEST: Final = 1000
LOAD_SECONDS: Final = 15
ROUNDS: Final = 3
LINES: Final = 500_000


def measure() -> list[BenchmarkRow]:
    """Measure the server without and with an archive, in turns; then an import, and the replay of what it left."""
    return [_measure_overhead(), _measure_replay()]


def _measure_overhead() -> BenchmarkRow:
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for archived in (False, True):
            rates[archived].append(_end_to_end(archived=archived))
    without, with_archive = (sorted(rates[archived])[ROUNDS // 2] for archived in (False, True))
    return BenchmarkRow(
        f"NDJSON end to end into DuckDB with the archive on (a folder), median of {ROUNDS} in turns",
        f"{with_archive:,.0f} events/s",
        f"{without:,.0f} (without the archive)",
        f"{with_archive / without:.2f}",
        "≥ 0.9",
    )


def _end_to_end(*, archived: bool) -> float:
    """Return how many events a second come in and reach the store, and the archive if there is one."""
    with temporary_folder() as folder:
        settings = {"archive": f"file://{folder}/archive"} if archived else {}
        with running_server(folder / "data", **settings) as server:
            began = time.monotonic()
            load = run_load(
                f"{server.url}/tick",
                build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST),
                "application/x-ndjson",
                4,
                LOAD_SECONDS,
            )
            server.wait_until_shipped(600, 0.2)
            return load.requests * EVENTS_PER_REQUEST / (time.monotonic() - began)


def _measure_replay() -> BenchmarkRow:
    with temporary_folder() as folder:
        log, archive = folder / "access.log", f"file://{folder}/archive"
        write_log(log, LINES)
        with running_server(folder / "plain") as server:
            imported = _command_rate(server, "import", log)
        with running_server(folder / "archived", archive=archive, stop_seconds=60) as server:
            _command_rate(server, "import", log)
        with running_server(folder / "rebuilt") as server:
            replayed = _command_rate(server, "replay", archive, f"--checkpoint={folder / 'progress'}")
    return BenchmarkRow(
        f"replay of an archive of {LINES:,} documents into DuckDB",
        f"{replayed:,.0f} documents/s",
        f"{imported:,.0f} lines/s (import of the same log)",
        f"{replayed / imported:.2f}",
        "≥ 1",
    )


def _command_rate(server: Server, command: str, source: object, *options: str) -> float:
    """Return how many lines or documents a second a command brings into a server's store."""
    began = time.monotonic()
    ended = run_metronome(command, source, f"--url={server.url}", *options, timeout=600)
    if ended.exit_code:
        raise SystemExit(ended.stderr)
    server.wait_until_shipped(600, 0.2)
    return LINES / (time.monotonic() - began)
