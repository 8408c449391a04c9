"""``metronome reenrich`` updates enriched fields of stored documents, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from metronome.cli import app
from metronome.event import DocumentContext, Event, build_document
from metronome.files import FolderLock
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.query import Query
from tests.installations import read_stored_documents
from tests.servers import delete_indices, unique_name

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
DOOR = DocumentContext("2015-03-01T00:00:00.000Z", None, "2030-01-01T00:00:00.000Z")
OLD: list[dict[str, Any]] = [
    {"ts": "2015-01-21T23:59:59.999Z", "id": "a", "agent": FIREFOX, "visitor": "v", "session": "s"},
    {"ts": "2015-01-22T00:00:00Z", "id": "b", "agent": FIREFOX, "browser": "Mine", "a.b": 1},
    {"ts": "2015-01-22T23:00:00Z", "id": "c", "event": "error", "status": 404},
    {"ts": "2015-01-23T00:00:00Z", "id": "d", "clientip": "8.8.8.8"},
    {"ts": "2015-01-23T00:00:00Z", "id": "plain"},
]


def lines() -> list[bytes]:
    """Return the documents that a server without enrichment has made."""
    return [build_document(Event(fields), DOOR, fields["id"]) for fields in OLD]


async def fill(store: Store) -> None:
    await store.setup()
    await store.write(DocumentBatch.from_documents(lines()))
    await store.refresh()
    await store.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    asyncio.run(fill(DuckDBStore(tmp_path / "data")))
    return tmp_path / "data"


def reenrich(*arguments: object, **environment: object) -> Result:
    settings = {f"METRONOME_{name.upper()}": str(value) for name, value in environment.items()}
    return CliRunner().invoke(app, ["reenrich", *map(str, arguments)], env=settings)


def counts(result: Result) -> list[list[str]]:
    """Return the lines of a summary, each as its number and what it is of."""
    assert result.exit_code == 0, result.output
    return [line.split(None, 1) for line in result.stdout.splitlines()]


def by_item(data: Path) -> dict[str, dict[str, Any]]:
    return {doc["id"]: doc for doc in read_stored_documents(data)}


def test_adds_enriched_fields_and_keeps_all_others(data: Path) -> None:
    before = by_item(data)
    told = counts(reenrich("--data", data))
    assert told[:2] == [["5", "events read"], ["4", "changed"]]
    assert ["1", "browser"] in told
    assert ["2", "os"] in told
    after = by_item(data)
    assert after.keys() == before.keys()
    assert (after["a"]["browser"], after["a"]["visitor"], after["a"]["session"]) == ("Firefox", "v", "s")
    assert (after["b"]["browser"], after["b"]["os"], after["b"]["enrich_kept"]) == ("Mine", "Linux", "browser")
    assert after["c"]["error_group"] == "HTTP 404"
    assert after["d"]["country"] == "US"
    assert after["plain"] == before["plain"]
    assert all(after[item].items() >= before[item].items() for item in before)


def test_changes_nothing_the_second_time(data: Path) -> None:
    reenrich("--data", data)
    once = read_stored_documents(data)
    assert counts(reenrich("--data", data)) == [["5", "events read"], ["0", "changed"]]
    assert read_stored_documents(data) == once


def test_a_dry_run_changes_nothing(data: Path) -> None:
    before = read_stored_documents(data)
    assert counts(reenrich("--data", data, "--dry-run"))[:2] == [["5", "events read"], ["4", "would change"]]
    assert read_stored_documents(data) == before


@pytest.mark.parametrize(
    ("span", "items"),
    [
        (["--from", "2015-01-22"], "bcd"),
        (["--to", "2015-01-22"], "abc"),
        (["--from", "2015-01-22", "--to", "2015-01-22"], "bc"),
        (["--from", "2015-02-01"], ""),
    ],
)
def test_changes_only_the_requested_days(data: Path, span: list[str], items: str) -> None:
    assert counts(reenrich("--data", data, *span))[1] == [str(len(items)), "changed"]
    assert "".join(item for item, doc in by_item(data).items() if "enrich_version" in doc) == items


def test_uses_the_settings_of_the_server(data: Path, tmp_path: Path) -> None:
    spam = tmp_path / "spam.txt"
    spam.write_text("spam.example\n")
    assert reenrich("--data", data, "--countries", "off", "--referer-spam", spam).exit_code == 0
    assert "country" not in by_item(data)["d"]
    assert reenrich(data=data, countries="built-in").exit_code == 0
    assert by_item(data)["d"]["country"] == "US"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "tomorrow"], "invalid --from 'tomorrow': expected a date such as 2015-01-22"),
        (["--from", "2015-01-22", "--to", "2015-01-21"], "--to 2015-01-21 is before --from 2015-01-22"),
        (["--data", "nowhere"], "the data folder nowhere does not exist"),
        (["--store", "mysql"], "invalid METRONOME_STORE: "),
        (["--referer-spam", "nowhere.txt"], "cannot read METRONOME_REFERER_SPAM=nowhere.txt"),
    ],
)
def test_reports_invalid_arguments_in_one_line(data: Path, arguments: list[str], said: str) -> None:
    result = reenrich(*arguments, data=data)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_fails_if_enrichment_is_off(data: Path) -> None:
    result = reenrich(data=data, enrich="off")
    assert (result.exit_code, "METRONOME_ENRICH is off" in result.stderr) == (2, True)


@pytest.mark.slow
def test_fails_while_a_server_uses_the_data_folder(data: Path) -> None:
    lock = FolderLock(data)
    try:
        result = reenrich("--data", data)
    finally:
        lock.release()
    assert result.exit_code == 2
    assert "another process uses" in result.stderr


@pytest.fixture
def prefix(elasticsearch_url: str) -> Iterator[str]:
    name = unique_name("test")
    yield name
    delete_indices(elasticsearch_url, name)


@pytest.mark.elasticsearch
def test_updates_documents_in_elasticsearch(elasticsearch_url: str, prefix: str) -> None:
    def with_store(work: Callable[[Store], Awaitable[Any]]) -> Any:
        return asyncio.run(_with(ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix)), work))

    async def read(store: Store) -> list[dict[str, Any]]:
        await store.refresh()
        (answer,) = await store.query(Query(group_by=("browser",)))
        assert answer.rows == (("Firefox", 1), ("Mine", 1))
        return [orjson.loads(line) async for line in store.iterate_documents()]

    asyncio.run(fill(ElasticsearchStore(ElasticsearchConfig(elasticsearch_url, prefix=prefix))))
    where = {"store": elasticsearch_url, "index_prefix": prefix}
    assert counts(reenrich(**where))[:2] == [["5", "events read"], ["4", "changed"]]
    found = {doc["id"]: doc for doc in with_store(read)}
    assert (found["d"]["country"], found["c"]["error_group"]) == ("US", "HTTP 404")
    assert counts(reenrich(**where)) == [["5", "events read"], ["0", "changed"]]


async def _with(store: Store, work: Callable[[Store], Awaitable[Any]]) -> Any:
    try:
        return await work(store)
    finally:
        await store.close()
