"""The archive: what it costs the server that writes one, and how fast a replay is beside an import."""

import time
from typing import Final

from bench.events import lines
from bench.figures import Row, post, scratch
from bench.imports import write_log
from tests.servers import Server, run_metronome, serving

EACH: Final = 1000
SECONDS: Final = 15
ROUNDS: Final = 3
LINES: Final = 500_000


def measure() -> list[Row]:
    """Measure the server without and with an archive, in turns; then an import, and the replay of what it left."""
    return [_cost(), _replay()]


def _cost() -> Row:
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for archived in (False, True):
            rates[archived].append(_end_to_end(archived=archived))
    without, with_archive = (sorted(rates[archived])[ROUNDS // 2] for archived in (False, True))
    return Row(
        f"NDJSON end to end into DuckDB with the archive on (a folder), median of {ROUNDS} in turns",
        f"{with_archive:,.0f} events/s",
        f"{without:,.0f} (without the archive)",
        f"{with_archive / without:.2f}",
        "≥ 0.9",
    )


def _end_to_end(*, archived: bool) -> float:
    """Return how many events a second come in and reach the store, and the archive if there is one."""
    with scratch() as folder:
        settings = {"archive": f"file://{folder}/archive"} if archived else {}
        with serving(folder / "data", **settings) as server:
            began = time.monotonic()
            load = post(f"{server.url}/tick", lines(20 * EACH, EACH), "application/x-ndjson", 4, SECONDS)
            server.wait_until_shipped(600, 0.2)
            return load.requests * EACH / (time.monotonic() - began)


def _replay() -> Row:
    with scratch() as folder:
        log, archive = folder / "access.log", f"file://{folder}/archive"
        write_log(log, LINES)
        with serving(folder / "plain") as server:
            imported = _rate(server, "import", log)
        with serving(folder / "archived", archive=archive, stop_seconds=60) as server:
            _rate(server, "import", log)
        with serving(folder / "rebuilt") as server:
            replayed = _rate(server, "replay", archive, f"--progress={folder / 'progress'}")
    return Row(
        f"replay of an archive of {LINES:,} documents into DuckDB",
        f"{replayed:,.0f} documents/s",
        f"{imported:,.0f} lines/s (import of the same log)",
        f"{replayed / imported:.2f}",
        "≥ 1",
    )


def _rate(server: Server, command: str, what: object, *options: str) -> float:
    """Return how many lines or documents a second a command brings into a server's store."""
    began = time.monotonic()
    ended = run_metronome(command, what, f"--url={server.url}", *options, seconds=600)
    if ended.code:
        raise SystemExit(ended.errors)
    server.wait_until_shipped(600, 0.2)
    return LINES / (time.monotonic() - began)
