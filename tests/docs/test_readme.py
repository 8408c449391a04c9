"""Run the examples of the README and the docs as printed, pasted into one shell, against a real server."""

import contextlib
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
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
    "docs/queries.md",
)
_EXECUTED = re.compile(
    r"<!-- executed by tests/docs/test_readme\.py -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_TIME = re.compile(r"^time .* lines/s\)$", re.MULTILINE)


_END_OF_OUTPUT: Final = "\0"
_WAIT_SECONDS: Final = 20
"""How long reports wait for events in these tests: on a busy machine, the default may be too short."""


def blocks(page: str) -> list[list[tuple[str, str]]]:
    """Return the executed blocks of a page: the commands of each, with the output printed below them."""
    return [
        # A command continues in lines that begin with the shell's second prompt.
        [(command.replace("\n> ", "\n"), output) for command, output in map(_parted, filter(None, steps))]
        for steps in (re.split(r"^\$ ", block, flags=re.MULTILINE) for block in _EXECUTED.findall(text_of(page)))
    ]


def _parted(step: str) -> tuple[str, str]:
    end = re.search(r"\n(?!> )", step)
    return (step[: end.start()], step[end.end() :]) if end else (step, "")


def run(commands: list[str], server: Server) -> list[str]:
    """Run commands one after the other in one shell, without a wait between them; return their outputs."""
    metronome = shlex.join(COMMAND)
    command = "\n".join(f"{command}\nprintf '\\0'" for command in commands)
    command = re.sub(
        r"\.venv/bin/metronome (import|query|tock|funnel|fields)", rf"{metronome} \1 --url {server.url}", command
    )
    command = command.replace(".venv/bin/metronome", metronome).replace("localhost:8080", f"127.0.0.1:{server.port}")
    # The progress meter that curl shows goes to standard error.
    done = subprocess.run(
        ["/bin/bash", "-e", "-c", command],
        cwd=ROOT,
        env=build_environment(data=server.data),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(_END_OF_OUTPUT)[:-1]


_SETTINGS: Final[dict[str, dict[str, object]]] = {"docs/queries.md": {"min_visitors": 1}}
"""Settings that a page names: its sample has few visitors a day."""


@pytest.mark.clock
@pytest.mark.parametrize("page", ["README.md", *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES)])
def test_the_examples_of_a_page_give_the_output_that_it_shows(page: str, tmp_path: Path) -> None:
    examples = blocks(page)
    assert examples
    with serving_readers(tmp_path / "data", **_SETTINGS.get(page, {})) as server:
        for steps in examples:
            outputs = run([command for command, _ in steps], server)
            for (command, shown), output in zip(steps, outputs, strict=True):
                assert is_as_shown(output, shown), f"{command}\n{output}"


@contextlib.contextmanager
def serving_readers(data: Path, **settings: object) -> Iterator[Server]:
    """Run a server whose store is open: nobody reads and pastes faster than the server starts."""
    with running_server(data, read_wait_seconds=_WAIT_SECONDS, **settings) as server:
        while server.get("/health/ready/store")["status"] != "ok":
            time.sleep(0.05)
        yield server


def is_as_shown(said: str, shown: str) -> bool:
    """Compare an output with what the page shows, where dots (…) stand for what is different each time."""
    pattern = ".*".join(map(re.escape, _TIME.sub("time", shown).strip().split("…")))
    return re.fullmatch(pattern, _TIME.sub("time", said).strip()) is not None


def test_the_readme_begins_with_a_tick_and_its_tock() -> None:
    (tick, _), (tock, shown) = blocks("README.md")[0]
    assert "/tick" in tick
    assert "/tock/rivers.json" in tock
    assert '"views":{"2015-01-22":1}' in shown


def test_performance_page_has_one_place_for_the_benchmark_table() -> None:
    assert (
        len(
            re.findall(
                r"^<!-- bench -->$.*?^<!-- /bench -->$", text_of("docs/performance.md"), re.MULTILINE | re.DOTALL
            )
        )
        == 1
    )
