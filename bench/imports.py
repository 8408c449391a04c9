"""``metronome import`` of an access log, and the archive: its cost for the server, and the speed of a replay."""

import time
from statistics import median
from typing import Final

from bench.harness import BenchmarkRow, build_ndjson_bodies, run_load, sized, spread, temporary_folder
from bench.peers import goaccess_rate
from bench.realistic import write_log
from tests.servers import Server, run_metronome, running_server

LINES: Final = sized(300_000, 20_000)
EVENTS_PER_REQUEST: Final = 1000
LOAD_SECONDS: Final = sized(15, 1)
ROUNDS: Final = sized(3, 1)
ARCHIVED_LINES: Final = sized(500_000, 20_000)


def measure_import() -> list[BenchmarkRow]:
    """Alternate between goaccess, which parses a log, and an import of it from the file to DuckDB."""
    own, parsed = list[float](), list[float]()
    with temporary_folder() as folder:
        log = folder / "access.log"
        write_log(log, LINES)
        for number in range(ROUNDS):
            parsed.append(goaccess_rate(log, LINES))
            with running_server(folder / f"data{number}") as server:
                own.append(_command_rate(server, "import", log, lines=LINES))
    return [
        BenchmarkRow(
            f"import of {LINES:,} lines of a real access log with 20,000 addresses, end to end into DuckDB",
            f"{spread(own)} lines/s",
            f"{spread(parsed)} (goaccess parsing it)",
            f"{median(own) / median(parsed):.2f}",
            "≥ 0.8",
        )
    ]


def measure_archive() -> list[BenchmarkRow]:
    """Measure the server with and without an archive, then an import and the replay of its archive."""
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
    """Return how many events per second reach the store, and the archive if *archived*."""
    with temporary_folder() as folder:
        settings = {"archive": f"file://{folder}/archive"} if archived else {}
        with running_server(folder / "data", **settings) as server:
            started = time.monotonic()
            load = run_load(
                f"{server.url}/tick",
                build_ndjson_bodies(20 * EVENTS_PER_REQUEST, EVENTS_PER_REQUEST),
                "application/x-ndjson",
                4,
                LOAD_SECONDS,
            )
            server.wait_until_shipped(600, 0.2)
            return load.requests * EVENTS_PER_REQUEST / (time.monotonic() - started)


def _measure_replay() -> BenchmarkRow:
    with temporary_folder() as folder:
        log, archive = folder / "access.log", f"file://{folder}/archive"
        write_log(log, ARCHIVED_LINES)
        with running_server(folder / "plain") as server:
            imported = _command_rate(server, "import", log)
        with running_server(folder / "archived", archive=archive, stop_seconds=60) as server:
            _command_rate(server, "import", log)
        with running_server(folder / "rebuilt") as server:
            replayed = _command_rate(server, "replay", archive, f"--checkpoint={folder / 'progress'}")
    return BenchmarkRow(
        f"replay of an archive of {ARCHIVED_LINES:,} documents into DuckDB",
        f"{replayed:,.0f} documents/s",
        f"{imported:,.0f} lines/s (import of the same log)",
        f"{replayed / imported:.2f}",
        "≥ 1",
    )


def _command_rate(server: Server, command: str, source: object, *options: str, lines: int = ARCHIVED_LINES) -> float:
    """Return how many lines or documents per second a command brings into the store."""
    started = time.monotonic()
    result = run_metronome(command, source, f"--url={server.url}", *options, timeout=600)
    if result.exit_code:
        raise SystemExit(result.stderr)
    server.wait_until_shipped(600, 0.2)
    return lines / (time.monotonic() - started)
