"""The page's routes: who may see what, headers, errors, and pages while the store is unavailable."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from metronome.errors import StoreAccessDenied, StoreUnavailable
from metronome.page.model import Table
from metronome.page.tables import measured_table
from metronome.scopes import Scope
from tests.page.running_page import NOW, RunningPage

EVENTS: Final = (
    {"id": "rivers", "event": "view", "country": "CH"},
    {"id": "rivers", "event": "view", "country": "BE"},
    {"id": "a/b é?", "event": "download", "format": "csv"},
    {"id": "rivers", "event": "error", "message": "no tile 12", "error_group": "no tile 12"},
)
QUERY_VIEWS: Final = ("/?metric=errors", "/?country=CH", "/items/rivers?status>=400", "/tables/errors", "/live?os=x")
TOCK_VIEWS: Final = ("/", "/items/rivers", "/tables/countries", "/tables/items?id=rivers", "/tables/countries.csv")


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[RunningPage]:
    async with RunningPage(tmp_path) as running:
        await running.add_events(*EVENTS)
        yield running


@pytest.fixture
async def closed(tmp_path: Path) -> AsyncIterator[RunningPage]:
    """Provide a page with keys where nothing but sending events is public."""
    async with RunningPage(tmp_path, frozenset({Scope.TICK})) as running:
        await running.add_events(*EVENTS)
        yield running


async def test_before_the_first_key_everything_is_open_to_this_machine_only(page: RunningPage) -> None:
    for path in (*TOCK_VIEWS, *QUERY_VIEWS):
        # A filter by a field that no event has is an error, but one of the request's own.
        assert (await page.request(path)).status in {200, 400}, path
    assert (await page.request("/sign-in?next=/items/rivers")).headers["Location"] == "/items/rivers"
    # Through a proxy, only what is public is open.
    elsewhere = {"X_Forwarded_For": "203.0.113.7"}
    assert (await page.request("/", **elsewhere)).status == 200
    assert (await page.request("/?metric=errors", **elsewhere)).status == 303
    assert (await page.request("/sign-in", **elsewhere)).status == 200


async def test_without_signing_in_the_page_shows_what_is_public(page: RunningPage) -> None:
    await page.add_key("reader", Scope.QUERY)
    for path in TOCK_VIEWS:
        assert (await page.request(path)).status == 200, path
    overview = (await page.request("/")).text
    assert "no tile 12" not in overview
    assert "/sign-in?next=/" in overview
    for path in QUERY_VIEWS:
        response = await page.request(path)
        assert response.status == (401 if path.startswith("/live") else 303), path
    response = await page.request("/?country=CH&range=7d")
    assert response.headers["Location"] == "/sign-in?next=/%3Fcountry%3DCH%26range%3D7d"
    assert response.headers["Cache-Control"] == "no-store"


async def test_a_key_in_the_authorization_header_opens_pages_as_it_opens_reports(page: RunningPage) -> None:
    reader, tick = await page.add_key("reader", Scope.QUERY), await page.add_key("sender", Scope.TICK)
    assert (await page.request("/tables/errors.csv", Authorization=f"Bearer {reader}")).status == 200
    refused = await page.request("/tables/errors.csv", Authorization=f"Bearer {tick}")
    assert (refused.status, "Location" in refused.headers) == (403, False)
    unknown = await page.request("/", Authorization=f"Bearer {'0' * 40}")
    assert (unknown.status, unknown.headers["WWW-Authenticate"]) == (401, 'Bearer realm="metronome"')


async def test_where_reports_are_not_public_every_page_needs_a_key(closed: RunningPage) -> None:
    reader = await closed.add_key("reader", Scope.TOCK)
    for path in TOCK_VIEWS:
        assert (await closed.request(path)).status == 303, path
    for path in ("/live", "/embed/rivers"):
        assert (await closed.request(path)).status == 401, path
    for path in ("/sign-in", "/usage.js", "/robots.txt", "/favicon.ico"):
        assert (await closed.request(path)).status == 200, path
    cookie = await closed.cookie_of(reader)
    for path in (*TOCK_VIEWS, "/live", "/embed/rivers"):
        assert (await closed.request(path, cookie=cookie)).status == 200, path
    for path in QUERY_VIEWS:
        response = await closed.request(path, cookie=cookie)
        assert response.status == 403, path
        assert "does not have the scope query" in response.text.replace("&#39;", "'")


async def test_items_may_have_any_id(page: RunningPage) -> None:
    response = await page.request("/items/a%2Fb%20%C3%A9%3F?range=12m")
    assert response.status == 200
    assert "<h1>a/b é?</h1>" in response.text
    same = await page.request("/items/a/b%20%C3%A9%3F?range=12m")
    assert "<h1>a/b é?</h1>" in same.text


async def test_every_response_has_the_security_headers_and_pages_load_nothing_from_elsewhere(page: RunningPage) -> None:
    await page.add_key("reader", Scope.QUERY)
    for path in (*TOCK_VIEWS, "/sign-in", "/nothing?", "/?range=9d", "/tables/nothing", "/embed/rivers"):
        response = await page.request(path)
        headers = response.headers
        if path == "/nothing?":
            # Not one of the page's paths.
            assert headers["Content-Type"] == "application/problem+json"
            continue
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
        assert "unsafe" not in policy
        assert policy.endswith("frame-ancestors *" if path.startswith("/embed") else "frame-ancestors 'none'")
        assert ("X-Frame-Options" in headers) != path.startswith("/embed")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


async def test_pages_are_compressed_and_revalidated_and_have_a_head(page: RunningPage) -> None:
    plain = await page.request("/")
    zipped = await page.request("/", Accept_Encoding="gzip")
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert zipped.text == plain.text
    assert plain.headers["Vary"] == "Accept-Encoding, Cookie"
    assert plain.headers["Cache-Control"] == "private, no-cache"
    unchanged = await page.request("/", If_None_Match=plain.headers["ETag"])
    assert (unchanged.status, unchanged.text) == (304, "")
    head = await page.request("/", "HEAD")
    assert (head.status, head.text, head.headers["ETag"]) == (200, "", plain.headers["ETag"])


async def test_what_needed_a_key_is_not_kept_by_the_browser(page: RunningPage) -> None:
    cookie = await page.cookie_of(await page.add_key("reader", Scope.QUERY))
    assert (await page.request("/", cookie=cookie)).headers["Cache-Control"] == "no-store"
    assert (await page.request("/tables/errors.csv", cookie=cookie)).headers["Cache-Control"] == "no-store"
    assert (await page.request("/live")).headers["Cache-Control"] == "no-store"


async def test_a_table_is_a_file_of_its_name(page: RunningPage) -> None:
    response = await page.request("/tables/countries.csv?range=12m")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="countries.csv"'
    assert response.text.startswith("name,")


async def test_files_of_pages_are_kept_forever_and_compressed(page: RunningPage) -> None:
    overview = (await page.request("/")).text
    path = overview.partition('rel="stylesheet" href="')[2].partition('"')[0]
    response = await page.request(path, Accept_Encoding="gzip")
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers["Content-Type"] == "text/css; charset=utf-8"
    assert response.headers["Content-Encoding"] == "gzip"
    assert (await page.request(path, If_None_Match=response.headers["ETag"])).status == 304
    assert (await page.request("/assets/page.000000000000.css")).status == 404
    script = await page.request("/usage.js")
    assert script.headers["Access-Control-Allow-Origin"] == "*"
    assert script.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "Disallow: /" in (await page.request("/robots.txt")).text


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/?range=9d", 400, "Invalid range=9d: expected one of"),
        ("/?tz=Mars", 400, "Unknown time zone"),
        ("/?nosuchfield=1", 400, "nosuchfield"),
        ("/tables/nothing", 404, "Unknown table"),
        ("/tables/nothing.csv", 404, "Unknown table"),
        ("/?range=<script>", 400, "Invalid range"),
    ],
)
async def test_errors_are_pages_that_say_what_is_wrong(page: RunningPage, path: str, status: int, text: str) -> None:
    response = await page.request(path)
    body = response.text
    assert (response.status, response.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert response.headers["Cache-Control"] == "no-store"
    assert text.lower() in body.lower()
    assert "<script>" not in body


async def test_below_a_base_path_all_links_have_it(tmp_path: Path) -> None:
    async with RunningPage(tmp_path, base_path="/web/stats") as page:
        await page.add_events(*EVENTS)
        token = await page.add_key("reader", Scope.QUERY)
        for path in ("/web/stats/", "/", "/web/stats/items/rivers", "/items/rivers", "/tables/items", "/embed/rivers"):
            body = (await page.request(path)).text
            links = [part.partition('"')[0] for part in body.split('href="')[1:]]
            assert links, path
            assert {link for link in links if not link.startswith(("/web/stats/", "#"))} <= {""}, path
        moved = await page.request("/web/stats/?metric=errors")
        assert moved.headers["Location"] == "/web/stats/sign-in?next=/web/stats/%3Fmetric%3Derrors"
        signed_in = await page.sign_in(token, "/web/stats/?metric=errors")
        assert signed_in.headers["Location"] == "/web/stats/?metric=errors"
        assert signed_in.cookies[page.cookie_name]["path"] == "/web/stats/"
        # Elsewhere on the host is not Metronome's.
        assert (await page.sign_in(token, "/wiki/")).headers["Location"] == "/web/stats/"


async def test_the_same_page_is_computed_once_a_second_and_once_for_all_who_wait(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metronome.page.recent.FRESH_SECONDS", 60.0)
    page.store.gate.clear()
    waiting = [asyncio.create_task(page.request("/")) for _ in range(5)]
    await asyncio.sleep(0.2)
    page.store.gate.set()
    assert {(await each).status for each in waiting} == {200}
    count = page.store.query_count
    await page.request("/")
    assert page.store.query_count == count
    await page.request("/?compare=none")
    assert page.store.query_count > count


async def test_pages_that_are_kept_are_not_shown_to_those_who_may_see_less(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metronome.page.recent.FRESH_SECONDS", 60.0)
    cookie = await page.cookie_of(await page.add_key("reader", Scope.QUERY))
    assert "no tile 12" in (await page.request("/", cookie=cookie)).text
    assert "no tile 12" not in (await page.request("/")).text
    # Nor is what another client claims to be this server's name.
    await page.request("/items/rivers", Host="evil.example")
    assert "evil.example" not in (await page.request("/items/rivers")).text


@pytest.mark.parametrize("error", [StoreUnavailable("10.0.0.5 is down"), StoreAccessDenied("user kibana is denied")])
async def test_while_the_store_is_unavailable_the_last_page_is_shown_with_its_age(
    page: RunningPage, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metronome.page.recent.FRESH_SECONDS", 0.0)
    for path in ("/", "/items/rivers", "/tables/items", "/embed/rivers", "/live", "/tables/items.csv"):
        assert (await page.request(path)).status == 200
    page.store.error = error
    page.now = NOW + 600
    for path in ("/", "/items/rivers", "/tables/items"):
        response = await page.request(path)
        body = response.text
        assert response.status == 200
        assert "10 minutes" in body, path
    assert (await page.request("/embed/rivers")).status == 200
    # These have no place to say how old they are.
    assert [(await page.request(path)).status for path in ("/live", "/tables/items.csv")] == [503, 503]
    other = await page.request("/?range=7d")
    body = other.text
    assert (other.status, other.headers["Retry-After"]) == (503, "5")
    assert str(error) not in body
    assert "no event is lost" in body
    assert "its log and /health/ready say why" in body
    page.store.error = None
    assert "10 minutes" not in (await page.request("/")).text


async def test_many_pages_leave_a_slot_for_reports(page: RunningPage) -> None:
    page.store.gate.clear()
    waiting = [asyncio.create_task(page.request(f"/?range=7d&offset={at}")) for at in range(8)]
    await asyncio.sleep(0.2)
    # Were both slots taken, this would wait for them.
    async with asyncio.timeout(5), page.context.limiter.acquire():
        pass
    page.store.gate.set()
    assert {(await each).status for each in waiting} == {200}


async def test_too_many_waiting_pages_are_turned_away_with_advice(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metronome.page.routes._WAIT_SECONDS", 0.2)
    page.store.gate.clear()
    waiting = [asyncio.create_task(page.request(f"/?offset={at}")) for at in range(2)]
    done, rest = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    (late,) = done
    assert late.result().status == 503
    assert "run fewer large queries at once" in late.result().text
    page.store.gate.set()
    assert [(await each).status for each in rest] == [200]


async def test_a_page_that_takes_too_long_says_what_to_do(page: RunningPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metronome.page.routes._COMPUTE_SECONDS", 0.2)
    page.store.gate.clear()
    response = await page.request("/")
    assert response.status == 400
    assert "Choose a shorter range or an item." in response.text
    page.store.gate.set()


async def test_the_first_event_appears_at_once(tmp_path: Path) -> None:
    async with RunningPage(tmp_path) as page:
        assert "Nothing counted yet" in (await page.request("/")).text
        await page.add_events(*EVENTS)
        assert "Nothing counted yet" not in (await page.request("/")).text


async def test_a_page_says_how_many_accepted_events_it_lacks(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = 1200

    async def wait_for(*_: object) -> int:
        return pending

    monkeypatch.setattr(type(page.context), "wait_for", wait_for)
    for path in ("/", "/items/rivers", "/tables/items"):
        assert "1,200 accepted events are not counted here yet" in (await page.request(path)).text, path
    pending = 0
    assert "not counted here yet" not in (await page.request("/")).text


async def test_a_file_is_whole_or_refused(page: RunningPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metronome.page.routes.CSV_MAX_ROWS", 1)
    response = await page.request("/tables/items.csv?order=visitors")
    assert (response.status, "over the limit of 1" in response.text) == (400, True)
    assert (await page.request("/tables/items.csv?id=rivers")).status == 200


async def test_a_bug_is_a_page_and_in_the_log(page: RunningPage) -> None:
    page.store.error = ZeroDivisionError("a bug")
    with capture_logs() as logs:
        response = await page.request("/?range=7d")
    assert response.status == 500
    assert "Report this to the maintainers" in response.text
    assert "a bug" not in response.text
    (entry,) = logs
    assert (entry["event"], entry["exc_info"]) == ("page_failed", True)


async def test_a_browser_is_shown_a_page_where_nothing_is_and_a_program_json(page: RunningPage) -> None:
    shown = await page.request("/nothing/here", Accept="text/html,*/*;q=0.8")
    assert (shown.status, shown.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "Nothing is here" in shown.text
    assert shown.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert '"title":"NotFound"' in (await page.request("/nothing/here")).text


async def test_a_large_file_is_built_without_links_and_beside_other_requests(
    page: RunningPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await page.add_events(*({"id": f"item {at}", "event": "view"} for at in range(2000)))
    threads = []

    def build(*arguments: Any, **options: Any) -> Table:
        threads.append(threading.current_thread())
        return measured_table(*arguments, **options)

    monkeypatch.setattr("metronome.page.tables.measured_table", build)
    text = (await page.request("/tables/items.csv?range=12m")).text
    assert text.count("item ") > 1990
    assert "/items/" not in text
    assert threading.main_thread() not in threads
    await page.request("/tables/items?range=12m")
    assert threads[1:] == [threading.main_thread()]


async def test_tables_name_items_by_the_titles_of_their_newest_views(page: RunningPage) -> None:
    await page.add_events(
        {"id": "rivers", "event": "view", "title": "Rivers & lakes", "event_id": "t1", "ts": "2015-01-23T07:50:00Z"},
        {"id": "rivers", "event": "view", "title": "Rivers", "event_id": "t2", "ts": "2015-01-22T07:50:00Z"},
    )
    for path in ("/", "/tables/items"):
        text = (await page.request(path)).text
        assert ">Rivers &amp; lakes</a>" in text, path
    assert "Item: Rivers &amp; lakes" in (await page.request("/?id=rivers")).text
    # An item without a title keeps its ID.
    assert ">a/b é?</a>" in (await page.request("/tables/items?order=downloads")).text
    assert "Rivers" not in (await page.request("/tables/items.csv")).text
