"""A server below a path of a proxy, such as ``https://example.org/web/stats/``: every protocol, and all reports."""

import gzip
import json
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError

import pytest

from metronome.config import read_settings
from metronome.errors import ConfigurationError
from metronome.server.app import check_base_path
from tests.servers import REQUEST_TIMEOUT_SECONDS, Server, free_port, running_server, unique_name

BASE: Final = "/web/stats"
NDJSON: Final = {"Content-Type": "application/x-ndjson"}
JSON: Final = {"Content-Type": "application/json"}


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Return redirects as they are."""


def send(
    server: Server, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = ""
) -> Response:
    request = urllib.request.Request(server.url + path, body, dict(headers or {}), method=method or None)  # noqa: S310  # our own server
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        reply: HTTPResponse = opener.open(request, timeout=REQUEST_TIMEOUT_SECONDS)
    except HTTPError as error:
        with error:
            return Response(error.code, dict(error.headers), error.read())
    with reply:
        return Response(reply.status, dict(reply.headers), reply.read())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Provide a server of two workers, which relay reports to a third process."""
    data = tmp_path_factory.mktemp("base") / "data"
    with running_server(data, workers=2, base_path=BASE, hit_port=free_port()) as running:
        yield running


@pytest.fixture(params=[BASE, ""], ids=["whole path", "stripped by the proxy"])
def base(request: pytest.FixtureRequest) -> str:
    """Provide what a forwarded path begins with."""
    return str(request.param)


def test_every_http_protocol_is_served_below_the_base_path(server: Server, base: str) -> None:
    item = unique_name("item-")
    event = json.dumps({"id": item}).encode()
    page = f"https%3A%2F%2Fdata.example.org%2F{item}"
    sent = {
        "tick": send(server, f"{base}/tick", event, JSON).status,
        "pixel": send(server, f"{base}/tick.gif?id={item}").status,
        "hit": send(server, f"{base}/hit/{item}/a").status,
        "matomo": send(server, f"{base}/matomo.php?idsite=1&rec=1&send_image=0&url={page}").status,
        "matomo, two slashes": send(server, f"{base}//piwik.php?idsite=1&rec=1&send_image=0&url={page}").status,
        "elasticsearch": send(server, f"{base}/es/logs/_doc", event, JSON).status,
        "elasticsearch: bulk": send(
            server, f"{base}/es/_bulk", b'{"create":{"_index":"logs"}}\n' + event + b"\n", NDJSON
        ).status,
        "micro-metrics": send(server, f"{base}/api/track", json.dumps({"type": "sale"}).encode(), JSON).status,
        "microticks": send(server, f"{base}/events", b"{}", JSON).json()["error"],
    }
    assert sent == {
        "tick": 204,
        "pixel": 200,
        "hit": 204,
        "matomo": 204,
        "matomo, two slashes": 204,
        "elasticsearch": 201,
        "elasticsearch: bulk": 200,
        "micro-metrics": 200,
        "microticks": 'No "token" parameter provided',
    }
    server.wait_until_shipped()
    today = send(server, f"{base}/tock/{item}.json").json()["views"]
    assert list(today.values()) == [4]
    assert send(server, f"{base}/hit/{item}/a?count").json() == {"views": 1}
    assert send(server, f"{base}/query?id={item}&metrics=count").json()["rows"] == [[4]]


@pytest.mark.parametrize(
    "path",
    [
        "/health/live",
        "/health/ready/spool",
        "/metrics",
        "/items.json",
        "/badge/a%2Fb.svg",
        "/counter/a.json",
        "/api/types",
        "/sessions",
        "/metronome.js",
        "/index.php?module=API&method=SitesManager.getAllSites&token_auth=x",
        "/?module=API&method=SitesManager.getAllSites&token_auth=x",
    ],
)
def test_reports_health_and_metrics_are_served_below_the_base_path(server: Server, base: str, path: str) -> None:
    assert send(server, base + path).status == 200


def test_errors_and_preflights_below_the_base_path_are_those_of_the_path(server: Server, base: str) -> None:
    assert send(server, f"{base}/nothing/here").status == 404
    wrong_method = send(server, f"{base}/tick")
    assert (wrong_method.status, wrong_method.headers["Allow"]) == (405, "OPTIONS, POST")
    preflight = send(server, f"{base}/matomo.php", headers={"Origin": "https://data.example.org"}, method="OPTIONS")
    assert (preflight.status, preflight.headers["Access-Control-Allow-Credentials"]) == (204, "true")
    wrong_unit = send(server, f"{base}/tock/a.json?interval=x")
    assert wrong_unit.status == 400


def test_a_path_that_only_begins_like_the_base_path_is_not_below_it(server: Server) -> None:
    assert send(server, f"{BASE}tistics/tick", b"{}").status == 404
    assert send(server, f"{BASE}{BASE}/tick", b"{}").status == 404


def test_the_base_path_without_a_slash_leads_to_the_page(server: Server) -> None:
    moved = send(server, f"{BASE}?range=7d")
    assert (moved.status, moved.headers["Location"]) == (308, f"{BASE}/?range=7d")


def test_compressed_bodies_and_expectations_below_the_base_path_work(server: Server) -> None:
    headers = {**JSON, "Content-Encoding": "gzip", "Expect": "100-continue"}
    assert send(server, f"{BASE}/tick", gzip.compress(b'{"id":"x"}'), headers).status == 204


def test_the_port_of_hits_has_no_base_path(server: Server) -> None:
    item = unique_name()
    url = f"http://127.0.0.1:{server.settings['hit_port']}"
    with urllib.request.urlopen(f"{url}{BASE}/{item}", timeout=REQUEST_TIMEOUT_SECONDS):  # noqa: S310  # our own server
        pass
    server.wait_until_shipped()
    with urllib.request.urlopen(f"{url}{BASE}/{item}?count", timeout=REQUEST_TIMEOUT_SECONDS) as reply:  # noqa: S310  # our own server
        assert json.loads(reply.read()) == {"views": 1}


@pytest.mark.parametrize("base_path", ["/tick", "/es/stats", "/metronome.js", "/hit", "/items"])
def test_a_base_path_that_is_one_of_the_servers_own_paths_stops_the_start(base_path: str) -> None:
    settings = read_settings({"base_path": base_path})
    routes = _routes("/hit", "/items/{id}")
    with pytest.raises(ConfigurationError, match=f"invalid METRONOME_BASE_PATH '{base_path}': Metronome itself serves"):
        check_base_path(settings.base_path, routes)
    check_base_path("", routes)
    check_base_path("/metronome", routes)


def _routes(*paths: str) -> list[Any]:
    return [type("Route", (), {"path": path})() for path in paths]
