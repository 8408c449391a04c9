"""What the parts of the benchmark have in common: their rows, and the load that they make."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

_WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
wrk.headers["Host"] = "127.0.0.1"
local bodies = {{}}
for number = 0, {count} - 1 do
  local file = io.open("{folder}/" .. number, "rb")
  bodies[number] = wrk.format(nil, "{path}", nil, file:read("*a"))
  file:close()
end
local sent = 0
request = function() sent = sent + 1; return bodies[sent % {count}] end
"""


class BenchmarkRow(NamedTuple):
    """One line of the table."""

    name: str
    measured: str
    reference: str
    ratio: str
    target: str


class LoadResult(NamedTuple):
    """What `wrk` reports."""

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@contextlib.contextmanager
def pinned_to_core(number: int | None) -> Iterator[None]:
    """Start what is started in the block on one core; None is any."""
    usual = os.sched_getaffinity(0)
    if number is not None and number in usual:
        os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for the block."""
    with tempfile.TemporaryDirectory(prefix="metronome-bench-") as folder:
        yield Path(folder)


def run_load(url: str, bodies: Sequence[bytes], content_type: str, connections: int, seconds: int) -> LoadResult:
    """Send prepared bodies over and over with `wrk`, which would else be the limit itself.

    Raises:
        SystemExit: `wrk` is not there, or a request failed.

    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("the benchmark needs wrk: install your system's package of that name")
    with temporary_folder() as folder:
        for number, body in enumerate(bodies):
            (folder / str(number)).write_bytes(body)
        script = folder / "post.lua"
        path = urlsplit(url).path
        script.write_text(_WRK_SCRIPT.format(content_type=content_type, path=path, count=len(bodies), folder=folder))
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in report or "Socket errors" in report:
        raise SystemExit(f"requests failed:\n{report}")
    match = re.search(r"(\d+) requests in ([\d.]+)(m?)s", report)
    if match is None:
        raise SystemExit(f"wrk reports nothing that can be read:\n{report}")
    return LoadResult(int(match[1]), float(match[2]) * (60 if match[3] else 1))
