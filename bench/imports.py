"""``metronome import`` of an access log, from the file to the embedded store."""

import random
import time
from pathlib import Path
from typing import Final

from bench.events import FORMATS, ITEMS, REFERERS
from bench.figures import BenchmarkRow, temporary_folder
from tests.servers import run_metronome, running_server

LINES: Final = 1_000_000
_AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 26_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)


def measure() -> list[BenchmarkRow]:
    """Import a log of a million lines."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        log = folder / "access.log"
        write_log(log, LINES)
        began = time.monotonic()
        ended = run_metronome("import", log, "--url", server.url, timeout=600)
        if ended.exit_code:
            raise SystemExit(ended.stderr)
        server.wait_until_shipped(600, 0.2)
        rate = LINES / (time.monotonic() - began)
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
    """Write an access log of so many lines."""
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
