"""Forgetting events on a running server: in the store, spools, dead letters and the archive, and nowhere else."""

import gzip
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from metronome.scopes import Scope
from metronome.times import start_of_first_kept_month
from tests.archive.archived import build_document
from tests.installations import create_key
from tests.servers import (
    REQUEST_TIMEOUT_SECONDS,
    Server,
    delete_indices,
    run_metronome,
    running_server,
    unique_name,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forget") / "archive"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("forget") / "data"
    with running_server(data, archive=f"file://{archive}", archive_roll_age="1h", tick_max_age=0) as running:
        yield running


def post(server: Server, body: object, key: str = "") -> Any:
    """Return the response to a request to forget events, regardless of its status."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{server.url}/forget", data, headers)  # noqa: S310  # our own server
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
            return orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return orjson.loads(error.read())


def forget(server: Server, *options: str) -> dict[str, int]:
    """Forget events by the command, and return the numbers that it prints, by the first word of the place."""
    ended = run_metronome("forget", *options, "--yes", f"--url={server.url}")
    assert (ended.exit_code, ended.stderr) == (0, "")
    places = ("store", "spool", "dead letters", "archive")
    return {
        place: int(line.split()[0].replace(",", ""))
        for line in ended.stdout.splitlines()[1:]
        for place in places
        if place in line.partition("  ")[2].partition(",")[0]
    }


def views(server: Server, item: str) -> int:
    return sum(server.get(f"/tock/{item}.json")["views"].values())


def archived_items(archive: Path) -> Counter[str]:
    """Count the events in an archive by item."""
    lines = [line for path in archive.glob("2*/**/*.gz") for line in gzip.decompress(path.read_bytes()).splitlines()]
    return Counter(orjson.loads(line)["id"] for line in lines)


def send(server: Server, *events: dict[str, Any]) -> None:
    server.post_events(orjson.dumps(events))


def test_forgets_an_item_in_the_store_and_in_what_is_not_archived_yet(server: Server, item: str) -> None:
    other = unique_name()
    send(server, {"id": item}, {"id": item, "visitor": "v"}, {"id": other}, {"id": other, "params": {"id": item}})
    assert (views(server, item), views(server, other)) == (2, 2)
    assert post(server, {"item": item, "dry_run": True})["events"] == 2
    assert forget(server, f"--item={item}") == {"store": 2, "spool": 2, "dead letters": 0, "archive": 0}
    assert (views(server, item), views(server, other)) == (0, 2)
    listed = server.get("/items.json?limit=1000")["items"]
    assert item not in [entry["id"] for entry in listed]
    send(server, {"id": item})
    assert views(server, item) == 1


def test_forgets_a_visitor_and_leaves_no_trace_of_its_id(server: Server, item: str) -> None:
    visitor = unique_name("visitor")
    send(server, {"id": item, "visitor": visitor}, {"id": item, "visitor": unique_name()})
    assert views(server, item) == 2
    assert forget(server, f"--visitor={visitor}")["store"] == 1
    assert views(server, item) == 1
    last = server.get("/forget.json")["requests"][-1]
    assert (last["by"], last["state"]) == ("visitor", "done")
    spools = server.data / "spool"
    for path in [*spools.rglob("*"), *server.data.glob("state.sqlite*"), *server.data.glob("dead/*")]:
        if path.is_file():
            assert visitor.encode() not in path.read_bytes(), path


@pytest.mark.slow  # it runs servers or commands of its own
def test_what_the_archive_has_is_rewritten_and_a_replay_brings_nothing_back(tmp_path: Path, item: str) -> None:
    folder, other = tmp_path / "archive", unique_name()
    with running_server(tmp_path / "data", archive=f"file://{folder}", archive_roll_age="1s", tick_max_age=0) as server:
        send(server, *({"id": name, "ts": f"2015-01-2{day}"} for name in (item, other) for day in (1, 2)))
        send(server, {"id": item, "ts": "2015-01-23"})
        assert views(server, item) == 3
        wait_until_archived(server)
        copy = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert archived_items(folder) == {item: 3, other: 2}
        assert forget(server, f"--item={item}")["archive"] == 3
        assert archived_items(folder) == {other: 2}
        assert not list(folder.glob("2015/01/23/**/*.gz"))
        assert item not in "".join(path.read_text() for path in folder.glob("forgotten/*"))
        assert run_metronome("verify", f"file://{folder}", f"--url={server.url}").exit_code == 0
        for path, body in copy.items():
            (folder / path).write_bytes(body)
        ended = run_metronome("replay", f"file://{folder}", f"--url={server.url}", f"--checkpoint={tmp_path / 'c'}")
        assert ended.exit_code == 0
        assert "3" in next(line for line in ended.stdout.splitlines() if "forgotten, not sent" in line)
        assert server.get("/query?by=id&from=2015-01-01&bots=1")["rows"] == [[other, 2]]
        send(server, {"id": item, "ts": "2015-01-24"})
        wait_until_archived(server)
        assert run_metronome("replay", f"file://{folder}", f"--url={server.url}", "--restart").exit_code == 0
        assert dict(server.get("/query?by=id&from=2015-01-01&bots=1")["rows"]) == {other: 2, item: 1}


def wait_until_archived(server: Server) -> None:
    server.wait_until_shipped()
    deadline = time.monotonic() + 30
    while server.get("/health/ready")["archive"]["events"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_forgets_dead_letters(server: Server, item: str) -> None:
    folder = server.data / "dead"
    for path in (folder / "2015-01-22.ndjson", folder / "given-again" / "2015-01-21.0.ndjson"):
        path.parent.mkdir(parents=True, exist_ok=True)
        letters = [
            {"at": "2015-01-22", "reason": "r", "document": build_document("e", name).decode().strip()}
            for name in (item, "kept")
        ]
        path.write_bytes(b"".join(orjson.dumps(letter) + b"\n" for letter in letters) + b"torn")
    assert forget(server, f"--item={item}")["dead letters"] == 2
    for path in folder.rglob("*.ndjson"):
        assert item not in path.read_text()
        assert "kept" in path.read_text()
        assert path.read_text().endswith("torn")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "expected exactly one of item, visitor, import and before"),
        ({"item": "a", "visitor": "b"}, "expected exactly one of item, visitor, import and before"),
        ({"item": ""}, "invalid item: expected a text"),
        ({"item": 1}, "invalid item: expected a text"),
        ({"visitor": "v" * 2000}, "invalid visitor: no event has one of over 1024 characters"),
        ({"before": "2015-1-22"}, "invalid before '2015-1-22': expected a day such as 2015-01-22"),
        ({"items": "a"}, "unknown key 'items': expected before, dry_run, import, item, visitor"),
        ({"item": "a", "dry_run": 1}, "invalid dry_run: expected true or false"),
        ([], "expected a JSON object"),
        (b"{", "invalid JSON"),
    ],
)
def test_rejects_what_is_not_a_request(server: Server, body: object, message: str) -> None:
    response = post(server, body)
    assert response["status"] == 400
    assert response["detail"].startswith(message)


@pytest.mark.parametrize("path", ["/forget", "/backup"])
@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://localhost:1"}]
)
def test_rejects_requests_of_other_sites_pages(server: Server, path: str, headers: dict[str, str]) -> None:
    request = urllib.request.Request(server.url + path, b'{"item":"x"}', headers)  # noqa: S310  # our own server
    with pytest.raises(urllib.error.HTTPError, match="Forbidden") as raised:
        urllib.request.urlopen(request)  # noqa: S310  # our own server
    raised.value.close()


def test_asks_before_it_forgets_and_forgets_nothing_in_a_dry_run(server: Server, item: str) -> None:
    send(server, {"id": item, "ts": "2015-01-22"}, {"id": item, "ts": "2015-01-23"})
    for options in (("--dry-run",), ()):
        ended = run_metronome("forget", f"--item={item}", *options, f"--url={server.url}")
        assert ended.stdout.startswith("2 events in the store, from 2015-01-22 to 2015-01-23 (UTC)\n")
        assert ended.exit_code == (0 if options else 1)
    assert post(server, {"item": item, "dry_run": True})["events"] == 2
    ended = run_metronome("forget", f"--url={server.url}")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "expected exactly one of --item, --visitor, --before and --import" in ended.stderr


@pytest.mark.slow  # it runs servers or commands of its own
def test_imports_a_log_again_with_another_pattern(server: Server, tmp_path: Path) -> None:
    name = unique_name()
    log = tmp_path / "access.log"
    line = '192.0.2.{n} - - [22/Jan/2015:09:30:{n:02} +0000] "GET /{name}/{item}/ HTTP/1.1" 200 9 "-" "Mozilla/5.0"\n'
    log.write_text("".join(line.format(n=number, name=name, item="ab"[number % 2]) for number in range(20)))
    options = (str(log), f"--url={server.url}")
    assert run_metronome("import", *options).exit_code == 0
    assert items_below(server, name) == {f"/{name}/a/": 10, f"/{name}/b/": 10}
    pattern = f"--item-pattern=^/(?P<id>{name})/"
    ended = run_metronome("import", *options, pattern, "--replace")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert items_below(server, name) == {name: 20}
    assert run_metronome("import", *options, pattern).exit_code == 0
    assert items_below(server, name) == {name: 20}
    assert forget(server, f"--import={log}")["store"] == 20
    assert items_below(server, name) == {}
    ended = run_metronome("import", *options, "--replace")
    assert ended.exit_code == 0
    assert ended.stderr == f"metronome import: {log}: there was nothing to replace\n"
    assert items_below(server, name) == {f"/{name}/a/": 10, f"/{name}/b/": 10}


def items_below(server: Server, name: str) -> dict[str, int]:
    rows = server.get("/query?by=id&bots=1&from=2015-01-01&limit=0")["rows"]
    return {item: count for item, count in rows if item and name in item}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-",), "--replace needs files: standard input cannot be read twice"),
        (("{log}", "--dry-run"), "--replace cannot be combined with --follow or --dry-run"),
        (("{log}", "--follow"), "--replace cannot be combined with --follow or --dry-run"),
        (("{log}", "{folder}/none.log"), "cannot read {folder}/none.log: no such file"),
    ],
)
def test_replaces_only_what_it_can_import_again(
    server: Server, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    log = tmp_path / "access.log"
    log.write_text("x\n")
    texts = [option.format(log=log, folder=tmp_path) for option in options]
    ended = run_metronome("import", *texts, "--replace", f"--url={server.url}")
    assert ended.exit_code == 2
    assert message.format(folder=tmp_path) in ended.stderr


@pytest.mark.slow  # it runs servers or commands of its own
def test_a_request_continues_after_a_restart_and_needs_a_key_with_the_scope_admin(tmp_path: Path) -> None:
    data = tmp_path / "data"
    tokens = {scope: create_key(data, scope, Scope(scope)) for scope in ("query", "admin")}
    with Server(data) as stopped:
        stopped.start()
        for token, status in (("", 401), (tokens["query"], 403)):
            assert post(stopped, {"item": "a"}, token)["status"] == status
        stopped.post_events(b'{"id":"a"}')
        request = post(stopped, {"item": "a"}, tokens["admin"])
        stopped.kill()
        assert request["state"] == "waiting"
        assert "a" not in request.values()
        stopped.start()
        (key_file := tmp_path / "key").write_text(tokens["admin"])
        command = ("forget", "--item=b", "--yes", f"--url={stopped.url}", f"--key-file={key_file}")
        assert run_metronome(*command).exit_code == 0
        assert views(stopped, "a") == 0
        assert stopped.stop() == 0
        assert stopped.log.count("forgotten") == 2


@pytest.mark.slow
@pytest.mark.elasticsearch
def test_forgets_in_elasticsearch(elasticsearch_url: str, tmp_path: Path, item: str) -> None:
    prefix = unique_name("test")
    settings = {"store": elasticsearch_url, "index_prefix": prefix, "archive": f"file://{tmp_path / 'archive'}"}
    try:
        with Server(tmp_path / "data", tick_max_age=0, read_wait_seconds=30, **settings) as server:
            server.start()
            days = ("2015-01-22", "2015-01-23")
            send(server, *({"id": name, "ts": day, "import": "log"} for name in (item, "kept") for day in days))
            assert views(server, item) == 2
            request = post(server, {"item": item})
            server.kill()
            assert request["state"] == "waiting"
            server.start()
            assert forget(server, "--before=2015-01-23") == {"store": 1, "spool": 1, "dead letters": 0, "archive": 0}
            assert (views(server, item), views(server, "kept")) == (0, 1)
            assert post(server, {"import": "log", "dry_run": True})["events"] == 1
            assert forget(server, "--import=log")["store"] == 1
            send(server, {"id": item, "ts": "2015-01-22"})
            assert views(server, item) == 1
            assert [done["state"] for done in server.get("/forget.json")["requests"]] == ["done"] * 3
            assert server.stop() == 0
    finally:
        delete_indices(elasticsearch_url, prefix)


@pytest.mark.slow  # it runs servers or commands of its own
def test_old_months_are_dropped_and_no_longer_accepted_but_stay_counted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    months = [first_day(months) for months in (3, 2, 0)]
    with running_server(data, tick_max_age=0) as server:
        send(server, *({"id": "a", "ts": day, "visitor": day} for day in months))
        assert views(server, "a") == 3
    with running_server(data, tick_max_age=0, keep_events="2mo", keep_counts="2y") as server:
        deadline = time.monotonic() + 30
        while len(server.get("/query?by=visitor&bots=1&from=2015-01-01")["rows"]) != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert views(server, "a") == 3
        rejected = orjson.loads(server.post_events(orjson.dumps([{"id": "a", "ts": day} for day in months])))
        assert rejected["accepted"] == 2
        (rejection,) = rejected["rejected"]
        assert "METRONOME_KEEP_EVENTS keeps no events that are older" in rejection["error"]
        # It is logged once the transaction has ended, so reports may show the result before.
        while "old_events_dropped" not in server.log:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def first_day(months: int) -> str:
    """Return the first day of a month before the current one."""
    return start_of_first_kept_month(datetime.now(UTC), months).date().isoformat()
