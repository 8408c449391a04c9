"""Run the tests marked ``clock`` at other dates, under libfaketime: ``python tests/clock/run.py [pytest's arguments]``.

Each process of a run, servers included, sees its clock shifted by the same time; the monotonic clock and sleeps stay
right. Programs written in Go do not follow libfaketime.
"""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PARALLEL_RUNS: Final = 2
SELECTION: Final = ("-m", "clock", "-k", "not crew")
"""A crew is a server with several workers: for the clock, one process is enough."""
MISSING: Final = "libfaketime is missing: install it with `apt-get install faketime` (Debian, Ubuntu)"


@dataclass(frozen=True)
class Instant:
    """A time at which the tests run, and the time zone of the machine."""

    name: str
    when: datetime
    zone: str

    @property
    def offset(self) -> str:
        """The shift of the clock from now on, as libfaketime reads it."""
        return f"{round((self.when - datetime.now(UTC)).total_seconds()):+d}"


def instants() -> list[Instant]:
    """Return the times at which the tests run."""
    return [
        Instant("400 days ahead", datetime.now(UTC) + timedelta(days=400), "UTC"),
        Instant("a new year in Berlin, not in UTC", datetime(2027, 12, 31, 23, 50, tzinfo=UTC), "Europe/Berlin"),
        Instant("a leap day", datetime(2028, 2, 29, 12, 0, tzinfo=UTC), "Europe/Berlin"),
        Instant("half an hour before summer time ends", datetime(2027, 10, 31, 0, 30, tzinfo=UTC), "Europe/Berlin"),
    ]


def library() -> str | None:
    """Return the path of libfaketime, which its wrapper knows, or None if it is not installed."""
    wrapper = shutil.which("faketime")
    if wrapper is None:
        return None
    done = subprocess.run(
        [wrapper, "-m", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def run(instant: Instant, preload: str, arguments: list[str]) -> int:
    """Run the tests at one time, print their output and return pytest's exit status."""
    paths = [str(ROOT), str(ROOT / "tests" / "clock"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "LD_PRELOAD": preload,
        "FAKETIME": instant.offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TZ": instant.zone,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *SELECTION, "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    heading = f"{instant.name}: {instant.when:%Y-%m-%dT%H:%MZ}, TZ={instant.zone}"
    print(f"== {heading} ({time.monotonic() - began:.0f} s)\n{done.stdout}", flush=True)  # noqa: T201  # a command
    return done.returncode


def main() -> None:
    """Run the tests at all times; exit with 1 if any run failed or selected no test."""
    preload = library()
    if preload is None:
        sys.exit(MISSING)
    with ThreadPoolExecutor(PARALLEL_RUNS) as pool:
        statuses = list(pool.map(lambda instant: run(instant, preload, sys.argv[1:]), instants()))
    sys.exit(int(any(statuses)))


if __name__ == "__main__":
    main()
