"""Enrichment at the door of a real server: who speaks for themselves, who is a visitor, and what settings change."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import orjson
import pytest

from metronome.auth.salts import SALT_KIND
from metronome.state.sqlite import STATE_FILE_NAME
from tests.installations import read_stored_documents
from tests.servers import Server, run_metronome, running_server

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
ORIGIN = {"Origin": "https://data.example.org"}
HOME, WORK = "203.0.113.77", "198.51.100.77"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat()

Documents = Mapping[str, dict[str, Any]]


def browser(address: str = HOME, **headers: str) -> dict[str, str]:
    """Return the headers of a browser that a proxy on this machine passes on."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"User-Agent": FIREFOX, "X-Forwarded-For": address, **more}


def get(server: Server, path: str, **headers: str) -> None:
    request = Request(server.url + path, headers=browser(**headers))  # noqa: S310  # our own server
    with urlopen(request) as answer:  # noqa: S310  # our own server
        assert answer.status in {200, 204}


def tick(server: Server, item: str, headers: dict[str, str] | None = None, **fields: Any) -> None:
    server.post_events(orjson.dumps({"id": item, **fields}), **(headers or {}))


def send_everything(server: Server) -> None:
    """Send one event of each kind, each of an item of its own."""
    page = {**browser(), **ORIGIN}
    tick(server, "page", page)
    tick(server, "page again", page, event="download")
    tick(server, "elsewhere", {**browser(WORK), **ORIGIN})
    tick(server, "yesterday", page, ts=YESTERDAY)
    tick(server, "back end", browser())
    tick(server, "forwarded", ORIGIN | browser(WORK), agent=FIREFOX, clientip=HOME)
    tick(server, "followed not", {**page, "Sec-GPC": "1"}, visitor="me")
    tick(server, "tracked not", {**page, "DNT": "1"})
    tick(server, "spam", page, referer="https://www.spam.example/buy")
    tick(server, "bot", {**page, "User-Agent": GOOGLEBOT})
    server.post_events(b'{"id":"lines 1"}\n{"id":"lines 2","agent":"mine"}\n', **page)
    get(server, "/tick.gif?id=pixel")
    get(server, "/hit/hit")
    get(server, "/t.gif?type=view&tags=id:micrometrics")
    matomo = {"idsite": 1, "rec": 1}
    get(server, "/matomo.php?" + urlencode({**matomo, "url": "https://data.example.org/matomo"}))
    get(server, "/matomo.php?" + urlencode({**matomo, "url": "https://data.example.org/ping", "ping": 1}))
    for bots in (0, 1):
        asked = {**matomo, "url": f"https://data.example.org/bots{bots}", "bots": bots}
        get(server, "/matomo.php?" + urlencode(asked), User_Agent=GOOGLEBOT)


def by_item(data: Path) -> Documents:
    return {doc["id"]: doc for doc in read_stored_documents(data)}


@pytest.fixture(scope="module")
def spam_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spam") / "spammers.txt"
    path.write_text("# a comment\nother.example\nspam.example\n")
    return path


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "crew"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, spam_file: Path) -> Documents:
    """Return the documents of everything, from a server that was started twice."""
    data = tmp_path_factory.mktemp("enrichment") / "data"
    settings = {"workers": request.param, "referer_spam": spam_file}
    with running_server(data, **settings) as server:
        send_everything(server)
    with running_server(data, **settings) as server:
        tick(server, "after a restart", {**browser(), **ORIGIN})
    return by_item(data)


@pytest.mark.parametrize(
    "item", ["page", "page again", "lines 1", "pixel", "/hit", "micrometrics", "/matomo", "spam", "forwarded"]
)
def test_browsers_speak_for_themselves(found: Documents, item: str) -> None:
    doc = found[item]
    assert (doc["browser"], doc["os"], doc["device"], doc["agent"]) == ("Firefox", "Linux", "desktop", FIREFOX)
    assert (doc["clientip"], doc["enrich_version"]) == ("203.0.113.0", 2)
    assert doc["visitor"] == doc["session"] != ""


def test_a_visitor_is_one_address_with_one_agent_for_one_day(found: Documents) -> None:
    visitors = {item: found[item]["visitor"] for item in ("page", "elsewhere", "yesterday", "bot")}
    assert len(set(visitors.values())) == len(visitors)
    assert {found[item]["visitor"] for item in ("page", "page again", "forwarded", "after a restart")} == {
        visitors["page"]
    }


@pytest.mark.parametrize("item", ["back end", "lines 2"])
def test_what_speaks_for_others_is_no_visitor(found: Documents, item: str) -> None:
    doc = found[item]
    assert doc.keys().isdisjoint({"visitor", "session", "browser", "clientip"})
    assert doc.get("agent") in {None, "mine"}


@pytest.mark.parametrize("item", ["followed not", "tracked not"])
def test_who_asks_for_it_is_counted_without_a_visitor(found: Documents, item: str) -> None:
    doc = found[item]
    assert doc["browser"] == "Firefox"
    assert doc.keys().isdisjoint({"visitor", "session"})


def test_bots_are_marked_unless_the_sender_vouches_for_them(found: Documents) -> None:
    assert "google" in found["bot"]["bot"].lower()
    assert found["/bots0"]["bot"] == found["bot"]["bot"]
    assert found["/bots1"].keys().isdisjoint({"bot", "bot_kind"})
    assert (found["spam"]["bot"], found["spam"]["bot_kind"]) == ("referer spam", "spam")


def test_a_ping_is_a_heartbeat(found: Documents) -> None:
    assert (found["/ping"]["event"], found["/matomo"]["event"]) == ("heartbeat", "view")


def test_no_address_is_stored_whole(found: Documents) -> None:
    stored = orjson.dumps(list(found.values()))
    assert HOME.encode() not in stored
    assert WORK.encode() not in stored


@pytest.fixture
def sent(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Give a function that has a page in a browser send an event to a server with settings."""

    def send(**settings: object) -> dict[str, Any]:
        with running_server(tmp_path / "data", **settings) as server:
            tick(
                server, "page", {**browser(), **ORIGIN, "Sec-GPC": "1"}, ts=YESTERDAY, clientip="8.8.8.8", agent=FIREFOX
            )
        return by_item(tmp_path / "data")["page"]

    return send


def test_signals_are_ignored_where_the_setting_says_so(sent: Callable[..., dict[str, Any]]) -> None:
    doc = sent(privacy_signals="ignore")
    assert doc["visitor"]
    assert doc["country"] == "US"


@pytest.mark.slow
def test_enrichment_can_be_switched_off_in_parts(sent: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    doc = sent(privacy_signals="ignore", visitors="off", countries="off")
    assert doc["browser"] == "Firefox"
    assert doc.keys().isdisjoint({"visitor", "country"})
    assert SALT_KIND.encode() not in (tmp_path / "data" / STATE_FILE_NAME).read_bytes()


def test_enrichment_can_be_switched_off(sent: Callable[..., dict[str, Any]]) -> None:
    assert sent(privacy_signals="ignore", enrich="off").keys() == {
        *("@timestamp", "event_id", "@version", "id", "clientip", "agent", "event")
    }


@pytest.mark.parametrize("name", ["referer_spam", "countries"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_is_missing_stops_the_start(tmp_path: Path, name: str, workers: int) -> None:
    missing = tmp_path / "missing.mmdb"
    option = f"--{name.replace('_', '-')}"
    ended = run_metronome("serve", option, missing, data=tmp_path / "data", port=0, workers=workers)
    assert ended.exit_code == 2
    assert name in ended.stderr.lower()
    assert "missing.mmdb" in ended.stderr


def test_without_the_state_events_are_taken_and_nobody_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / STATE_FILE_NAME).mkdir(parents=True)
    with running_server(data) as running:
        tick(running, "page", {**browser(), **ORIGIN})
    assert running.log.count("salts_not_read") == 1
    (doc,) = read_stored_documents(data)
    assert doc["browser"] == "Firefox"
    assert "visitor" not in doc
