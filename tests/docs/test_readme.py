"""The examples in the README and the docs, run as they stand there against a real server."""

import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, text_of
from tests.servers import COMMAND, Server, build_environment, running_server

PAGES: Final = (
    "docs/api.md",
    "docs/kibana.md",
    "docs/operations.md",
    "docs/protocols.md",
    "docs/questions.md",
)
_EXECUTED = re.compile(
    r"<!-- executed by tests/docs/test_readme\.py -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_TIME = re.compile(r"^time .* lines/s\)$", re.MULTILINE)


def examples(page: str) -> list[tuple[str, str]]:
    """Return the commands that a page says are executed, each with the output that it shows."""
    steps = [
        step for block in _EXECUTED.findall(text_of(page)) for step in re.split(r"^\$ ", block, flags=re.MULTILINE)
    ]
    # A command goes on in lines that begin as the shell's second prompt.
    return [(command.replace("\n> ", "\n"), output) for command, output in map(_parted, filter(None, steps))]


def _parted(step: str) -> tuple[str, str]:
    end = re.search(r"\n(?!> )", step)
    return (step[: end.start()], step[end.end() :]) if end else (step, "")


def run(command: str, server: Server) -> str:
    metronome = shlex.join(COMMAND)
    command = re.sub(r"\.venv/bin/metronome (import|query|tock)", rf"{metronome} \1 --url {server.url}", command)
    command = command.replace(".venv/bin/metronome", metronome).replace("localhost:8080", f"127.0.0.1:{server.port}")
    # The progress meter that curl shows goes to standard error.
    done = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=ROOT,
        env=build_environment(data=server.data),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    server.wait_until_shipped()
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES)])
def test_the_examples_of_a_page_give_the_output_that_it_shows(page: str, tmp_path: Path) -> None:
    steps = examples(page)
    assert steps
    with running_server(tmp_path / "data") as server:
        # Who reads the page comes to its examples later than the store to its file.
        while server.get("/health/ready/store")["status"] != "ok":
            time.sleep(0.05)
        for command, shown in steps:
            said = run(command, server)
            assert is_as_shown(said, shown), f"{command}\n{said}"


def is_as_shown(said: str, shown: str) -> bool:
    """Compare an output with what the page shows, where dots (…) stand for what is different each time."""
    pattern = ".*".join(map(re.escape, _TIME.sub("time", shown).strip().split("…")))
    return re.fullmatch(pattern, _TIME.sub("time", said).strip()) is not None


def test_the_readme_begins_with_the_two_lines_that_show_a_tick_in_its_tock() -> None:
    first, second, *_ = examples("README.md")
    assert "/tick" in first[0]
    assert "/tock/rivers.json" in second[0]


def test_the_readme_has_one_place_for_the_table_of_the_benchmark() -> None:
    assert len(re.findall(r"^<!-- bench -->$.*?^<!-- /bench -->$", text_of("README.md"), re.MULTILINE | re.DOTALL)) == 1
