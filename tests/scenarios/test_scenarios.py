"""Run the scenarios of the TOML files in this folder over HTTP, on both stores; their results were counted by hand."""

from datetime import UTC, datetime
from typing import Final

import pytest

from tests.scenarios.client import StoreServer, check
from tests.scenarios.scenario_files import EMPTY_STORE_FILE, QueryRequest, read_scenarios

SCENARIOS: Final = read_scenarios(datetime.now(UTC))
FILES: Final = [file for file in SCENARIOS if file != EMPTY_STORE_FILE]


def requests_in(*files: str) -> list[QueryRequest]:
    return [request for file in files for scenario in SCENARIOS[file] for request in scenario.requests]


@pytest.mark.parametrize("query", requests_in(*FILES), ids=lambda query: query.name)
def test_responses_are_as_counted_by_hand(filled_server: StoreServer, query: QueryRequest) -> None:
    if not query.known_failures.keys().isdisjoint(filled_server.failing_like):
        with pytest.raises(AssertionError):
            check(filled_server, query)
    else:
        check(filled_server, query)


@pytest.mark.parametrize("query", requests_in(EMPTY_STORE_FILE), ids=lambda query: query.name)
def test_an_empty_store_has_empty_results(empty_server: StoreServer, query: QueryRequest) -> None:
    assert not SCENARIOS[EMPTY_STORE_FILE][0].ingest_requests
    check(empty_server, query)


def test_titles_of_scenarios_are_unique() -> None:
    names = [query.name for query in requests_in(*SCENARIOS)]
    assert len(set(names)) == len(names)
