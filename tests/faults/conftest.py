"""Fixtures: servers that these tests kill."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rounds import ServerFactory
from tests.servers import Server


@pytest.fixture
def new_server() -> Iterator[ServerFactory]:
    """Create servers with the arguments of `Server`; kill those that still run after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(Server(*arguments, **settings))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"
