"""The description of the API: valid, complete, and what the server does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from metronome.server.openapi import UNKNOWN_SYSTEM
from tests.docs.pages import ROOT, first_cells, section
from tests.servers import Server, delete_indices, running_server, unique_name

CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
NOT_DESCRIBED: Final = {
    *("/", "/items/{id}", "/tables/{key}", "/tables/{key}.csv", "/live", "/embed/{id}", "/usage.js", "/demo"),
    *("/sign-in", "/sign-out", "/assets/{name}", "/favicon.ico", "/robots.txt"),
    *("/metronome.js", "/matomo.js", "/piwik.js", "/hit", "/hit/{path}"),
}
"""The page, scripts, and what accepts any method."""


@pytest.mark.slow
def test_it_is_valid_and_needs_no_key(either: Server) -> None:
    description = either.get("/openapi.json")
    OpenAPIV31SpecValidator(description).validate()
    assert description["openapi"].startswith("3.1")
    operations = [each for methods in description["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert [each for each in operations if UNKNOWN_SYSTEM in each["summary"]] == []


def test_workers_describe_the_same(server: Server, crew: Server) -> None:
    assert server.get("/openapi.json") == crew.get("/openapi.json")


def test_each_route_is_described_but_those_of_the_page(server: Server) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, methods in server.get("/openapi.json")["paths"].items()
        for method in methods
    }
    routes = {
        address
        for address in first_cells(section("docs/operations.md", "Routes"))
        if address.partition(" ")[2] not in NOT_DESCRIBED and " //" not in address
    }
    # Matomo's API is at the address of the page.
    assert described ^ routes == {"GET /", "POST /"}


@pytest.mark.slow
def test_the_server_does_what_it_describes(server: Server, tmp_path: Path) -> None:
    """One random request for each operation: the slow test below sends many."""
    # The server is shared: its events stay.
    tags = ("--exclude-tag=other systems", "--exclude-tag=forgetting")
    check(server, tmp_path, "--phases=fuzzing", "--max-examples=1", *tags)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("store", ["duckdb", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)])
def test_many_requests_are_answered_as_described(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    settings = {"store": store}
    if store == "elasticsearch":
        url, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("test")
        request.addfinalizer(lambda: delete_indices(url, prefix))
        settings = {"store": url, "index_prefix": prefix}
    with running_server(tmp_path / "data", **settings) as server:
        server.post_events(
            (ROOT / "tests" / "data" / "visits.ndjson").read_bytes(), **{"Content-Type": "application/x-ndjson"}
        )
        # The descriptions are those of both stores: one of them gets the requests of all kinds.
        phases = "examples,coverage,fuzzing" if store == "duckdb" else "examples,fuzzing"
        check(server, tmp_path, f"--phases={phases}", "--max-examples=15")


def check(server: Server, folder: Path, *options: str) -> None:
    """Run schemathesis against a server."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
            *(f"{server.url}/openapi.json", f"--checks={','.join(CHECKS)}", *options),
            *("--suppress-health-check=all", "--generation-database=none", "--warnings=off", "--continue-on-failure"),
            *("--request-timeout=60", "--no-color"),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + server.log[-5000:]
