"""What tests of running servers share; a module whose servers need settings has fixtures of its own by these names."""

from collections.abc import Iterator

import pytest

from tests.servers import Server, running_server, unique_name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("service") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("service") / "crew", workers=2) as running:
        yield running


@pytest.fixture(params=["one", "crew"])
def either(request: pytest.FixtureRequest) -> Server:
    """Give a server with one process, and one with two workers."""
    found: Server = request.getfixturevalue("server" if request.param == "one" else "crew")
    return found


@pytest.fixture
def item() -> str:
    return unique_name("item-")
