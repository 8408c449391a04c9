"""The servers that scenarios are asked of: on each store one that holds the events of all, and one that holds none."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.installations import make_salts
from tests.scenarios.asking import Stand, send
from tests.scenarios.reading import ON_AN_EMPTY_STORE, read_scenarios
from tests.servers import Server, delete_indices, refresh_indices, running_server, unique_name

STORES: Final = ["duckdb", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)]
SPAMMERS: Final = "spam.example\n"


@contextmanager
def running(request: pytest.FixtureRequest, folders: pytest.TempPathFactory, store: str) -> Iterator[Server]:
    """Have a server run on a store, with settings that say which hosts are one's own and which advertise."""
    folder = folders.mktemp(store)
    spammers = folder / "spammers.txt"
    spammers.write_text(SPAMMERS)
    settings: dict[str, object] = {"referer_spam": spammers, "own_hosts": "own.example", "tick_max_age": "0"}
    if store == "duckdb":
        with running_server(folder / "data", **settings) as server:
            yield server
        return
    node, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("scenarios")
    try:
        make_salts(node, prefix)
        with running_server(folder / "data", store=node, index_prefix=prefix, **settings) as server:
            yield server
    finally:
        delete_indices(node, prefix)


def settle(server: Server) -> None:
    """Wait until what was sent can be asked for."""
    server.wait_until_shipped()
    if "store" in server.settings:
        refresh_indices(str(server.settings["store"]), str(server.settings["index_prefix"]))


@pytest.fixture(scope="session")
def on_duckdb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request, tmp_path_factory, "duckdb") as server:
        yield server


@pytest.fixture(scope="session")
def on_elasticsearch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request, tmp_path_factory, "elasticsearch") as server:
        yield server


@pytest.fixture(scope="session", params=STORES)
def filled(request: pytest.FixtureRequest) -> Stand:
    """Give a server that holds the events of all scenarios."""
    server: Server = request.getfixturevalue(f"on_{request.param}")
    for file, scenarios in read_scenarios(datetime.now(UTC)).items():
        if file != ON_AN_EMPTY_STORE:
            for scenario in scenarios:
                for sent in scenario.sent:
                    send(server, sent)
    settle(server)
    return Stand(server, request.param)


@pytest.fixture(scope="session", params=STORES)
def empty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Give a server that nothing was sent to."""
    with running(request, tmp_path_factory, request.param) as server:
        yield Stand(server, request.param)
