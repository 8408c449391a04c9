"""Each framework under the server that runs it, as processes, reporting to a real Metronome."""

import asyncio
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest
from aiohttp import ClientSession

from metronome.middleware.matomo import visitor_id
from tests.middleware.processes import AGENT, KINDS, REFERER, WITH_WEBSOCKETS, Host, documents, hosting
from tests.middleware.recorder import accepting, recording
from tests.middleware.test_matomo import LISTED
from tests.servers import Server, run_metronome, running_server

TRUSTING = {"trusted_proxies": ["127.0.0.1"], "skip": ["/health"]}


def visit(host: Host) -> None:
    """Ask for something of each kind, and look that the host answers as it would without middleware."""
    assert b"".join(host.ask("/datasets/rivers").body.split()) == b'{"name":"rivers"}'
    assert host.ask("/datasets/rivers/file.csv?as=file") == (200, b"1,2\n")
    assert host.ask("/fails").status == 500
    assert host.ask("/nothing/here").status == 404
    assert host.ask("/echo", "POST", bytes(range(256)) * 400) == (200, bytes(range(256)) * 400)
    assert host.ask("/stream") == (200, b"".join(b"%d\n" % number for number in range(100)))
    assert host.ask("/news") == (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
    assert host.ask("/orders/7", "POST", b"").status == 200
    assert host.ask("/v1/regions/north/lakes/12").status == 200


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


def wait_for_one(server: Server) -> None:
    while server.accepted_events() == 0:
        time.sleep(0.02)


def told(docs: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    return Counter((doc["event"], doc.get("action"), doc.get("status")) for doc in docs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_request_is_reported_once_when_the_host_is_stopped_at_once(kind: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        # Nothing goes out until the host ends: what is tested is that it does then.
        with hosting(kind, tmp_path, url=server.url, flush_interval_seconds=60, **TRUSTING) as host:
            visit(host)
            assert host.stop() in (0, -15)
        server.wait_until_shipped()
        tock = server.get("/tock/rivers.json")
        docs = documents(server)
    assert told(docs) == Counter(EXPECTED), host.log
    assert (list(tock["views"].values()), tock["downloads"]) == ([1], {"csv": 1})
    assert tock["referers"] == {"example.org/links": 2}
    by_action = {doc.get("action"): doc for doc in docs}
    view = by_action["GET /datasets/:name"]
    assert (view["id"], view["method"], view["url"]) == (
        "rivers",
        "GET",
        f"http://127.0.0.1:{host.port}/datasets/rivers",
    )
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITH_WEBSOCKETS)
async def test_a_websocket_is_reported_as_it_opens_and_passes_as_it_is(kind: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with hosting(kind, tmp_path, url=server.url, flush_interval_seconds=0.05, **TRUSTING) as host:
            async with (
                ClientSession() as session,
                session.ws_connect(f"http://127.0.0.1:{host.port}/ws/hall") as socket,
            ):
                await socket.send_str("hello ☀")
                assert await socket.receive_str() == "hall: hello ☀"
                await asyncio.to_thread(wait_for_one, server)
                await socket.send_str("bye")
                await socket.receive()
            host.stop()
        (doc,) = documents(server)
    assert (doc["event"], doc["action"], doc["status"]) == ("request", "GET /ws/:room", 101)
    assert doc["url"] == f"http://127.0.0.1:{host.port}/ws/hall"
    assert "duration" not in doc


async def test_a_route_in_a_mounted_application_is_named_whole(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with hosting("uvicorn, FastAPI", tmp_path, url=server.url, **TRUSTING) as host:
            assert host.ask("/docs-of/metronome/pages/a/b") == (200, b"a/b")
            assert host.ask("/docs-of/metronome/none").status == 404
            host.stop()
        docs = documents(server)
    assert [doc["action"] for doc in docs] == ["GET /docs-of/:project/pages/:page", "GET /docs-of/:project/*"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uvicorn, FastAPI", "gunicorn threads, Flask", "aiohttp"])
def test_in_request_mode_no_request_has_a_duration(kind: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with hosting(kind, tmp_path, url=server.url, mode="request", **TRUSTING) as host:
            visit(host)
            host.stop()
        docs = documents(server)
    assert told(docs) == Counter(EXPECTED)
    assert [doc for doc in docs if "duration" in doc] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "signal"), [("uvicorn, FastAPI", "Sec-GPC"), ("gunicorn, Django", "DNT"), ("aiohttp", "Sec-GPC")]
)
def test_who_asks_not_to_be_followed_counts_and_is_nobody(kind: str, signal: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with hosting(kind, tmp_path, url=server.url, **TRUSTING) as host:
            host.ask("/datasets/rivers", headers={signal: "1"})
            host.ask("/datasets/rivers")
            host.stop()
        signalled, other = documents(server)
    assert "visitor" in other
    assert not {"visitor", "session", "clientip"} & signalled.keys()
    assert (signalled["id"], signalled["event"]) == ("rivers", "view")


def test_a_stranger_is_not_believed_to_be_a_proxy(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        with hosting("uvicorn, FastAPI", tmp_path, url=server.url, skip=["/health"]) as host:
            host.ask("/datasets/rivers", headers={"X-Forwarded-Proto": "https"})
            host.stop()
        (doc,) = documents(server)
    assert doc["clientip"] == "127.0.0.0"
    assert doc["url"].startswith("http://")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["metronome", "matomo"])
def test_nothing_is_lost_nor_counted_twice_when_metronome_is_killed_and_comes_back(
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
                assert host.ask(f"/datasets/d{number}").status == 200
                if number % 100 == 50:
                    server.kill()
                if number % 100 == 90:
                    server.start()
            host.stop()
        docs = documents(server)
    urls = Counter(doc["url"].rpartition("/")[2] for doc in docs)
    assert urls == Counter(f"d{number}" for number in range(200)), host.log


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uvicorn, FastAPI", "gunicorn sync, Flask", "gunicorn, Django", "aiohttp"])
def test_each_parameter_that_goes_to_a_matomo_is_that_of_the_protocol(kind: str, tmp_path: Path) -> None:
    before = int(time.time())
    with recording(accepting) as matomo:
        config = {"url": matomo.url, "protocol": "matomo", "key": "t0ken", "site": 7, **TRUSTING}
        with hosting(kind, tmp_path, **config) as host:
            host.ask("/v1/regions/north/lakes/12?depth=3" if "FastAPI" not in kind else "/datasets/12?depth=3")
            host.stop()
        (received,) = matomo.received
    bulk = orjson.loads(received.body)
    assert (received.path, bulk["token_auth"], bulk.keys()) == ("/matomo.php", "t0ken", {"requests", "token_auth"})
    (query,) = bulk["requests"]
    found = dict(parse_qsl(query.removeprefix("?"), strict_parsing=True))
    assert found.keys() == {*LISTED, "http_status"}
    route, path = ("/v1/regions/:region/lakes/:lake", "/v1/regions/north/lakes/12")
    route, path = ("/datasets/:name", "/datasets/12") if "FastAPI" in kind else (route, path)
    assert before <= int(found.pop("cdt")) <= time.time()
    assert 0 <= int(found.pop("pf_srv")) < 30_000
    assert len(found.pop("rand")) > 8
    assert found == {
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uvicorn, FastAPI", "gunicorn threads, Flask", "aiohttp"])
def test_what_goes_to_metronome_in_matomo_s_place_is_all_there(kind: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        key = run_metronome("keys", "create", "host", "--scope", "import", data=server.data).stdout.split()[-1]
        config = {"url": server.url, "protocol": "matomo", "key": key, "flush_interval_seconds": 60, **TRUSTING}
        with hosting(kind, tmp_path, **config) as host:
            visit(host)
            host.stop()
        docs = documents(server)
    # Matomo calls views of pages what Metronome calls requests.
    in_matomo_s_words = [
        ("view" if event == "request" else event, action, status) for event, action, status in EXPECTED
    ]
    assert Counter((doc["event"], doc.get("title"), doc.get("status")) for doc in docs) == Counter(in_matomo_s_words)
    assert {doc["visitor"] for doc in docs} == {visitor_id("203.0.113.77", AGENT)}
    assert {(doc["clientip"], doc["agent"], doc["lang"]) for doc in docs} == {("203.0.113.0", AGENT, "de, en;q=0.5")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uvicorn, FastAPI", "gunicorn sync, Flask", "gunicorn, Django", "aiohttp"])
@pytest.mark.parametrize("target", ["away", "silent"])
def test_while_the_target_is_away_or_silent_the_host_answers_as_ever_and_ends(
    kind: str, target: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if target == "away":
            silent.close()
        with hosting(
            kind,
            tmp_path,
            url=f"http://127.0.0.1:{port}",
            flush_interval_seconds=0,
            shutdown_timeout_seconds=0.2,
            **TRUSTING,
        ) as host:
            for _ in range(3):
                visit(host)
            assert host.stop() in (0, -15)
