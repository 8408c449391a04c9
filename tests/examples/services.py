"""Run the services of examples/ by the commands of their READMEs."""

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.servers import Server, free_port

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 30.0
_STEPS = re.compile(r"^\$ (curl .*)\n((?:(?!\$ |```).*\n)*)", re.MULTILINE)


def examples(name: str) -> list[tuple[str, str]]:
    """Return the requests in the README of an example, each with the output that it shows."""
    return _STEPS.findall((ROOT / "examples" / name / "README.md").read_text())


def command(name: str) -> str:
    """Return the command by which the README of an example starts it."""
    match = re.search(
        rf"^\$ (examples/{name}/\S+)$", (ROOT / "examples" / name / "README.md").read_text(), re.MULTILINE
    )
    assert match is not None
    return match[1]


@contextlib.contextmanager
def started(name: str, server: Server, folder: Path) -> Iterator[str]:
    """Run an example with the installed packages against a Metronome, and yield its URL."""
    port = free_port()
    settings = {"PORT": str(port), "METRONOME_URL": server.url, "PYTHON": sys.executable, "PYTHONWARNINGS": ""}
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ROOT / command(name)], cwd=ROOT, env=os.environ | settings, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(f"{url}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield url
        process.terminate()
        process.wait(START_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def run(step: str, url: str) -> str:
    """Run a step of the README."""
    arguments = step.replace("localhost:8000", url)
    process = subprocess.run(["/bin/bash", "-c", arguments], capture_output=True, text=True, timeout=60, check=True)
    return process.stdout


def _is_healthy(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=START_SECONDS) as response:  # noqa: S310  # the example
        return bool(response.status == 200)
    return False
