"""The examples of docs/archive.md, run as they stand there against a server that has an archive."""

import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, text_of
from tests.docs.test_readme import is_as_shown
from tests.servers import COMMAND, Server, build_environment, running_server

pytestmark = pytest.mark.slow

_EXECUTED: Final = re.compile(
    r"<!-- executed by tests/docs/test_archive\.py -->\n```console\n\$ (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_TIME: Final = re.compile(r"^time .* documents/s\)$", re.MULTILINE)


def run(command: str, server: Server, archive: str) -> str:
    metronome = f"{shlex.join(COMMAND)} \\1 --url {server.url}"
    command = re.sub(r"\.venv/bin/metronome (\w+)", metronome, command).replace("file:///srv/archive", archive)
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=ROOT,
        env=build_environment() | {"XDG_STATE_HOME": str(server.data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.clock
def test_the_examples_give_the_output_that_the_page_shows(tmp_path: Path) -> None:
    examples = _EXECUTED.findall(text_of("docs/archive.md"))
    assert len(examples) == 2
    archive = f"file://{tmp_path}/archive"
    with running_server(tmp_path / "data", archive=archive, archive_roll_age="1s") as server:
        server.post_events(
            (ROOT / "tests" / "data" / "visits.ndjson").read_bytes(), **{"Content-Type": "application/x-ndjson"}
        )
        server.wait_until_shipped()
        while server.get("/health/ready")["archive"]["events"]:
            time.sleep(0.05)
        for command, shown in examples:
            said = run(command, server, archive)
            assert is_as_shown(_TIME.sub("time", said), _TIME.sub("time", shown)), said
