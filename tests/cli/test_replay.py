"""``metronome replay`` and ``metronome verify`` against a real server."""

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from tests.archive.archived import build_document, create_archive
from tests.s3_server import environment_variables
from tests.servers import COMMAND, CommandResult, Server, build_environment, run_metronome, running_server, unique_name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("replay") / "data") as running:
        yield running


def replay(archive: str, server: Server, folder: Path, *options: str) -> CommandResult:
    return run_metronome("replay", archive, f"--url={server.url}", f"--checkpoint={folder / 'progress'}", *options)


def verify(archive: str, server: Server, *options: str) -> CommandResult:
    return run_metronome("verify", archive, f"--url={server.url}", *options)


def counts(ended: CommandResult) -> dict[str, int]:
    """Return the counts in a replay's summary."""
    found = re.findall(r"^ *(\D+?) {2,}([\d,]+)$", ended.stdout, re.MULTILINE)
    return {name: int(count.replace(",", "")) for name, count in found}


def views(server: Server, item: str) -> int:
    return sum(server.get(f"/tock/{item}.json")["views"].values())


def lines_of(item: str, *days: int) -> list[bytes]:
    return [
        build_document(f"{item}-{day}-{number}", item, f"2015-01-{day:02}T09:{number:02}:00.000Z")
        for day in days
        for number in range(10)
    ]


@pytest.mark.slow
def test_sends_all_documents_and_again_without_counting_twice(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    url, _ = create_archive(tmp_path / "archive", lines_of(item, 1, 2), lines_of(item, 2, 3))
    told = counts(replay(url, server, tmp_path))
    assert told["objects sent"] == 4
    assert (told["documents sent"], told["new in the store"], told["already stored"]) == (40, 30, 10)
    assert views(server, item) == 30
    again = counts(replay(url, server, tmp_path))
    assert (again["documents sent"], again["new in the store"], again["already stored"]) == (40, 0, 40)
    assert views(server, item) == 30
    # A complete replay deletes its checkpoint.
    assert not (tmp_path / "progress").exists()


def test_sends_only_the_requested_days(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    url, _ = create_archive(tmp_path / "archive", lines_of(item, 1, 2, 3))
    assert counts(replay(url, server, tmp_path, "--from=2015-01-02", "--to=2015-01-02"))["documents sent"] == 10
    assert server.get(f"/tock/{item}.json")["views"] == {"2015-01-02": 10}


@pytest.mark.slow
def test_lists_damaged_objects_and_sends_the_others(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    url, (first, second) = create_archive(tmp_path / "archive", lines_of(item, 1, 2), lines_of(item, 3, 4))
    whole = (tmp_path / "archive" / first[1]).read_bytes()
    (tmp_path / "archive" / first[1]).write_bytes(whole[:-7])
    (tmp_path / "archive" / second[0]).unlink()
    ended = replay(url, server, tmp_path)
    assert ended.exit_code == 1
    assert (counts(ended)["documents sent"], counts(ended)["damaged or missing"]) == (20, 2)
    assert f"{first[1]} differs from its manifest" in ended.stderr
    assert f"{second[0]} is missing" in ended.stderr
    assert "restore the object" in ended.stderr
    assert views(server, item) == 20
    # Once the object is restored, only it is sent.
    (tmp_path / "archive" / first[1]).write_bytes(whole)
    ended = replay(url, server, tmp_path)
    assert "skipping 2 of 3 objects, which an incomplete replay has sent" in ended.stderr
    assert (counts(ended)["documents sent"], views(server, item)) == (10, 30)
    assert counts(replay(url, server, tmp_path, "--restart"))["documents sent"] == 30


@pytest.mark.slow
def test_restart_discards_what_earlier_replays_recorded(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    url, objects = create_archive(tmp_path / "archive", lines_of(item, 1), lines_of(item, 2))
    first, second = (tmp_path / "archive" / paths[0] for paths in objects)
    for damaged, options in ((second, ()), (first, ("--restart",))):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-7])
        assert replay(url, server, tmp_path, *options).exit_code == 1
        damaged.write_bytes(whole)
    # Only the first replay has sent the first object, and the store may have been emptied since.
    ended = replay(url, server, tmp_path)
    assert "skipping 1 of 2 objects" in ended.stderr
    assert counts(ended)["documents sent"] == 10


def test_lists_rejected_documents_with_their_location(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    odd = build_document("x", item).replace(b'"event":', b'"_doc_count":1000,"event":')
    url, ((path, *_),) = create_archive(
        tmp_path / "archive", [build_document("1", item), odd, build_document("2", item)]
    )
    ended = replay(url, server, tmp_path)
    assert ended.exit_code == 1
    assert (counts(ended)["rejected"], counts(ended)["new in the store"]) == (1, 2)
    assert f"{path}, line 2: invalid field '_doc_count'" in ended.stdout
    assert views(server, item) == 2


def test_sends_an_object_that_no_manifest_lists(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    url, ((*_, manifest),) = create_archive(tmp_path / "archive", lines_of(item, 1))
    (tmp_path / "archive" / manifest).unlink()
    ended = replay(url, server, tmp_path)
    assert (ended.exit_code, counts(ended)["in no manifest"], views(server, item)) == (0, 1, 10)


@pytest.mark.slow
@pytest.mark.usefixtures("s3_environment")
@pytest.mark.parametrize(
    ("archive", "options", "says", "code"),
    [
        ("bucket", [], "invalid archive 'bucket': expected s3://bucket/prefix", 2),
        ("file:///no/such/folder", [], "the folder /no/such/folder does not exist; ", 2),
        ("s3://no-such-bucket/x", [], "the bucket of s3://no-such-bucket/x does not exist; ", 2),
        ("az://container/x", [], "invalid archive 'az://container/x': ", 2),
        ("file:///tmp", ["--from=tomorrow"], "invalid --from 'tomorrow': expected a date such as 2015-01-22", 2),
        ("file:///tmp", ["--from=2015-02-01", "--to=2015-01-01"], "--to 2015-01-01 is before --from", 2),
        ("file:///tmp", ["--from=1970-01-01", "--to=1970-01-01"], "the archive has no objects for these days", 1),
    ],
)
def test_reports_an_error_in_one_line(
    server: Server, tmp_path: Path, archive: str, options: list[str], says: str, code: int
) -> None:
    ended = replay(archive, server, tmp_path, *options)
    assert (ended.exit_code, says in ended.stderr, ended.stderr.count("\n")) == (code, True, 1), ended
    if "no objects" not in says:
        compared = verify(archive, server, *options)
        assert (compared.exit_code, says in compared.stderr, compared.stderr.count("\n")) == (2, True, 1), compared


def test_reports_denied_credentials(tmp_path: Path, server: Server) -> None:
    async def deny(_: web.Request) -> web.Response:
        return web.Response(status=403, body=b"<Error><Code>AccessDenied</Code></Error>", content_type="text/xml")

    async def run() -> CommandResult:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", deny)
        async with TestServer(app) as denying:
            with environment_variables({"AWS_ENDPOINT_URL": str(denying.make_url(""))}):
                return await asyncio.to_thread(replay, "s3://bucket/x", server, tmp_path)

    with environment_variables({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}):
        ended = asyncio.run(run())
    assert ended.exit_code == 2
    assert "s3://bucket/x denies access: AccessDenied; " in ended.stderr


def test_reports_an_unreachable_server(tmp_path: Path) -> None:
    url, _ = create_archive(tmp_path / "archive", lines_of("x", 1))
    options = (f"--url=http://127.0.0.1:{unused_port()}", f"--checkpoint={tmp_path / 'progress'}")
    ended = run_metronome("replay", url, *options, "--retry-timeout=0")
    assert (ended.exit_code, ended.stderr.count("\n")) == (1, 1)
    assert "does not respond" in ended.stderr
    assert "metronome serve" in ended.stderr
    compared = run_metronome("verify", url, options[0])
    assert (compared.exit_code, compared.stderr.count("\n")) == (1, 1)


@pytest.mark.slow
def test_resumes_an_interrupted_replay(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    rolls = [
        [build_document(f"{item}{day}.{n}", item, f"2015-03-{day:02}T09:00:00.000Z") for n in range(5000)]
        for day in range(1, 29)
    ]
    url, _ = create_archive(tmp_path / "archive", *rolls)
    command = [*COMMAND, "replay", url, f"--url={server.url}", f"--checkpoint={tmp_path / 'progress'}"]
    with subprocess.Popen(command, env=build_environment(), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not ((tmp_path / "progress").exists() and (tmp_path / "progress").stat().st_size):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "run the same command again" in said
    ended = replay(url, server, tmp_path)
    assert ended.exit_code == 0, ended
    assert "which an incomplete replay has sent" in ended.stderr
    assert counts(ended)["documents sent"] < 140_000
    assert views(server, item) == 140_000


@pytest.mark.slow
def test_verify_lists_the_days_that_differ(server: Server, tmp_path: Path) -> None:
    item = unique_name("item")
    days = [build_document(f"{item}{n}", item, f"2014-06-0{day}T00:00:00.000Z") for n, day in enumerate((1, 1, 2, 3))]
    url, _ = create_archive(tmp_path / "archive", days, days)
    options = ("--from=2014-06-01", "--to=2014-06-09")
    ended = verify(url, server, *options)
    assert ended.exit_code == 1
    assert re.search(r"^2014-06-01 +2 +0 +2 +0$", ended.stdout, re.MULTILINE)
    assert replay(url, server, tmp_path).exit_code == 0
    assert verify(url, server, *options).exit_code == 0
    server.post_events(b'{"id":"x","event":"rated","ts":"2014-06-02"}')
    server.wait_until_shipped()
    ended = verify(url, server, *options)
    assert (ended.exit_code, ended.stderr) == (1, "")
    assert ended.stdout.splitlines()[1:] == [
        "2014-06-02               1             2             0             1",
        "all                      4             5             0             1",
        "3 days, 2 of them equal",
    ]


def test_verify_reports_damaged_objects(server: Server, tmp_path: Path) -> None:
    url, ((path, *_),) = create_archive(tmp_path / "archive", lines_of(unique_name("item"), 5))
    assert replay(url, server, tmp_path).exit_code == 0
    (tmp_path / "archive" / path).write_bytes(b"x")
    ended = verify(url, server, "--from=2015-01-05", "--to=2015-01-05")
    assert ended.exit_code == 1
    assert f"{path} differs from its manifest" in ended.stderr


@pytest.mark.slow
def test_sends_keys(tmp_path: Path) -> None:
    url, _ = create_archive(tmp_path / "archive", lines_of("x", 1))
    with running_server(tmp_path / "data") as keyed:
        made = run_metronome("keys", "create", "replayer", "--scope=import", "--scope=query", data=keyed.data)
        (key_file := tmp_path / "key").write_text(made.stdout.splitlines()[-1])
        deadline = time.monotonic() + 30
        while "rows" in keyed.get("/query"):
            assert time.monotonic() < deadline, "the server does not ask for a key"
            time.sleep(0.05)
        refused = replay(url, keyed, tmp_path)
        assert (refused.exit_code, "METRONOME_KEY" in refused.stderr) == (1, True)
        assert replay(url, keyed, tmp_path, f"--key-file={key_file}").exit_code == 0
        assert verify(url, keyed).exit_code == 1
        assert verify(url, keyed, f"--key-file={key_file}").exit_code == 0
