"""The servers that die in these tests."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rounds import ServerFactory
from tests.servers import Server


@pytest.fixture
def new_server() -> Iterator[ServerFactory]:
    """Make servers as `Server` does; those that still run at the test's end are killed."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(Server(*arguments, **settings))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"
