"""Servers for scenarios: on each store and product, one with the events of all scenarios, and an empty one."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import pytest

from tests.installations import create_salts
from tests.scenarios.client import StoreServer, send
from tests.scenarios.scenario_files import EMPTY_STORE_FILE, read_scenarios
from tests.servers import Server, delete_indices, refresh_indices, running_server, unique_name

OPENSEARCH: Final = pytest.param("opensearch", marks=[pytest.mark.elasticsearch, pytest.mark.slow])
STORES: Final = ["duckdb", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch), OPENSEARCH]
SPAMMERS: Final = "spam.example\n"


@contextmanager
def running_on(request: pytest.FixtureRequest, folders: pytest.TempPathFactory, store: str) -> Iterator[Server]:
    """Run a server on a store, with own hosts and referrer spam configured."""
    folder = folders.mktemp(store)
    spammers = folder / "spammers.txt"
    spammers.write_text(SPAMMERS)
    settings: dict[str, object] = {"referer_spam": spammers, "own_hosts": "own.example", "tick_max_age": "0"}
    if store == "duckdb":
        with running_server(folder / "data", **settings) as server:
            yield server
        return
    url, prefix = request.getfixturevalue(f"{store}_url"), unique_name("scenarios")
    try:
        create_salts(url, prefix)
        with running_server(folder / "data", store=url, index_prefix=prefix, **settings) as server:
            yield server
    finally:
        delete_indices(url, prefix)


def wait_until_searchable(server: Server) -> None:
    """Wait until queries see all events that were sent."""
    server.wait_until_shipped()
    if "store" in server.settings:
        refresh_indices(str(server.settings["store"]), str(server.settings["index_prefix"]))


@pytest.fixture(scope="session")
def duckdb_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_on(request, tmp_path_factory, "duckdb") as server:
        yield server


@pytest.fixture(scope="session")
def elasticsearch_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_on(request, tmp_path_factory, "elasticsearch") as server:
        yield server


@pytest.fixture(scope="session")
def opensearch_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_on(request, tmp_path_factory, "opensearch") as server:
        yield server


@pytest.fixture(scope="session", params=STORES)
def filled_server(request: pytest.FixtureRequest) -> StoreServer:
    """Provide a server with the events of all scenarios."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    for file, scenarios in read_scenarios(datetime.now(UTC)).items():
        if file != EMPTY_STORE_FILE:
            for scenario in scenarios:
                for ingest_request in scenario.ingest_requests:
                    send(server, ingest_request)
    wait_until_searchable(server)
    return StoreServer(server, request.param)


@pytest.fixture(scope="session", params=STORES)
def empty_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """Provide a server without events."""
    with running_on(request, tmp_path_factory, request.param) as server:
        yield StoreServer(server, request.param)
