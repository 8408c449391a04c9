"""Run examples by the commands of their READMEs."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
STOP_SECONDS: Final = 10


@contextlib.contextmanager
def started(script: str, *options: str, **environment: str) -> Iterator[str]:
    """Run an example on a free port, and yield the URL that it prints."""
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / script, "--port", "0", *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert " is at http://localhost:" in line, line
        yield line.split()[-1]
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=STOP_SECONDS)
    assert errors == ""
