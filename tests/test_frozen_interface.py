"""Golden test of the interface that users depend on: it must not change when the code is moved or renamed.

It collects, from the running code: HTTP routes, settings, metrics, commands, problem types, stored documents of every
protocol, responses of every report, and the layout of the archive. It compares them with
``tests/data/frozen_interface.json``.

A failure means that a client, a dashboard, a configuration file or an archive of a user would see a difference. If that
is intended, rewrite the golden file and review its diff::

    python tests/test_frozen_interface.py

Every change of the golden file must be described in an issue and in the CHANGELOG.

Only the functions under "Adapters" use what is imported from Metronome. When code is renamed, change these and nothing
else. Sentences for
people (help texts, the ``detail`` of problems, reasons of rejected events) are not part of the interface: they are
replaced by ``<text>``. Random IDs and checksums are also replaced. Keys of documents and responses keep their order.
"""

import asyncio
import contextlib
import dataclasses
import gzip
import itertools
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import aiohttp
import msgpack
import pytest
import structlog
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command
from typer.testing import CliRunner

from metronome.backup import Backups
from metronome.cli import COMMANDS, app
from metronome.config import read_settings
from metronome.erasures import Erasures, Retention, SpoolDrains
from metronome.errors import MetronomeError
from metronome.fields import FIELDS
from metronome.middleware import ClientConfig
from metronome.server import routes
from metronome.server.admin_routes import backup_routes, erasure_routes
from metronome.server.app import build_app
from metronome.server.bootstrap import build_ingest_context, open_authorizer, open_state, open_store
from metronome.server.health import HealthRoutes
from metronome.server.main import serve
from metronome.shipper import Shipper
from metronome.spool import SpoolReader, SpoolWriter
from metronome.telemetry import Telemetry
from metronome.web.handlers import QueryContext
from metronome.web.problems import problem_response

DATA: Final = Path(__file__).parent / "data"
GOLDEN: Final = DATA / "frozen_interface.json"
START: Final = datetime(2026, 2, 1, tzinfo=UTC)
SECONDS: Final = 20.0
SECTIONS: Final = (
    "archive",
    "commands",
    "fields",
    "metrics",
    "middleware settings",
    "problems",
    "protocols",
    "reports",
    "routes",
    "settings",
)

# ---------------------------------------------------------------------------------------------------------------------
# Adapters: nothing after this part uses a name of Metronome's code.


def command_line() -> Any:
    """Return the Typer application behind the command ``metronome``."""
    return app


def root_command() -> Any:
    """Return the command ``metronome`` with all its subcommands."""
    root: Any = get_command(app)
    root.commands = {name: command.load(name) for name, command in COMMANDS.items()}
    return root


def service(settings: Mapping[str, Any], stop: asyncio.Event) -> Any:
    """Return the coroutine that runs a server until *stop* is set."""
    return serve(read_settings(settings), stop)


def settings_by_default() -> tuple[str, dict[str, Any]]:
    """Return the prefix of the environment variables, and the default of each setting by its name."""
    settings = read_settings({})
    return str(settings.model_config["env_prefix"]), settings.model_dump(mode="json")


def middleware_settings_class() -> Any:
    """Return the dataclass that configures the middleware."""
    return ClientConfig


def error_base_class() -> type[Exception]:
    """Return the base class of all errors that are raised on purpose."""
    return MetronomeError


def known_fields() -> tuple[Any, ...]:
    """Return the dataclasses that describe the known fields of a document."""
    return FIELDS


def problem_of(error: Any) -> web.Response:
    """Return the HTTP response for an error."""
    return problem_response(error)


def count_refusal(error: Any, registry: CollectorRegistry) -> None:
    """Count a request that is refused with this error."""
    Telemetry(registry).count_rejection(error)


async def applications_with_workers(data: Path) -> dict[str, web.Application]:
    """Build the HTTP applications of a worker and of the main process behind workers, as these processes do."""

    async def relay(_: web.Request) -> web.StreamResponse:
        raise web.HTTPNotImplemented

    settings = read_settings({"data": data, "workers": 2})
    telemetry = Telemetry(CollectorRegistry())
    data.mkdir()  # noqa: ASYNC240  # nothing else runs in this loop
    spool = SpoolWriter(data / "spool", settings.spool_max_bytes, telemetry.count_commit)
    state, store = open_state(settings), open_store(settings)
    shipper = Shipper(SpoolReader(data / "spool"), store, data / "dead", telemetry)
    spools = [SpoolDrains(data / "spool", shipper, None)]
    erasures = Erasures(state, store, spools, data / "dead", None, Retention(), time.time)
    try:
        async with open_authorizer(settings, state) as guard:
            doorway = build_ingest_context(settings, spool, guard, telemetry)
            answering = QueryContext(store, guard, doorway.client_address, telemetry, time.time)
            health = HealthRoutes(store, [], settings.spool_max_bytes, answering, lambda: [telemetry.registry])
            main = [
                *routes.main_process_routes(settings, answering, state),
                *erasure_routes(answering, erasures),
                *backup_routes(answering, Backups(data, store, [])),
                *health.routes(),
            ]
            worker = routes.worker_routes(settings, doorway, state, relay)
            fallback = web.route("*", "/{rest:.*}", relay)
            return {
                "main process behind workers": build_app(main, settings.body_max_bytes),
                "worker": build_app(worker, settings.body_max_bytes, fallback),
            }
    finally:
        shipper.close()
        await spool.close()
        await store.close()


# ---------------------------------------------------------------------------------------------------------------------
# What is sent and requested. HH stands for the hour of the clock.

FIREFOX: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GOOGLEBOT: Final = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
CLIENT_HEADERS: Final = {"User-Agent": FIREFOX, "Host": "stats.example.org", "X-Forwarded-For": "192.0.2.7"}
JSON: Final = {"Content-Type": "application/json"}
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
NDJSON: Final = {"Content-Type": "application/x-ndjson"}
RICH_EVENTS: Final = (
    {
        "id": "rivers",
        "event": "view",
        "event_id": "rich-1",
        "agent": FIREFOX,
        "clientip": "8.8.8.8",
        "referer": "https://www.google.com/search?q=rivers",
        "url": "https://data.example.org/rivers?utm_source=news&utm_medium=email&utm_campaign=spring&utm_term=a&utm_content=b",
        "duration": "12.5",
        "title": "Rivers",
        "nested": {"wing": "east", "n": 5},
    },
    {"id": "rivers", "event_id": "rich-2", "format": "CSV", "agent": GOOGLEBOT, "country": "BE"},
    {"id": "rivers", "event_id": "rich-3", "event": "error", "message": "cannot load tile 12 of layer 3"},
)
LOG_LINE: Final = f'"GET /data/rivers.csv?x=1 HTTP/1.1" 200 512 "https://news.example/a" "{FIREFOX}"'


@dataclasses.dataclass(frozen=True)
class Message:
    """One HTTP request."""

    path: str
    body: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    method: str = ""


def _lines(*values: Any) -> str:
    return "".join(json.dumps(value, separators=(",", ":")) + "\n" for value in values)


HTTP_PROTOCOLS: Final = {
    "tick: one event": Message("/tick", json.dumps({"id": "rivers"}), JSON),
    "tick: rich events": Message("/tick", json.dumps(RICH_EVENTS), JSON),
    "tick: form": Message("/tick", "id=rivers&format=csv&duration=7", FORM),
    "tick: batch with a rejected event": Message("/tick", _lines({"id": "a", "n": 1}, {"ts": "noon"}), NDJSON),
    "pixel": Message("/tick.gif?id=rivers&event=view&theme=dark"),
    "hit": Message("/hit/rivers/a?page=2"),
    "matomo: view": Message(
        "/matomo.php?idsite=1&rec=1&send_image=0&action_name=Rivers&url=https%3A%2F%2Fdata.example.org%2Frivers"
        "&urlref=https%3A%2F%2Fnews.example%2Fa&_id=0123456789abcdef&cvar=%7B%221%22%3A%5B%22kind%22%2C%22a%22%5D%7D"
    ),
    "matomo: bulk": Message(
        "/matomo.php",
        json.dumps(
            {
                "requests": [
                    "?idsite=1&rec=1&url=http://data.example.org/a&download=http://data.example.org/a.csv",
                    "?idsite=1&rec=1&url=http://data.example.org/a&e_c=map&e_a=zoom&e_n=in&e_v=2.5",
                ]
            }
        ),
        JSON,
    ),
    "elasticsearch: bulk": Message(
        "/es/_bulk",
        _lines(
            {"create": {"_index": "logs", "_id": "bulk-1"}},
            {"id": "rivers", "event": "view", "@timestamp": "2026-02-01THH:00:00Z"},
            {"index": {"_index": "logs"}},
            {"message": "started", "level": "info", "host": {"name": "h1"}},
            {"create": {"_index": "logs"}},
            {"message": f"192.0.2.7 - ada [01/Feb/2026:HH:00:00 +0000] {LOG_LINE}"},
            {"create": {"_index": "logs"}},
            {"@timestamp": "noon"},
        ),
        NDJSON,
    ),
    "elasticsearch: document": Message("/es/logs/_doc/doc-1", json.dumps({"id": "rivers", "event": "view"}), JSON),
    "micro-metrics: track": Message(
        "/api/track",
        json.dumps(
            {
                "type": "sale",
                "tags": {"currency": "CHF", "id": "ticket"},
                "fields": "wing:east,n:5",
                "value": 4.5,
                "userID": "rosa",
                "sessionId": "s1",
                "data": {"ip": "203.0.113.77", "cart": {"total": 3}},
            }
        ),
        JSON,
    ),
    "micro-metrics: batch": Message(
        "/api/track/batch",
        json.dumps({"events": [{"type": "sale", "tags": {"currency": "EUR"}, "value": 1200}, {"value": 1}]}),
        JSON,
    ),
    "micro-metrics: pixel": Message("/t.gif?type=visit&tags=currency:CHF&value=2"),
    "plausible: event": Message(
        "/api/event",
        '{"n":"Signup","u":"https://data.example.org/rivers","d":"data.example.org","p":{"plan":"gold"},"w":1280}',
        {"Content-Type": "text/plain"},
    ),
    "umami: view": Message(
        "/api/send",
        '{"type":"event","payload":{"website":"w","hostname":"data.example.org","url":"/rivers","screen":"1x1"}}',
        # Otherwise the identifiers of the reply are random.
        {**JSON, "x-umami-cache": ".".join(["0" * 36, "1" * 36])},
    ),
    "goatcounter: view": Message("/count?p=/rivers&t=Rivers&s=1280,720,1&b=0&rnd=1"),
    "goatcounter: hits": Message("/api/v0/count", '{"hits":[{"path":"/rivers"},{"title":"no path"}]}', JSON),
    "otlp: logs": Message(
        "/v1/logs",
        '{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"portal"}}]},'
        '"scopeLogs":[{"logRecords":[{"body":{"stringValue":"started"},"severityNumber":9},{"traceId":5},'
        '{"timeUnixNano":"1769904000000000000","attributes":[{"key":"url.path","value":{"stringValue":"/rivers"}},'
        '{"key":"http.request.method","value":{"stringValue":"GET"}},'
        '{"key":"http.response.status_code","value":{"intValue":"200"}}]}]}]}]}',
        JSON,
    ),
}
ACCESS_LOGS: Final = {
    "combined": [f"192.0.2.7 - ada [31/Jan/2026:HH:00:00 +0000] {LOG_LINE}"],
    "common": ['192.0.2.7 - - [31/Jan/2026:HH:00:00 +0000] "GET /missing HTTP/1.1" 404 9'],
    "vhost-combined": [f"www.example.org:443 192.0.2.7 - - [31/Jan/2026:HH:00:00 +0000] {LOG_LINE}"],
    "nginx-json": [
        json.dumps(
            {
                "time_iso8601": "2026-01-31THH:00:00+00:00",
                "remote_addr": "192.0.2.7",
                "remote_user": "ada",
                "request": "GET /data/rivers.csv?x=1 HTTP/1.1",
                "status": "200",
                "body_bytes_sent": "512",
                "http_referer": "https://news.example/a",
                "http_user_agent": FIREFOX,
                "server_name": "www.example.org",
                "request_time": "0.0125",
                "upstream": "10.0.0.1:80",
            }
        )
    ],
    "caddy-json": [
        json.dumps(
            {
                "level": "info",
                "ts": "2026-01-31THH:00:00Z",
                "logger": "http.log.access.log0",
                "msg": "handled request",
                "request": {
                    "remote_ip": "10.0.0.1",
                    "client_ip": "192.0.2.7",
                    "proto": "HTTP/2.0",
                    "method": "GET",
                    "host": "www.example.org:443",
                    "uri": "/data/rivers.csv?x=1",
                    "headers": {"User-Agent": [FIREFOX], "Referer": ["https://news.example/a"]},
                },
                "duration": 0.0125,
                "size": 512,
                "status": 200,
            }
        )
    ],
    "w3c": [
        "#Software: Microsoft Internet Information Services 10.0",
        "#Version: 1.0",
        "#Date: 2026-01-31 HH:00:00",
        (
            "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) "
            "cs(Referer) sc-status sc-substatus sc-win32-status time-taken"
        ),
        (
            "2026-01-31 HH:00:00 10.0.0.5 GET /data/rivers.csv a=1&b=2 443 AD\\ada 192.0.2.7 "
            f"{FIREFOX.replace(' ', '+')} https://news.example/a 200 0 0 15"
        ),
    ],
    "cloudfront": [
        "#Version: 1.0",
        (
            "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) "
            "cs(User-Agent) cs-uri-query"
        ),
        (
            "2026-01-31\tHH:00:00\tFRA56-P1\t392\t192.0.2.7\tGET\td1.cloudfront.net\t/data/rivers.csv\t200\t"
            f"https://news.example/a\t{FIREFOX.replace(' ', '%20')}\tx=1"
        ),
    ],
    "s3": [
        (
            "79a59d bucket [31/Jan/2026:HH:00:00 +0000] 192.0.2.7 arn:aws:iam::1:user/ada 3E57427F3EXAMPLE "
            f'REST.GET.OBJECT data/rivers.csv "GET /bucket/data/rivers.csv?x=1 HTTP/1.1" 200 - 512 512 41 28 '
            f'"https://news.example/a" "{FIREFOX}" - s9lzHYrFp76ZVx= SigV4 ECDHE-RSA-AES128-GCM-SHA256 AuthHeader '
            "bucket.s3.amazonaws.com TLSv1.2"
        )
    ],
}
JANUARY: Final = "from=2026-01-01&to=2026-01-31"
REPORTS: Final = (
    Message("/tock/rivers.json"),
    Message("/tock/rivers.json?interval=month&limit=1&bots=1&tz=Europe/Zurich"),
    Message("/tock/never.json"),
    Message("/items.json?" + JANUARY),
    Message(f"/items.json?{JANUARY}&order=visitors&limit=2"),
    Message("/items.json?order=rising&from=2026-01-05&to=2026-01-10&limit=2"),
    Message("/flow.json?" + JANUARY),
    Message("/flow/rivers.json?steps=2"),
    Message("/time.json?limit=1"),
    Message("/time/rivers.json"),
    Message("/errors.json"),
    Message("/errors/rivers.json"),
    Message("/recommendations.json"),
    Message("/recommendations/rivers.json"),
    Message("/query?metrics=count,avg:LCP&by=id&order=-count&limit=2&from=2026-01-01&event=timing"),
    Message(f"/query?metrics=count,visitors&by=day&fill=1&compare=previous&{JANUARY}&limit=3"),
    Message("/query?by=browser&metrics=count,sessions,p75:LCP", headers={"Accept": "text/csv"}),
    Message("/query?by=channel", headers={"Accept": "application/x-ndjson"}),
    Message("/query", json.dumps({"by": ["id"], "where": {"event": ["view"]}, "order": ["-count"]}), JSON),
    Message("/badge/rivers.svg?metric=downloads"),
    Message("/counter/rivers.json"),
    Message("/counter/status"),
    Message("/counter/reports"),
    Message("/counter/reports/dsr?begin_date=2026-01-01&end_date=2026-01-31&dataset_id=rivers"),
    Message("/metronome.js"),
    Message("/health/live"),
    Message("/health/ready"),
    Message("/health/ready/store"),
    Message(
        "/documents", _lines({"@timestamp": "2026-01-02T00:00:00.000Z", "event_id": "d1", "event": "view"}), NDJSON
    ),
    Message("/documents", "{}\n", NDJSON),
    Message("/tock/rivers.json?lmit=1"),
    Message("/query?by=browsr"),
    Message("/nothing/here"),
    Message("/health/ready/archive"),
    Message("/tick", method="GET"),
    Message("/tick", method="OPTIONS", headers={"Origin": "https://data.example.org"}),
    Message("/tick", "{", JSON),
    Message("/tick", "x", {**JSON, "Content-Encoding": "br"}),
    Message("/tock/rivers.json", method="HEAD"),
)
PROTOCOL_REPORTS: Final = (
    Message("/api/report?type=sale"),
    Message("/api/report.csv?type=sale"),
    Message("/api/report/count"),
    Message("/api/report/count.csv"),
    Message("/api/report/aggregate?type=sale&startDate=2026-02-01&endDate=2026-02-02"),
    Message("/api/report/aggregate.csv?type=sale&startDate=2026-02-01&endDate=2026-02-02"),
    Message("/api/report/groupby?groupby=currency"),
    Message("/api/report/groupby.csv?groupby=currency"),
    Message("/api/report/unique?unique=tags.currency&last=0"),
    Message("/api/report/unique.csv?unique=tags.currency&last=0"),
    Message("/api/tags"),
    Message("/api/tag-values?tag=currency"),
    Message("/api/types"),
    Message("/api/report/groupby"),
    Message("/sessions"),
    Message("/events"),
    Message("/events", json.dumps({"token": "unknown", "action": "click", "ts": "2026-02-01T00:00:00Z"}), JSON),
    Message("/es"),
    Message("/es/_license"),
    Message("/es/_cluster/health"),
    Message("/es/logs/_search"),
    Message("/index.php?module=API&method=SitesManager.getSiteFromId&idSite=1&format=JSON"),
    Message("/matomo.php?rec=1"),
    Message("/tick.gif?ts=noon"),
    Message("/count?t=a"),
    Message("/api/event", "{}"),
    Message("/v1/logs", "[]", JSON),
    Message("/api/send", "{}", JSON),
    Message("/hit/"),
    Message("/hit/rivers/a?count"),
    Message("/hit/rivers/a?views"),
    Message("/hit/a", "x", method="POST"),
    Message("/health/ready"),
)

# ---------------------------------------------------------------------------------------------------------------------
# A server in this process, with a fixed clock.


class Clock:
    """A clock that only moves when it is set."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> float:
        return self.at.timestamp()


@contextlib.contextmanager
def fixed_surroundings(clock: Clock) -> Iterator[None]:
    """Fix the clock, the host name, the salts and the environment, and silence the log."""
    numbers = itertools.count()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METRONOME_")}
    log_settings = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())

    def token_hex(size: int = 32) -> str:
        # Event IDs have 10 random bytes. Two senders must not have the same.
        return f"{next(numbers):020x}" if size == 10 else "5a" * size

    try:
        with (
            patch.dict(os.environ, environment, clear=True),
            patch("time.time", clock),
            patch("socket.gethostname", lambda: "host"),
            patch("secrets.token_hex", token_hex),
            patch("secrets.token_bytes", lambda size=32: b"\x5a" * size),
        ):
            yield
    finally:
        structlog.configure(**log_settings)


@dataclasses.dataclass
class Client:
    """An HTTP client of a running server."""

    http: aiohttp.ClientSession
    ports: Mapping[str, int]
    application: web.Application

    async def response(self, message: Message) -> dict[str, Any]:
        """Send a request and describe the response."""
        method = message.method or ("GET" if message.body is None else "POST")
        async with self.http.request(method, message.path, data=message.body, headers=message.headers) as response:
            body, headers = await response.read(), response.headers
        return _described(response.status, headers, body)

    async def sample(self, name: str) -> float:
        """Return the value of a metric."""
        metrics = text_string_to_metric_families(await self.metrics())
        return float(next(one.value for family in metrics for one in family.samples if one.name == name))

    async def metrics(self) -> str:
        """Return the text of ``/metrics``."""
        async with self.http.get("/metrics") as response:
            return await response.text()

    async def until(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        async with asyncio.timeout(SECONDS):
            while await self.sample(name) != value:  # noqa: ASYNC110  # the server does not announce it
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(data: Path, **settings: Any) -> AsyncIterator[Client]:
    """Run a server in this process, on free ports."""
    ports = {name: _free_port() for name in ("port", "forward_port", "syslog_port")}
    public = "tick,import,tock,query,admin"
    stop, applications = asyncio.Event(), []
    setup = web.AppRunner.setup

    async def recorded_setup(runner: web.AppRunner) -> None:
        applications.append(runner.app)
        await setup(runner)

    with patch.object(web.AppRunner, "setup", recorded_setup):
        server = asyncio.create_task(service({"data": data, "public": public, **ports, **settings}, stop))
        url = f"http://127.0.0.1:{ports['port']}"
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        try:
            async with aiohttp.ClientSession(url, headers=CLIENT_HEADERS, timeout=timeout) as http:
                await _wait_until_live(http, server)
                yield Client(http, ports, applications[0])
        finally:
            stop.set()
            await server


async def _wait_until_live(http: aiohttp.ClientSession, server: "asyncio.Task[None]") -> None:
    while not server.done():
        with contextlib.suppress(aiohttp.ClientConnectionError):
            async with http.get("/health/live") as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.01)
    await server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------------------------------------------------------------
# Collecting the interface as plain JSON.

_UNSTABLE_HEADERS: Final = frozenset({"connection", "content-length", "date", "keep-alive", "server"})
_GENERATED_ID: Final = re.compile(r"\b[0-9a-f]{20}-[0-9a-f]{8}\b")
_ERROR_MARKS: Final = frozenset({"index", "result", "status", "statusCode", "type"})
_TEXTS: Final = frozenset({"detail", "description", "message", "reason"})


def _described(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    kept = {name.lower(): headers[name] for name in sorted(headers) if name.lower() not in _UNSTABLE_HEADERS}
    for name in ("etag", "x-metronome-error"):
        if name in kept:
            kept[name] = f"<{name}>"
    content_type = kept.get("content-type", "").partition(";")[0]
    described: dict[str, Any] = {"status": status, "headers": kept}
    if content_type in {"text/javascript", "application/javascript", "image/svg+xml"}:
        described["body"] = f"<{content_type}>"
    elif content_type == "image/gif":
        described["body"] = body.hex()
    elif body and content_type.endswith("json") and "ndjson" not in content_type:
        described["body"] = _normalised(json.loads(body), texts=True)
    elif body:
        described["body"] = [_GENERATED_ID.sub("<generated>", line) for line in body.decode().splitlines()]
    return described


def _normalised(value: Any, *, texts: bool = False) -> Any:
    """Replace generated IDs and, if *texts* is set (for responses), sentences for people."""
    if isinstance(value, dict):
        hidden: frozenset[str] = frozenset()
        if texts and not value.keys().isdisjoint(_ERROR_MARKS):
            # Microticks clients know its errors by their sentence; a rejected event of a batch has none that is fixed.
            hidden = _TEXTS | {"error"} if "index" in value else _TEXTS
        if texts and "oldest_seconds" in value and "bytes" in value:
            # The size of the spool depends on that of each document, which is compared elsewhere.
            value = {**value, "bytes": "<number>"}
        return {
            name: "<text>" if name in hidden and isinstance(inner, str) else _normalised(inner, texts=texts)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_normalised(inner, texts=texts) for inner in value]
    return _GENERATED_ID.sub("<generated>", value) if isinstance(value, str) else value


def _routes_of(application: web.Application) -> list[str]:
    return sorted(
        {f"{route.method} {resource.canonical}" for resource in application.router.resources() for route in resource}
    )


def _metrics_of(text: str) -> dict[str, Any]:
    metrics = {}
    for family in sorted(text_string_to_metric_families(text), key=lambda family: family.name):
        labels: dict[str, set[str]] = {}
        for sample in family.samples:
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
        metrics[family.name] = {
            "type": family.type,
            "samples": sorted({sample.name for sample in family.samples}),
            "labels": {name: sorted(labels[name]) for name in sorted(labels)},
        }
    return metrics


def _commands() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(name: str, command: Any) -> None:
        for part, inner in getattr(command, "commands", {}).items():
            walk(f"{name} {part}", inner)
        found[name] = {
            " ".join([*parameter.opts, *parameter.secondary_opts]): {
                "kind": parameter.param_type_name,
                "required": parameter.required,
                "multiple": getattr(parameter, "multiple", False),
                "flag": getattr(parameter, "is_flag", False),
                "default": parameter.default if isinstance(parameter.default, (str, int, float, bool)) else None,
                "environment": parameter.envvar,
            }
            for parameter in sorted(command.params, key=lambda parameter: parameter.opts)
        }

    walk("metronome", root_command())
    return dict(sorted(found.items()))


def _fields() -> dict[str, Any]:
    """Describe each known field by what differs from a field that is not known; labels are sentences for people."""
    found = {}
    for known in sorted(known_fields(), key=lambda field: field.name):
        default = type(known)(known.name, label=known.label)
        found[known.name] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(known).items()
            if value != getattr(default, name)
        }
    return found


def _middleware_settings() -> dict[str, Any]:
    found = {}
    for field in sorted(dataclasses.fields(middleware_settings_class()), key=lambda field: field.name):
        default: Any = "<required>"
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = list(default) if isinstance(default, tuple) else default
    return found


def _problems() -> list[Any]:
    """Describe the response of every error class; the base class, which no request gets, is one of them."""
    import_module("metronome.stores.elasticsearch")  # its errors belong to the interface, too
    found = []
    waiting = [error_base_class()]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if not kind.__module__.startswith("metronome."):
            continue
        error, registry = kind("a message"), CollectorRegistry()
        response = problem_of(error)
        count_refusal(error, registry)
        assert isinstance(response.body, bytes)
        described = _described(response.status, CIMultiDict(response.headers), response.body)
        reasons = {
            sample.labels["reason"]
            for metric in registry.collect()
            for sample in metric.samples
            if "reason" in sample.labels
        }
        found.append({**described, "reason in metrics": sorted(reasons)})
    return sorted(found, key=json.dumps)


async def _collect_protocols(data: Path, clock: Clock) -> dict[str, Any]:
    """Send one message of each protocol in an hour of its own, so that each has its own object in the archive."""
    archive = data.with_name("archive")
    # Only the stop of the server completes an archive object: then the layout does not depend on the machine's speed.
    limits = {"archive": f"file://{archive}", "archive_roll_age": "3000d"}
    responses: dict[str, Any] = {}
    hours: dict[str, str] = {}
    # In a thread: a command runs an event loop of its own.
    created = await asyncio.to_thread(_run_command, "keys", "create", "hall", "--create", "--data", str(data))
    # What the command says about a first key follows.
    key = re.findall(r"^[0-9a-f]{40}$", created, re.MULTILINE)[0]

    def begin(name: str) -> None:
        clock.at = START + timedelta(hours=len(hours))
        hours[clock.at.strftime("%Y/%m/%d/%H")] = name

    async with serving(data, **limits) as client:
        for name, message in HTTP_PROTOCOLS.items():
            begin(name)
            body = message.body and message.body.replace("HH", f"{clock.at:%H}")
            responses[name] = await client.response(dataclasses.replace(message, body=body))
        begin("microticks")
        responses["microticks"] = await _use_touch_table(client, key, clock)
        begin("forward")
        responses["forward"] = await _send_forward(client.ports["forward_port"], clock)
        begin("syslog")
        await _send_syslog(client, clock)
        logs = await asyncio.to_thread(_import_logs, data, client.ports["port"])
        reports = await _responses(client, PROTOCOL_REPORTS)
    hours |= logs
    objects = sorted(str(path.relative_to(archive)) for path in archive.rglob("*") if path.is_file())
    documents: dict[str, list[Any]] = {}
    for path in objects:
        if path.endswith(".ndjson.gz"):
            lines = gzip.decompress((archive / path).read_bytes()).splitlines()
            documents[hours[path.rpartition("/")[0]]] = [_normalised(json.loads(line)) for line in lines]
    manifests = {path: json.loads((archive / path).read_bytes()) for path in objects if path.endswith(".json")}
    for manifest in manifests.values():
        for described in manifest["objects"]:
            # They depend on the version of the compression library.
            described.update(bytes="<number>", sha256="<sha256>")
    protocols = {
        name: {"response": responses.get(name), "documents": documents.get(name, [])} for name in sorted(hours.values())
    }
    return {"protocols": protocols, "reports": reports, "archive": {"objects": objects, "manifests": manifests}}


async def _use_touch_table(client: Client, key: str, clock: Clock) -> list[Any]:
    def at(minutes: int) -> str:
        return (clock.at + timedelta(minutes=minutes)).isoformat()

    started = await client.response(Message("/sessions", json.dumps({"consumer_key": key, "ts": at(0)}), JSON))
    token = started["body"]["token"]
    click = {"token": token, "action": "click", "data": {"id": "moa", "size": 2}, "ts": at(1)}
    clicked = await client.response(Message("/events", json.dumps(click), JSON))
    stopped = await client.response(Message("/sessions/stop", json.dumps({"token": token, "ts": at(5)}), JSON))
    return [started, clicked, stopped]


async def _send_forward(port: int, clock: Clock) -> Any:
    at = int(clock())
    entries = [
        [at, {"id": "rivers", "event": "view"}],
        [at, {"message": "started", "level": "info", "host": {"name": "h1"}}],
        [at, {"remote": "192.0.2.7", "method": "GET", "path": "/data/rivers.csv", "code": "200", "agent": FIREFOX}],
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(msgpack.packb(["web.access", entries, {"chunk": "chunk-1"}]))
    reply = msgpack.unpackb(await asyncio.wait_for(reader.read(1024), SECONDS))
    writer.close()
    await writer.wait_closed()
    return reply


async def _send_syslog(client: Client, clock: Clock) -> None:
    accepted = await client.sample("metronome_events_accepted_total")
    stamp = clock.at.strftime("%Y-%m-%dT%H:%M:%SZ")
    messages = (
        (
            f'<133>1 {stamp} h1 nginx 7 ID47 [origin ip="10.0.0.1"] 192.0.2.7 - - '
            f"[{clock.at:%d/%b/%Y:%H:%M:%S} +0000] {LOG_LINE}\n"
        ),
        f'<14>1 {stamp} h1 app - - - @cee:{{"id":"rivers","event":"view"}}\n',
        f"<11>{clock.at:%b} {clock.at.day:2} {clock.at:%H:%M:%S} h1 cron[12]: job failed\n",
    )
    _, writer = await asyncio.open_connection("127.0.0.1", client.ports["syslog_port"])
    writer.write("".join(messages).encode())
    writer.close()
    await writer.wait_closed()
    await client.until("metronome_events_accepted_total", accepted + len(messages))


def _import_logs(data: Path, port: int) -> dict[str, str]:
    """Import a log in each format; return the format of each hour."""
    hours = {}
    for hour, (log_format, lines) in enumerate(ACCESS_LOGS.items()):
        path = data.with_name(f"{log_format}.log")
        path.write_text("".join(f"{line.replace('HH', f'{hour:02}')}\n" for line in lines))
        _run_command("import", str(path), "--format", log_format, "--url", f"http://127.0.0.1:{port}")
        hours[f"2026/01/31/{hour:02}"] = f"access log: {log_format}"
    return hours


def _run_command(*arguments: str) -> str:
    result = CliRunner().invoke(command_line(), list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


async def _responses(client: Client, messages: tuple[Message, ...]) -> dict[str, Any]:
    # Reports see what is in the store.
    await client.until("metronome_unshipped_events", 0)
    found = {}
    for message in messages:
        method = message.method or ("GET" if message.body is None else "POST")
        name = " ".join([f"{method} {message.path}", *message.headers.values(), message.body or ""]).strip()
        found[name] = await client.response(message)
    return found


async def _collect(folder: Path) -> dict[str, Any]:
    clock = Clock()
    with fixed_surroundings(clock):
        prefix, settings = settings_by_default()
        of_protocols = await _collect_protocols(folder / "protocols", clock)
        clock.at = START
        async with serving(folder / "reports") as client:
            visits = (DATA / "visits.ndjson").read_text()
            await client.response(Message("/tick", visits, NDJSON))
            reports = await _responses(client, REPORTS)
            metrics = _metrics_of(await client.metrics())
            routes = {"single process": _routes_of(client.application)}
        for name, application in (await applications_with_workers(folder / "workers")).items():
            routes[name] = _routes_of(application)
        return {
            "archive": of_protocols["archive"],
            "commands": _commands(),
            "fields": _fields(),
            "metrics": metrics,
            "middleware settings": _middleware_settings(),
            "problems": _problems(),
            "protocols": of_protocols["protocols"],
            "reports": dict(sorted({**reports, **of_protocols["reports"]}.items())),
            "routes": routes,
            "settings": {f"{prefix}{name.upper()}": settings[name] for name in sorted(settings)},
        }


@cache
def interface() -> dict[str, Any]:
    """Collect the interface, once."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_collect(Path(folder)))


def _text(value: Any) -> str:
    """Write a value as JSON, one value a line."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("section", SECTIONS)
def test_interface_is_unchanged(section: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    # Compared as lines: the order of keys is part of the interface, and pytest shows the lines that differ.
    assert _text(interface()[section]).splitlines() == _text(golden[section]).splitlines()


def test_golden_file_has_no_other_sections() -> None:
    assert tuple(json.loads(GOLDEN.read_text())) == SECTIONS == tuple(interface())


if __name__ == "__main__":
    GOLDEN.write_text(_text(interface()))
    sys.stdout.write(f"{GOLDEN} is rewritten: describe the change in an issue and in the CHANGELOG\n")
