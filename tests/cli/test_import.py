"""``metronome import`` sends the requests in access logs, against a fake server with ``POST /tick``."""

import asyncio
import bz2
import gzip
import io
import json
import lzma
import os
import re
import signal
import sys
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from typer.testing import CliRunner, Result

from metronome.cli import app

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LOG = Path(__file__).parents[1] / "data" / "access.log"
LINES = 62
READABLE = 59
PATTERN = r"^/datasets/(?P<id>[^/]+)(?:/.*?(?:\.(?P<format>csv|geojson|tar\.gz|KML)))?$"
MAIN = "from metronome.cli import main; main()"


@dataclass
class Server:
    """A server that records events, after it has sent the responses in *first*."""

    url: str = ""
    first: list[web.Response] = field(default_factory=list)
    reject: Callable[[dict[str, Any]], str | None] = lambda _: None
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event | None = None
    busy_after: int | None = None
    key: str = ""

    async def tick(self, request: web.Request) -> web.Response:
        self.asked.set()
        if self.held is not None:
            await self.held.wait()
        assert request.content_type == "application/x-ndjson"
        assert request.headers["Content-Encoding"] == "zstd"
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            status = 403 if "Authorization" in request.headers else 401
            return web.json_response({"title": "No", "detail": f"this takes a key ({status})"}, status=status)
        events = [json.loads(line) for line in (await request.read()).splitlines()]
        if self.busy_after is not None and len(self.sizes) >= self.busy_after:
            return web.Response(status=503)
        if self.first:
            return self.first.pop(0)
        self.sizes.append(len(events))
        rejected = []
        for index, event in enumerate(events):
            if error := self.reject(event):
                rejected.append({"index": index, "error": error})
            else:
                self.events[event["event_id"]] = event
        return web.json_response({"accepted": len(events) - len(rejected), "rejected": rejected})

    def count(self, event: str) -> int:
        return sum(one["event"] == event for one in self.events.values())


ServerFactory = Callable[[web.Application], Awaitable[TestServer]]


@pytest.fixture
async def server(aiohttp_server: ServerFactory) -> Server:
    server = Server()
    application = web.Application(client_max_size=1 << 25)
    application.router.add_post("/tick", server.tick)
    server.url = str((await aiohttp_server(application)).make_url("/"))
    return server


async def run(*arguments: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None) -> Result:
    words = ["import", *map(str, arguments)]
    return await asyncio.to_thread(CliRunner().invoke, app, words, input=stdin, env=env)


def rows(result: Result) -> dict[str, str]:
    return dict(re.findall(r"^ *([a-z ]+?) {2,}([\d,]+)$", result.stdout, re.MULTILINE))


async def test_sends_each_request_as_an_event_of_its_kind(server: Server) -> None:
    result = await run(LOG, "--url", server.url, "--item-pattern", PATTERN, "--own-host", "data.example.net")
    assert result.exit_code == 0, result.output
    assert rows(result) == {
        "lines read": "62",
        "views": str(server.count("view")),
        "downloads": str(server.count("download")),
        "of these by robots": "9",
        "errors": str(server.count("error")),
        "other requests": str(server.count("request")),
        "unreadable": "3",
        "accepted by the server": str(READABLE),
        "rejected by the server": "0",
    }
    assert len(server.events) == READABLE
    assert {"rivers", "trees-2024", "cafés", "air-quality"} <= {event.get("id") for event in server.events.values()}
    assert not any("data.example.net" in event.get("referer", "") for event in server.events.values())
    assert result.stderr == ""


async def test_a_dry_run_lists_items_formats_and_what_became_nothing() -> None:
    result = await run(LOG, "--dry-run", "--item-pattern", PATTERN)
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    items = lines[lines.index("items:") + 1 : lines.index("download formats:")]
    assert re.fullmatch(r"\d+  \S+", items[0])
    counts = [int(line.split()[0]) for line in items if line]
    assert counts == sorted(counts, reverse=True)
    assert any(re.fullmatch(r"\d+  csv", line) for line in lines)
    others = lines[lines.index("neither views nor downloads:") + 1 :]
    assert any(re.fullmatch(r"\d+  GET /\S* \d{3}", line) for line in others)


async def test_a_first_batch_that_is_too_old_as_a_whole_stops_the_import(server: Server) -> None:
    server.reject = lambda _: "@timestamp is 2015-05-17, before 2026-01-01: raise tick_max_age to accept older events"
    result = await run(LOG, "--url", server.url, "--batch", "10")
    assert result.exit_code == 1
    assert "METRONOME_TICK_MAX_AGE" in result.stderr
    assert "scope import" in result.stderr
    # Two batches are sent at a time.
    assert len(server.sizes) <= 3


async def test_lists_unreadable_lines_with_reasons(server: Server) -> None:
    result = await run(LOG, "--url", server.url)
    for line in (60, 61, 62):
        assert re.search(rf"^  {re.escape(str(LOG))}, line {line}: \S", result.stdout, re.MULTILINE)


async def test_reads_settings_from_the_environment(server: Server) -> None:
    env = {"METRONOME_ITEM_PATTERN": PATTERN, "METRONOME_OWN_HOSTS": "data.example.net, www.example.org"}
    assert (await run(LOG, "--url", server.url, env=env)).exit_code == 0
    referers = " ".join(event.get("referer", "") for event in server.events.values())
    assert "search.example" in referers
    assert "example.net" not in referers
    assert "example.org" not in referers
    assert "rivers" in {event.get("id") for event in server.events.values()}


@pytest.fixture(params=["gzip", "gzip, two members", "zstd", "zstd, two frames", "bzip2", "xz", "zip"])
def compressed(request: pytest.FixtureRequest) -> bytes:
    log = LOG.read_bytes()
    if request.param == "bzip2":
        return bz2.compress(log)
    if request.param == "xz":
        return lzma.compress(log)
    if request.param == "zip":
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("logs/1", log[:500])
            archive.writestr("logs/2", log[500:])
        return target.getvalue()
    whole: Callable[[bytes], bytes] = gzip.compress if request.param.startswith("gzip") else zstd.compress
    return whole(log[:500]) + whole(log[500:]) if "two" in request.param else whole(log)


async def test_importing_again_compressed_or_from_standard_input_adds_nothing(
    server: Server, compressed: bytes, tmp_path: Path
) -> None:
    await run(LOG, "--url", server.url)
    before = dict(server.events)
    file = tmp_path / "access.log.1"
    file.write_bytes(compressed)
    assert (await run(LOG, "--url", server.url)).exit_code == 0
    assert rows(await run(file, "--url", server.url))["lines read"] == "62"
    assert rows(await run("-", "--url", server.url, stdin=compressed))["lines read"] == "62"
    assert rows(await run("-", "--url", server.url, stdin=LOG.read_bytes()))["lines read"] == "62"
    assert server.events == before


@pytest.mark.parametrize("cut", [700, 760, 800, 850, 900])
async def test_importing_a_grown_log_adds_only_new_lines(server: Server, tmp_path: Path, cut: int) -> None:
    file = tmp_path / "access.log"
    file.write_bytes(LOG.read_bytes()[:cut])
    await run(file, "--url", server.url)
    file.write_bytes(LOG.read_bytes())
    await run(file, "--url", server.url)
    assert len(server.events) == READABLE


async def test_reads_a_last_line_without_line_feed(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    file.write_bytes(LOG.read_bytes().rstrip(b"\n"))
    await run(file, "--url", server.url)
    assert len(server.events) == READABLE


async def test_imports_several_logs(server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    other.write_bytes(b"\n\n" + b'192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 5\n')
    empty = tmp_path / "empty.log"
    empty.touch()
    result = await run(LOG, other, empty, "--url", server.url)
    assert (result.exit_code, len(server.events)) == (0, READABLE + 1)


async def test_batches_have_the_requested_size(server: Server) -> None:
    await run(LOG, "--url", server.url, "--batch", "25")
    assert sorted(server.sizes) == [9, 25, 25]


async def test_batches_are_limited_in_bytes(server: Server, tmp_path: Path) -> None:
    line = '192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /a?{} HTTP/1.1" 200 5\n'.format("x" * 60_000)
    file = tmp_path / "long.log"
    file.write_text(line * 300)
    assert (await run(file, "--url", server.url)).exit_code == 0
    assert len(server.sizes) == 3
    assert sum(server.sizes) == 300


async def test_an_overlong_line_is_unreadable_and_the_next_one_is_read(server: Server, tmp_path: Path) -> None:
    log = LOG.read_bytes()
    file = tmp_path / "access.log"
    file.write_bytes(log + b"\0x" * 1_000_000 + b"\n" + log.splitlines(keepends=True)[0])
    result = await run(file, "--url", server.url)
    assert (rows(result)["lines read"], len(server.events)) == ("64", READABLE + 1)
    assert f"{file}, line 64: " in result.stdout


@pytest.mark.parametrize(
    "busy",
    [
        {"status": 503, "headers": {"Retry-After": "1"}},
        {"status": 503},
        {"status": 429, "headers": {"Retry-After": "tomorrow"}},
        {"status": 502, "text": "<html>"},
    ],
)
async def test_retries_a_batch_while_the_server_is_busy(server: Server, busy: dict[str, Any]) -> None:
    server.first = [web.Response(**busy)]
    result = await run(LOG, "--url", server.url, "--batch", "20")
    assert (result.exit_code, len(server.events)) == (0, READABLE)


async def test_fails_if_the_server_stays_busy(server: Server) -> None:
    problem = {"title": "Service Unavailable", "detail": "the spool is full"}
    server.first = [web.json_response(problem, status=503) for _ in range(50)]
    result = await run(LOG, "--url", server.url, "--retry-timeout", "0.3")
    assert result.exit_code == 1
    assert "503 the spool is full; 0 lines were acknowledged; run the same command again" in result.stderr


async def test_fails_if_the_server_is_unreachable() -> None:
    result = await run(LOG, "--url", f"http://127.0.0.1:{unused_port()}", "--retry-timeout", "0.1")
    assert result.exit_code == 1
    assert "does not respond" in result.stderr
    assert "no request is counted twice" in result.stderr


async def test_reports_what_was_acknowledged_before_the_server_failed(server: Server) -> None:
    server.busy_after = 3
    result = await run(LOG, "--url", server.url, "--batch", "1", "--retry-timeout", "0.1")
    assert (result.exit_code, len(server.events)) == (1, 3)
    assert f"; {len(server.events)} lines were acknowledged" in result.stderr


async def test_lists_rejected_events_with_their_lines(server: Server) -> None:
    server.reject = lambda event: "no \x1b[31mrivers" if event.get("id") == "/datasets/rivers" else None
    result = await run(LOG, "--url", server.url, "--batch", "10")
    rejected = READABLE - len(server.events)
    assert result.exit_code == 1
    assert rows(result)["rejected by the server"] == str(rejected)
    assert "no \ufffd[31mrivers" in result.stdout
    assert f"and {rejected - 5} more" in result.stdout
    shown = [int(line) for line in re.findall(r"line (\d+): no \ufffd", result.stdout)]
    text = LOG.read_bytes().split(b"\n")
    assert len(shown) == 5
    assert all(b"/datasets/rivers" in text[line - 1] for line in shown)


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ({"status": 401, "text": '{"detail":"send a key"}'}, 1, "rejects the events: send a key"),
        ({"status": 413}, 1, "rejects the events: "),
        ({"status": 404}, 2, "is not a Metronome server of this version: POST"),
        (
            {"status": 302, "headers": {"Location": "/"}},
            2,
            "is not a Metronome server of this version: POST",
        ),
        ({"text": "welcome"}, 2, "cannot parse the response from /tick"),
        ({"text": '{"accepted":1,"rejected":[{"index":99,"error":""}]}'}, 2, "cannot parse the response from /tick"),
    ],
)
async def test_fails_if_the_server_rejects_all_events(
    server: Server, answer: dict[str, Any], code: int, says: str
) -> None:
    server.first = [web.Response(**answer)]
    result = await run(LOG, "--url", server.url)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


async def test_sends_the_key(server: Server, tmp_path: Path) -> None:
    server.key = "mtk_right"
    (file := tmp_path / "key").write_text("mtk_right\n")
    assert (await run(LOG, "--url", server.url, "--key-file", file)).exit_code == 0
    assert (await run(LOG, "--url", server.url, env={"METRONOME_KEY": "mtk_right"})).exit_code == 0
    assert len(server.events) == READABLE


@pytest.mark.slow
@pytest.mark.parametrize(("key", "status"), [("", 401), ("mtk_wrong", 403)])
@pytest.mark.parametrize("follow", [False, True])
async def test_reports_the_servers_reason_if_the_key_is_missing_or_wrong(
    server: Server, tmp_path: Path, key: str, status: int, *, follow: bool
) -> None:
    server.key = "mtk_right"
    words = ["import", str(LOG), "--url", server.url]
    words += ["--follow", "--positions", str(tmp_path / "positions.json")] if follow else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MAIN, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"METRONOME_KEY": key},
    )
    output, errors = await process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert f"rejects the events: this takes a key ({status})".encode() in errors
    assert b"Traceback" not in errors
    assert server.events == {}


async def test_rejects_a_key_that_cannot_be_sent_in_a_header(server: Server) -> None:
    result = await run(LOG, "--url", server.url, env={"METRONOME_KEY": "a\nb"})
    assert result.exit_code == 2
    assert "invalid key: expected printable ASCII" in result.stderr


async def test_directives_are_neither_requests_nor_unreadable(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "u_ex250517.log"
    file.write_text(
        "#Version: 1.0\n#Fields: date time cs-method cs-uri-stem sc-status\n"
        "2025-05-17 10:05:03 GET /a 200\n#Fields: date time cs-uri-stem\n2025-05-17 10:05:04 /b\n2025-05-17\n"
    )
    result = await run(file, "--url", server.url)
    assert result.exit_code == 0
    shown = rows(result)
    assert (shown["lines read"], shown["no requests"], shown["unreadable"], shown["views"]) == ("6", "3", "1", "1")
    assert f"{file}, line 6: " in result.stdout
    file.write_bytes(gzip.compress(file.read_bytes() + b"2025-05-17 10:05:05 /c\n"))
    await run(file, "--url", server.url)
    assert [event["url"] for event in server.events.values()] == ["/a", "/b", "/c"]


async def test_rejects_an_invalid_url() -> None:
    result = await run(LOG, "--url", "localhost:8080")
    assert result.exit_code == 2
    assert "invalid --url or METRONOME_URL 'localhost:8080': expected http://host:port" in result.stderr


async def test_a_dry_run_sends_nothing(server: Server) -> None:
    result = await run(LOG, "--url", server.url, "--dry-run")
    assert result.exit_code == 0
    assert rows(result)["unreadable"] == "3"
    assert "no events were sent" in result.stdout
    assert not server.asked.is_set()


@pytest.mark.parametrize("whole", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
async def test_sends_the_complete_lines_of_a_damaged_log(
    server: Server, tmp_path: Path, whole: Callable[[bytes], bytes], damage: str
) -> None:
    first = whole(LOG.read_bytes())
    file = tmp_path / "access.log.gz"
    file.write_bytes(first + (first[:-900] if damage == "cut" else b"\0\1\2\3" * 300))
    result = await run(file, "--url", server.url)
    assert result.exit_code == 1
    assert f"{file} is damaged or incomplete" in result.stderr
    assert len(server.events) >= READABLE
    assert rows(result)["accepted by the server"] == str(len(server.events))


async def test_does_not_send_the_last_line_of_a_truncated_log(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "access.log.gz"
    file.write_bytes(gzip.compress(LOG.read_bytes()[:780]) + b"\x1f\x8b")
    await run(file, "--url", server.url)
    assert len(server.events) == LOG.read_bytes()[:780].count(b"\n")


@pytest.mark.parametrize("options", [[], ["--format", "combined"]])
async def test_fails_if_no_line_of_a_log_can_be_read(server: Server, tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary\n" * 300)
    result = await run(file, "--url", server.url, *options)
    assert result.exit_code == 1
    assert "vhost-combined, common, combined" in result.stderr
    assert (await run(file, LOG, "--url", server.url)).exit_code == 1
    assert len(server.events) == READABLE


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.log"], "cannot read nowhere.log: no such file"),
        ([LOG.parent], "it is a folder"),
        ([LOG, "--format", "morse"], "morse"),
        ([LOG, "--item-pattern", "("], "METRONOME_ITEM_PATTERN is not a valid regular expression"),
        ([LOG, "--item-pattern", "x"], "METRONOME_ITEM_PATTERN"),
    ],
)
async def test_sends_nothing_if_an_argument_is_invalid(server: Server, arguments: list[str | Path], says: str) -> None:
    result = await run(LOG, *arguments, "--url", server.url)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not server.asked.is_set()


@pytest.mark.slow
@pytest.mark.parametrize("log", [str(LOG), "-"])
async def test_reports_how_to_resume_after_an_interrupt(server: Server, log: str) -> None:
    server.held = asyncio.Event()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MAIN, "import", log, "--url", server.url, "--batch", "10"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert process.stdin is not None
    # More than a block, so that standard input is read on, and then waits for more.
    process.stdin.write(LOG.read_bytes() * 50)
    await server.asked.wait()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = await process.stderr.read()
    server.held.set()
    process.stdin.close()
    assert await process.wait() == 130
    assert b"interrupted; 0 lines were acknowledged; run the same command again" in said


COMBINED = '203.0.113.7 - - [17/May/2015:10:05:03 +0000] "GET {} HTTP/1.1" 200 5 "-" "curl/8"\n'


async def dry_run(content: bytes | str, tmp_path: Path, *options: str) -> Result:
    file = tmp_path / "access.log"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return await run(file, "--dry-run", *options)


async def test_a_byte_order_mark_is_ignored_and_utf_16_is_named(tmp_path: Path) -> None:
    text = COMBINED.format("/a") + COMBINED.format("/b")
    assert rows(await dry_run(b"\xef\xbb\xbf" + text.encode(), tmp_path))["views"] == "2"
    for encoding in ("utf-16", "utf-16-le"):
        result = await dry_run(text.encode(encoding), tmp_path)
        assert result.exit_code == 1
        assert "it is UTF-16: convert it first" in result.stderr


async def test_a_log_of_unknown_format_is_shown_with_the_nearest_format(tmp_path: Path) -> None:
    result = await dry_run("203.0.113.7|17/May/2015|/a|200\n" * 3, tmp_path)
    assert result.exit_code == 1
    assert (
        "The first line is '203.0.113.0|17/May/2015|/a|200'; the nearest format is combined: no time" in result.stderr
    )
    result = await dry_run('[17/May/2015:10:05:03 +0000] 203.0.113.7 "GET /a HTTP/1.1" 200 5\n', tmp_path)
    assert "--format" in result.stderr


async def test_a_format_string_reads_a_format_of_the_server_s_own(tmp_path: Path) -> None:
    log = '[17/May/2015:10:05:03 +0000] 203.0.113.7 "GET /a HTTP/1.1" 200 5\n'
    assert rows(await dry_run(log, tmp_path, "--format", '%t %a "%r" %>s %b'))["views"] == "1"
    nginx = '[$time_local] $remote_addr "$request" $status $body_bytes_sent'
    assert rows(await dry_run(log, tmp_path, "--format", nginx))["views"] == "1"
    for text, reason in (("%h %>s", "has no time"), ("%h %t", "has no request")):
        result = await dry_run(log, tmp_path, "--format", text)
        assert result.exit_code == 2
        assert reason in result.stderr


async def test_options_say_what_counts(tmp_path: Path) -> None:
    log = "".join(map(COMBINED.format, ["/a", "/style.css", "/robots.txt", "/health", "/d.xhtml?item=7"]))
    assert rows(await dry_run(log, tmp_path))["views"] == "3"
    assert rows(await dry_run(log, tmp_path, "--static"))["downloads"] == "1"
    assert rows(await dry_run(log, tmp_path, "--exclude", "^/health"))["views"] == "2"
    matched = ("--item-pattern", "item=(?P<id>[0-9]+)")
    assert rows(await dry_run(log, tmp_path, *matched, "--match", "url"))["views"] == "1"
    result = await dry_run(log, tmp_path, *matched)
    assert rows(result)["views"] == "0"
    assert "the item pattern matched no request: it was searched in /a, /style.css" in result.stderr
    moved = COMBINED.format("/a.csv").replace(" 200 ", " 302 ")
    assert rows(await dry_run(moved, tmp_path))["downloads"] == "0"
    assert rows(await dry_run(moved, tmp_path, "--redirects"))["downloads"] == "1"


async def test_trusted_proxies_are_networks(tmp_path: Path) -> None:
    result = await dry_run(COMBINED.format("/a"), tmp_path, "--trusted-proxies", "203.0.113")
    assert result.exit_code == 2
    assert "expected networks such as 203.0.113.0/24" in result.stderr
