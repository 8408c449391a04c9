"""Each framework under its server, as processes that report to a real Metronome."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from aiohttp import ClientSession

from metronome.middleware.matomo import visitor_id
from tests.middleware.processes import AGENT, HOSTS, REFERER, WITH_WEBSOCKETS, Host, hosting, stored_events
from tests.middleware.recorder import recording
from tests.middleware.test_matomo import REQUIRED_PARAMETERS
from tests.servers import Server, run_metronome, running_server

TRUSTING = {"trusted_proxies": ["127.0.0.1"], "skip": ["/health"]}


def visit(host: Host) -> None:
    """Send a request of each kind and check that the host responds as it would without the middleware."""
    assert b"".join(host.request("/datasets/rivers").body.split()) == b'{"name":"rivers"}'
    assert host.request("/datasets/rivers/file.csv?as=file") == (200, b"1,2\n")
    assert host.request("/fails").status == 500
    assert host.request("/nothing/here").status == 404
    assert host.request("/echo", "POST", bytes(range(256)) * 400) == (200, bytes(range(256)) * 400)
    assert host.request("/stream") == (200, b"".join(b"%d\n" % number for number in range(100)))
    assert host.request("/news") == (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
    assert host.request("/orders/7", "POST", b"").status == 200
    assert host.request("/v1/regions/north/lakes/12").status == 200


EXPECTED = {
    ("view", "GET /datasets/:name", 200),
    ("download", "GET /datasets/:name/file.:form", 200),
    ("error", "GET /fails", 500),
    ("error", "GET (unmatched)", 404),
    ("request", "POST /echo", 200),
    ("request", "GET /stream", 200),
    ("request", "GET /news", 200),
    ("order", None, None),
    ("request", "POST /orders/:number", 200),
    ("request", "GET /v1/regions/:region/lakes/:lake", 200),
}


def count_events(events: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((event["event"], event.get("action"), event.get("status")) for event in events)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[dict[str, Any]]]:
    """Visit each host, stop it at once, and return what one Metronome has stored from each."""
    ports: dict[int, str] = {}
    with running_server(tmp_path_factory.mktemp("metronome") / "data") as server:
        for name in HOSTS:
            folder = tmp_path_factory.mktemp("host")
            # Nothing is sent before the host stops: the test is that it is sent then.
            with hosting(name, folder, url=server.url, flush_interval_seconds=60, **TRUSTING) as host:
                visit(host)
                assert host.stop() in (0, -15), host.log
            ports[host.port] = name
        events = stored_events(server)
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in HOSTS}
    for event in events:
        reports[ports[urlsplit(event["url"]).port or 0]].append(event)
    return reports


@pytest.mark.slow  # starts eight services
@pytest.mark.parametrize("name", HOSTS)
def test_each_request_is_reported_once_although_the_host_is_stopped_at_once(
    name: str, reports: Mapping[str, list[dict[str, Any]]]
) -> None:
    assert count_events(reports[name]) == Counter(EXPECTED)
    by_action = {event.get("action"): event for event in reports[name]}
    view = by_action["GET /datasets/:name"]
    assert (view["id"], view["method"], urlsplit(view["url"]).path) == ("rivers", "GET", "/datasets/rivers")
    assert (view["agent"], view["lang"], view["clientip"]) == (AGENT, "de, en;q=0.5", "203.0.113.0")
    assert (view["referer"], view["referer_url"]) == ("example.org/links", REFERER)
    assert 0 < view["duration"] < 30_000
    download = by_action["GET /datasets/:name/file.:form"]
    assert (download["id"], download["format"]) == ("rivers", "csv")
    assert download["url"].endswith("/datasets/rivers/file.csv?as=file")
    assert "duration" not in by_action["GET /news"]
    order = by_action[None]
    assert (order["order"], order["revenue"], order["id"], order["agent"]) == ("7", 12.5, "rivers", AGENT)
    assert order["url"].endswith("/orders/7")


@pytest.mark.slow  # starts a service
@pytest.mark.parametrize("name", WITH_WEBSOCKETS)
async def test_a_websocket_is_reported_when_it_opens_and_passes_unchanged(name: str, tmp_path: Path) -> None:
    with recording() as recorder:
        with hosting(name, tmp_path, url=recorder.url, flush_interval_seconds=0.05, **TRUSTING) as host:
            async with (
                ClientSession() as session,
                session.ws_connect(f"http://127.0.0.1:{host.port}/ws/hall") as websocket,
            ):
                await websocket.send_str("hello ☀")
                assert await websocket.receive_str() == "hall: hello ☀"
                await asyncio.to_thread(recorder.wait_for_requests, 1)
                await websocket.send_str("bye")
                await websocket.receive()
            host.stop()
        (event,) = recorder.events()
    assert (event["event"], event["action"], event["status"]) == ("request", "GET /ws/:room", 101)
    assert event["url"] == f"http://127.0.0.1:{host.port}/ws/hall"
    assert "duration" not in event


@pytest.mark.slow  # starts a service
def test_the_route_of_a_mounted_application_is_reported_in_full(tmp_path: Path) -> None:
    with recording() as recorder:
        with hosting("uvicorn, FastAPI", tmp_path, url=recorder.url, **TRUSTING) as host:
            assert host.request("/docs-of/metronome/pages/a/b") == (200, b"a/b")
            assert host.request("/docs-of/metronome/none").status == 404
            host.stop()
        actions = [event["action"] for event in recorder.events()]
    assert actions == ["GET /docs-of/:project/pages/:page", "GET /docs-of/:project/*"]


@pytest.mark.slow  # starts a service
@pytest.mark.parametrize("name", ["uvicorn, FastAPI", "gunicorn threads, Flask", "aiohttp"])
def test_in_request_mode_no_event_has_a_duration(name: str, tmp_path: Path) -> None:
    with recording() as recorder:
        with hosting(name, tmp_path, url=recorder.url, mode="request", **TRUSTING) as host:
            visit(host)
            host.stop()
        events = recorder.events()
    assert count_events(events) == Counter(EXPECTED)
    assert [event for event in events if "duration" in event] == []


@pytest.mark.slow  # starts a service
@pytest.mark.parametrize(
    ("name", "signal"), [("uvicorn, FastAPI", "Sec-GPC"), ("gunicorn, Django", "DNT"), ("aiohttp", "Sec-GPC")]
)
def test_a_request_with_a_privacy_signal_is_counted_without_a_visitor(name: str, signal: str, tmp_path: Path) -> None:
    with recording() as recorder:
        with hosting(name, tmp_path, url=recorder.url, **TRUSTING) as host:
            host.request("/datasets/rivers", headers={signal: "1"})
            host.request("/datasets/rivers")
            host.stop()
        with_signal, without_signal = recorder.events()
    assert "clientip" in without_signal
    assert "clientip" not in with_signal
    assert with_signal["action"] == "GET /datasets/:name"


@pytest.mark.slow  # starts a service
def test_headers_of_an_untrusted_proxy_are_ignored(tmp_path: Path) -> None:
    with recording() as recorder:
        with hosting("uvicorn, FastAPI", tmp_path, url=recorder.url, skip=["/health"]) as host:
            host.request("/datasets/rivers", headers={"X-Forwarded-Proto": "https"})
            host.stop()
        (event,) = recorder.events()
    assert event["clientip"] == "127.0.0.1"
    assert event["url"].startswith("http://")


@pytest.mark.slow  # kills and restarts a server
@pytest.mark.parametrize("protocol", ["metronome", "matomo"])
def test_events_are_neither_lost_nor_duplicated_when_metronome_is_killed_and_restarted(
    protocol: str, tmp_path: Path
) -> None:
    with Server(tmp_path / "data") as server:
        server.start()
        config = {
            "url": server.url,
            "protocol": protocol,
            "flush_interval_seconds": 0.02,
            "shutdown_timeout_seconds": 30,
            **TRUSTING,
        }
        with hosting("gunicorn threads, Flask", tmp_path, **config) as host:
            for number in range(200):
                assert host.request(f"/datasets/d{number}").status == 200
                if number % 100 == 50:
                    server.kill()
                if number % 100 == 90:
                    server.start()
            host.stop()
        events = stored_events(server)
    names = Counter(event["url"].rpartition("/")[2] for event in events)
    assert names == Counter(f"d{number}" for number in range(200)), host.log


@pytest.mark.slow  # starts a service
@pytest.mark.parametrize("name", ["uvicorn, FastAPI", "gunicorn threads, Flask", "gunicorn, Django", "aiohttp"])
def test_each_parameter_sent_to_matomo_has_the_value_that_the_protocol_specifies(name: str, tmp_path: Path) -> None:
    before = int(time.time())
    path, route = "/v1/regions/north/lakes/12", "/v1/regions/:region/lakes/:lake"
    with recording() as matomo:
        config = {"url": matomo.url, "protocol": "matomo", "key": "t0ken", "site": 7, **TRUSTING}
        with hosting(name, tmp_path, **config) as host:
            host.request(f"{path}?depth=3")
            host.stop()
        (request,) = matomo.requests
    bulk = orjson.loads(request.body)
    assert (request.path, bulk["token_auth"], bulk.keys()) == ("/matomo.php", "t0ken", {"requests", "token_auth"})
    (query,) = bulk["requests"]
    parameters = dict(parse_qsl(query.removeprefix("?"), strict_parsing=True))
    assert parameters.keys() == {*REQUIRED_PARAMETERS, "http_status"}
    assert before <= int(parameters.pop("cdt")) <= time.time()
    assert 0 <= int(parameters.pop("pf_srv")) < 30_000
    assert len(parameters.pop("rand")) > 8
    assert parameters == {
        "idsite": "7",
        "rec": "1",
        "apiv": "1",
        "send_image": "0",
        "action_name": f"GET {route}",
        "url": f"http://127.0.0.1:{host.port}{path}?depth=3",
        "_id": visitor_id("203.0.113.77", AGENT),
        "urlref": REFERER,
        "ua": AGENT,
        "lang": "de, en;q=0.5",
        "cip": "203.0.113.77",
        "http_status": "200",
    }


@pytest.mark.slow  # starts a service and a server
def test_metronome_in_matomo_s_place_stores_every_event(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        key = run_metronome("keys", "create", "host", "--scope", "import", data=server.data).stdout.split()[-1]
        config = {"url": server.url, "protocol": "matomo", "key": key, "flush_interval_seconds": 60, **TRUSTING}
        with hosting("uvicorn, FastAPI", tmp_path, **config) as host:
            visit(host)
            host.stop()
        events = stored_events(server)
    # What Metronome calls a request is a page view for Matomo.
    expected = Counter(("view" if event == "request" else event, action, status) for event, action, status in EXPECTED)
    assert Counter((event["event"], event.get("title"), event.get("status")) for event in events) == expected
    assert {event["visitor"] for event in events} == {visitor_id("203.0.113.77", AGENT)}
    assert {(event["clientip"], event["agent"], event["lang"]) for event in events} == {
        ("203.0.113.0", AGENT, "de, en;q=0.5")
    }


@pytest.mark.slow  # starts a service
@pytest.mark.parametrize("name", ["uvicorn, FastAPI", "gunicorn threads, Flask", "aiohttp"])
@pytest.mark.parametrize("target", ["closed", "silent"])
def test_a_host_responds_and_stops_although_the_target_is_unavailable(name: str, target: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if target == "closed":
            silent.close()
        with hosting(
            name,
            tmp_path,
            url=f"http://127.0.0.1:{port}",
            flush_interval_seconds=0,
            shutdown_timeout_seconds=0.2,
            **TRUSTING,
        ) as host:
            for _ in range(3):
                visit(host)
            assert host.stop() in (0, -15)
