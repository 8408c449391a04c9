"""``metronome import`` of an access log, and the archive: its cost for the server, and the speed of a replay."""

import random
import time
from pathlib import Path
from typing import Final

from bench.harness import (
    FORMATS,
    ITEMS,
    REFERERS,
    BenchmarkRow,
    build_ndjson_bodies,
    run_load,
    sized,
    temporary_folder,
)
from tests.servers import Server, run_metronome, running_server

LINES: Final = sized(1_000_000, 20_000)
EVENTS_PER_REQUEST: Final = 1000
LOAD_SECONDS: Final = sized(15, 1)
ROUNDS: Final = sized(3, 1)
ARCHIVED_LINES: Final = sized(500_000, 20_000)
_AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 26_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)


def measure_import() -> list[BenchmarkRow]:
    """Measure an import from the file to DuckDB."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        log = folder / "access.log"
        write_log(log, LINES)
        started = time.monotonic()
        result = run_metronome("import", log, "--url", server.url, timeout=600)
        if result.exit_code:
            raise SystemExit(result.stderr)
        server.wait_until_shipped(600, 0.2)
        rate = LINES / (time.monotonic() - started)
    return [
        BenchmarkRow(
            "import of an access log (Combined), end to end into DuckDB",
            f"{rate:,.0f} lines/s",
            "",
            "",
            "≥ 50,000",
        )
    ]


def write_log(path: Path, count: int) -> None:
    """Write an access log of *count* lines."""
    draw = random.Random(1)
    with path.open("w") as log:
        for number in range(count):
            item = 0 if draw.random() < 0.1 else draw.randrange(1, ITEMS)
            form = f"/data.{draw.choice(FORMATS)}" if draw.random() < 0.2 else ""
            referer = draw.choice(REFERERS) if draw.random() < 0.4 else "-"
            minute, second = divmod(number // 300, 60)
            log.write(
                f"203.0.{draw.randrange(256)}.{draw.randrange(256)} - - [17/May/2026:{minute // 60 % 24:02}:"
                f"{minute % 60:02}:{second:02} +0000] "
                f'"GET /datasets/doc{item}{form} HTTP/1.1" 200 {draw.randrange(200, 90_000)} "{referer}" '
                f'"{draw.choice(_AGENTS)}"\n'
            )


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


def _command_rate(server: Server, command: str, source: object, *options: str) -> float:
    """Return how many lines or documents per second a command brings into the store."""
    started = time.monotonic()
    result = run_metronome(command, source, f"--url={server.url}", *options, timeout=600)
    if result.exit_code:
        raise SystemExit(result.stderr)
    server.wait_until_shipped(600, 0.2)
    return ARCHIVED_LINES / (time.monotonic() - started)
