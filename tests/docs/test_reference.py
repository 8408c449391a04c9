"""What the code has, the docs name; and what the docs name, the code has."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import ClientAddress
from metronome.auth.key_cache import KeyCache
from metronome.backup import Backups
from metronome.cli import COMMANDS
from metronome.config import ENV_PREFIX, FILE_SUFFIX, SECRET_SETTINGS, Settings, read_settings
from metronome.erasures import Erasures, Retention, SpoolDrains
from metronome.errors import (
    ArchiveAccessDenied,
    ArchiveDamaged,
    ArchiveUnavailable,
    ConfigurationError,
    KibanaUnavailable,
    MetronomeError,
    OperatorError,
    ServerUnavailable,
)
from metronome.fields import CONVERTED_NUMBERS, ENRICHED_FIELDS, REFERRER_FIELDS, TIMESTAMP_FIELDS
from metronome.reports import badges, dwell_time, errors, flow, funnel, items, recommendations, stored_fields, tock
from metronome.reports.counter import tally
from metronome.reports.query.request import QUERY_PARAMETERS
from metronome.server import routes
from metronome.server.admin_routes import backup_routes, erasure_routes
from metronome.server.bootstrap import build_ingest_context, open_authorizer, open_state, open_store
from metronome.server.health import HealthRoutes
from metronome.shipper import Shipper
from metronome.spool import SpoolReader, SpoolWriter
from metronome.state.sqlite import SQLiteState
from metronome.telemetry import Telemetry
from metronome.web.handlers import QueryContext
from tests.docs.pages import PAGES, ROOT, first_cells, section, text_of


def test_what_is_generated_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_described_with_its_option(name: str) -> None:
    assert Settings.model_fields[name].description
    option = "" if name in SECRET_SETTINGS - {"store"} else f"`--{name.replace('_', '-')}`"
    row = f"| `{ENV_PREFIX}{name.upper()}` | {option} |"
    assert row in text_of("docs/configuration.md")


def test_no_page_names_a_setting_that_is_none() -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    # Those of the tests, of docker-compose.yml, and of commands.
    known |= {
        f"{ENV_PREFIX}{name}"
        for name in ("TEST_ELASTICSEARCH", "TEST_CLUSTERS", "LOGS", "KEY", "URL", "CLIENTS", "KIBANA")
    }
    known |= {f"{ENV_PREFIX}KIBANA_{name}" for name in ("KEY", "USER", "PASSWORD", "CA")}
    secrets = [*SECRET_SETTINGS, "KEY", "KIBANA_KEY", "KIBANA_PASSWORD"]
    known |= {f"{ENV_PREFIX}{name.upper()}{FILE_SUFFIX}" for name in secrets}
    named = {name for page in PAGES for name in re.findall(rf"{ENV_PREFIX}[A-Z_]+", page.read_text())}
    assert named <= known


async def all_routes(folder: Path) -> list[web.RouteDef]:
    settings = read_settings({"data": folder, "store": "duckdb"})
    telemetry = Telemetry(CollectorRegistry())
    spool = SpoolWriter(folder / "spool", settings.spool_max_bytes)
    store = open_store(settings)
    state = open_state(settings)
    async with open_authorizer(settings, state) as guard:
        doorway = build_ingest_context(settings, spool, guard, telemetry)
        answering = QueryContext(store, guard, doorway.client_address, telemetry, lambda: 0.0)
        health = HealthRoutes(store, [], settings.spool_max_bytes, answering, lambda: [telemetry.registry])
        shipper = Shipper(SpoolReader(folder / "spool"), store, folder / "dead", telemetry)
        spools = [SpoolDrains(folder / "spool", shipper, None)]
        erasures = Erasures(state, store, spools, folder / "dead", None, Retention(), lambda: 0.0)
        everything = [
            *routes.single_process_routes(settings, doorway, state, answering),
            *erasure_routes(answering, erasures),
            *backup_routes(answering, Backups(folder, store, [])),
            *health.routes(),
        ]
    shipper.close()
    await spool.close()
    await store.close()
    return everything


async def all_addresses(folder: Path) -> set[str]:
    return {f"{route.method} {re.sub(r':[^}]*', '', route.path)}" for route in await all_routes(folder)}


async def test_each_route_is_listed_and_no_other(tmp_path: Path) -> None:
    assert first_cells(section("docs/operations.md", "Routes")) == await all_addresses(tmp_path)


async def test_the_readme_names_no_route_that_is_none(tmp_path: Path) -> None:
    assert first_cells(section("README.md", "What can be sent and queried")) <= await all_addresses(tmp_path)


def exposed_names(registry: CollectorRegistry) -> set[str]:
    return {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in registry.collect()}


def test_each_metric_is_listed_and_no_other(tmp_path: Path) -> None:
    telemetry = Telemetry(CollectorRegistry())
    store = open_store(read_settings({"data": tmp_path, "store": "duckdb"}))
    guard = Authorizer(KeyCache(SQLiteState(tmp_path)), frozenset(), lambda: 0.0, on_loopback=True)
    answering = QueryContext(store, guard, ClientAddress(()), telemetry, lambda: 0.0)
    health = HealthRoutes(store, [], 1, answering, lambda: [telemetry.registry])
    # The gauges of the spool are made where they are shown, and no other way leads to them without a server.
    names = exposed_names(telemetry.registry) | exposed_names(health._spool_registry)
    assert {
        name for name in first_cells(section("docs/operations.md", "Metrics")) if name.startswith("metronome_")
    } == names


def test_lists_all_log_events() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "metronome").rglob("*.py"))
    logged = set(
        re.findall(
            r"\b(?:log\.\w+\(|level\(|failure_event = |crash_event = |super\(\)\.__init__\()\s*\"([a-z_]+)\"",
            sources,
        )
    )
    assert first_cells(section("docs/operations.md", "Logs")) == logged


def test_each_fault_names_an_existing_test() -> None:
    rows = section("docs/operations.md", "Faults").splitlines()
    tests = [row.split("|")[-2].strip() for row in rows if row.startswith("| ")][1:]
    assert tests
    assert all("::" in test or test == "the same" for test in tests)
    for test in tests:
        for path, name in re.findall(r"`([^`]*)::([^`]*)`", test):
            assert re.search(rf"^ *(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), test


def kinds_of(error: type[MetronomeError]) -> list[type[MetronomeError]]:
    kinds = error.__subclasses__()
    return [leaf for kind in kinds for leaf in kinds_of(kind)] if kinds else [error]


def answered_errors() -> list[type[MetronomeError]]:
    """List the errors that a request can be answered with."""
    to_commands_only = (ServerUnavailable, KibanaUnavailable)
    at_start_only = (ConfigurationError, *(kind for kind in OperatorError.__subclasses__() if not kind.retry))
    # No request waits for the archive.
    of_the_archive = (ArchiveUnavailable, ArchiveAccessDenied, ArchiveDamaged)
    never = (*to_commands_only, *at_start_only, *of_the_archive)
    return [
        kind for kind in kinds_of(MetronomeError) if kind not in never and kind.__module__ == MetronomeError.__module__
    ]


@pytest.mark.parametrize("kind", answered_errors(), ids=lambda kind: kind.__name__)
def test_each_error_is_listed_with_its_status(kind: type[MetronomeError]) -> None:
    rows = [row for row in section("docs/api.md", "Errors").splitlines() if f"`{kind.__name__}`" in row]
    assert [row.split("|")[1].strip() for row in rows] == [str(kind.http_status)]


def test_each_known_field_is_described() -> None:
    described = first_cells(section("docs/api.md", "What an event may hold"))
    known = {"id", "event", "format", "event_id", "clientip", "visitor", "session", "bot"}
    assert described >= known | {*TIMESTAMP_FIELDS, *REFERRER_FIELDS, *CONVERTED_NUMBERS}


def test_each_parameter_of_a_report_is_described() -> None:
    assert first_cells(section("docs/api.md", "GET /tock/{id}.json")) == tock.PARAMETERS
    about_items = section("docs/api.md", "GET /items.json")
    assert [name for name in sorted(items.PARAMETERS) if f"`{name}`" not in about_items] == []


@pytest.mark.parametrize(
    ("heading", "parameters"),
    [
        ("/query", frozenset(QUERY_PARAMETERS)),
        ("Flow", flow.PARAMETERS | flow.ALL_ITEMS_PARAMETERS),
        ("Funnel", funnel.PARAMETERS),
        ("Fields", stored_fields.PARAMETERS),
        ("Time", dwell_time.PARAMETERS),
        ("Errors", errors.PARAMETERS),
        ("Recommendations", recommendations.PARAMETERS),
        ("Badges", badges.PARAMETERS),
        ("COUNTER", tally.PARAMETERS),
    ],
)
def test_each_parameter_of_a_question_is_documented(heading: str, parameters: frozenset[str]) -> None:
    told = section("docs/queries.md", heading) + section("docs/queries.md", "Common to all reports")
    assert [name for name in sorted(parameters) if f"`{name}`" not in told] == []


def test_each_field_that_enrichment_makes_is_documented() -> None:
    told = section("docs/queries.md", "Enrichment")
    assert [name for name in sorted(ENRICHED_FIELDS) if f"`{name}`" not in told] == []


def options_of(command: Any) -> list[str]:
    options = [
        name for parameter in command.params for name in parameter.opts if name.startswith("--") and name != "--help"
    ]
    return options + [option for each in getattr(command, "commands", {}).values() for option in options_of(each)]


PAGE_OF_COMMAND = {
    "serve": "docs/configuration.md",
    "demo": "docs/operations.md",
    "import": "docs/import.md",
    "dead-letters": "docs/operations.md",
    "reset": "docs/operations.md",
    "keys": "docs/keys.md",
    "query": "docs/queries.md",
    "tock": "docs/queries.md",
    "funnel": "docs/queries.md",
    "fields": "docs/queries.md",
    "backup": "docs/operations.md",
    "forget": "docs/operations.md",
    "reenrich": "docs/operations.md",
    "export": "docs/export.md",
    "load": "docs/export.md",
    "replay": "docs/archive.md",
    "verify": "docs/archive.md",
    "dashboards": "docs/kibana.md",
}


def test_each_command_has_its_page_and_is_named_there() -> None:
    assert COMMANDS.keys() == PAGE_OF_COMMAND.keys()
    assert [name for name, page in PAGE_OF_COMMAND.items() if f"`metronome {name}" not in text_of(page)] == []
    assert all(command.load(name).help for name, command in COMMANDS.items())


@pytest.mark.parametrize(("name", "page"), PAGE_OF_COMMAND.items())
def test_each_option_of_a_command_is_documented(name: str, page: str) -> None:
    # Secrets are no options: these are hidden, and say where a secret belongs.
    hidden = {f"--{setting.replace('_', '-')}" for setting in SECRET_SETTINGS - {"store"} if name == "serve"}
    options = [option for option in options_of(COMMANDS[name].load(name)) if option not in hidden]
    assert options
    assert [option for option in options if f"`{option}`" not in text_of(page)] == []


def test_each_make_target_has_its_help() -> None:
    makefile = text_of("Makefile")
    targets = re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE)
    assert [target for target in targets if not re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE)] == []
