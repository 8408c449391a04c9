"""Signing in to the page: its cookie, when it ends, and requests that other sites forge."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from metronome.page.sign_in import SIGN_IN_DURATION, SIGN_IN_KIND, safe_return_path
from metronome.scopes import Scope
from tests.page.running_page import CREATED, NOW, RunningPage

ERRORS = "/?metric=errors"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[RunningPage]:
    async with RunningPage(tmp_path) as running:
        await running.add_events(
            {"id": "rivers"}, {"id": "rivers", "event": "error", "message": "no tile 12", "error_group": "no tile 12"}
        )
        yield running


async def is_signed_in(page: RunningPage, cookie: str) -> bool:
    return (await page.request(ERRORS, cookie=cookie)).status == 200


async def test_signing_in_opens_the_page_and_leads_back_to_it(page: RunningPage) -> None:
    key = await page.add_key("reader", Scope.QUERY)
    form = await page.request("/sign-in?next=/items/rivers%3Frange%3D7d")
    assert 'value="/items/rivers?range=7d"' in form.text
    response = await page.sign_in(key, "/items/rivers?range=7d")
    assert (response.status, response.headers["Location"]) == (303, "/items/rivers?range=7d")
    assert response.headers["Cache-Control"] == "no-store"
    cookie = response.cookies[page.cookie_name]
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/", True, "Lax")
    assert int(cookie["max-age"]) == SIGN_IN_DURATION.total_seconds()
    assert not cookie["secure"]
    assert key not in str(response.headers)
    assert await is_signed_in(page, cookie.value)
    assert not await is_signed_in(page, "")
    assert not await is_signed_in(page, "0" * 64)
    assert not await is_signed_in(page, "x" * 10_000)


async def test_over_tls_the_cookie_is_for_tls_only(page: RunningPage) -> None:
    key = await page.add_key("reader", Scope.QUERY)
    by_origin = await page.sign_in(key, Origin=f"https://{page.host}")
    assert by_origin.cookies[page.cookie_name]["secure"]
    by_proxy = await page.sign_in(key, X_Forwarded_Proto="https")
    assert by_proxy.cookies[page.cookie_name]["secure"]


async def test_installations_on_other_ports_of_a_host_have_cookies_of_their_own(page: RunningPage) -> None:
    key = await page.add_key("reader", Scope.QUERY)
    assert page.cookie_name == f"metronome-{page.host.rpartition(':')[2]}"
    behind_a_proxy = await page.sign_in(key, Host="stats.example.org", Origin="http://stats.example.org")
    assert list(behind_a_proxy.cookies) == ["metronome"]


async def test_the_state_has_neither_the_key_nor_the_cookie(page: RunningPage) -> None:
    key = await page.add_key("reader", Scope.QUERY)
    cookie = await page.cookie_of(key)
    stored = str(await page.state.get_all(SIGN_IN_KIND))
    assert "reader" in stored
    assert key not in stored
    assert cookie not in stored


async def test_reports_do_not_accept_the_cookie(page: RunningPage) -> None:
    cookie = await page.cookie_of(await page.add_key("admin", Scope.ADMIN))
    assert await is_signed_in(page, cookie)
    assert (await page.request("/query?by=event", cookie=cookie)).status == 401


async def test_signing_out_ends_the_sign_in_everywhere(page: RunningPage) -> None:
    key = await page.add_key("reader", Scope.QUERY)
    first, second = await page.cookie_of(key), await page.cookie_of(key)
    assert first != second
    response = await page.request("/sign-out", "POST", cookie=first, Sec_Fetch_Site="same-origin")
    assert (response.status, response.headers["Location"]) == (303, "/")
    assert response.cookies[page.cookie_name].value == ""
    assert not await is_signed_in(page, first)
    assert await is_signed_in(page, second)
    assert (await page.request("/sign-out", "POST")).status == 303
    # Signing in again ends the sign-in of this browser.
    assert (await page.sign_in(key, cookie=second)).status == 303
    assert not await is_signed_in(page, second)


async def test_a_sign_in_ends_with_its_key_and_after_two_weeks(page: RunningPage) -> None:
    revoked = await page.cookie_of(await page.add_key("revoked", Scope.QUERY))
    expiring = await page.cookie_of(await page.add_key("expiring", Scope.QUERY, expires="2015-01-24T08:00:00.000Z"))
    lasting = await page.cookie_of(await page.add_key("lasting", Scope.QUERY))
    await page.revoke("revoked")
    assert [await is_signed_in(page, cookie) for cookie in (revoked, expiring, lasting)] == [False, True, True]
    page.now = NOW + timedelta(days=1).total_seconds()
    assert [await is_signed_in(page, cookie) for cookie in (expiring, lasting)] == [False, True]
    page.now = NOW + SIGN_IN_DURATION.total_seconds() - 1
    assert await is_signed_in(page, lasting)
    page.now += 1
    assert not await is_signed_in(page, lasting)
    assert await page.state.get_all(SIGN_IN_KIND) == {}


async def test_old_sign_ins_are_removed_from_the_state(page: RunningPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metronome.page.sign_in._MAX_SIGN_INS_OF_A_KEY", 3)
    key, other = await page.add_key("reader", Scope.QUERY), await page.add_key("other", Scope.QUERY)
    others = await page.cookie_of(other)
    cookies = []
    for _ in range(5):
        page.now += 1
        cookies.append(await page.cookie_of(key))
    assert [await is_signed_in(page, cookie) for cookie in (*cookies, others)] == [False] * 2 + [True] * 4
    page.now += SIGN_IN_DURATION.total_seconds() + 1
    await page.cookie_of(key)
    assert len(await page.state.get_all(SIGN_IN_KIND)) == 1


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("", 401, "The key is unknown."),
        ("unknown", 401, "The key is unknown."),
        ("not a key", 401, "The key is unknown."),
        ("expired", 401, "The key 'expired' expired on 2015-01-01"),
        ("revoked", 401, "The key 'revoked' was revoked."),
        ("bound", 403, "The key 'bound' is only for requests from https://example.org"),
    ],
)
async def test_a_key_that_is_not_valid_is_named_in_the_form(
    page: RunningPage, name: str, status: int, text: str
) -> None:
    await page.add_key("reader", Scope.QUERY)
    more: dict[str, dict[str, Any]] = {
        "expired": {"expires": CREATED},
        "revoked": {"revoked": CREATED},
        "bound": {"origins": ("https://example.org",)},
    }
    tokens = {"": "", "unknown": "0" * 40, "not a key": "<script>"}
    key = await page.add_key(name, Scope.ADMIN, **more[name]) if name in more else tokens[name]
    response = await page.sign_in(key, "/items/rivers")
    body = response.text.replace("&#39;", "'")
    assert (response.status, "Set-Cookie" in response.headers) == (status, False)
    assert text in body
    assert 'value="/items/rivers"' in body
    assert not key or key not in body
    assert response.headers["Cache-Control"] == "no-store"


async def test_a_key_that_may_not_read_cannot_sign_in_where_reports_are_not_public(tmp_path: Path) -> None:
    async with RunningPage(tmp_path, frozenset({Scope.TICK})) as page:
        response = await page.sign_in(await page.add_key("sender", Scope.TICK))
        assert response.status == 403
        assert "does not have the scope tock" in response.text


@pytest.mark.parametrize(
    ("headers", "is_accepted"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        # Browsers that do not send it, as over HTTP from another machine.
        ({"Origin": "http://HOST"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        # No browser.
        ({}, True),
    ],
)
async def test_forms_of_other_sites_neither_sign_in_nor_out(
    page: RunningPage, headers: dict[str, str], *, is_accepted: bool
) -> None:
    key = await page.add_key("reader", Scope.QUERY)
    cookie = await page.cookie_of(key)
    headers = {name: value.replace("HOST", page.host) for name, value in headers.items()}
    signed_in = await page.request("/sign-in", "POST", {"key": key}, **headers)
    assert signed_in.status == (303 if is_accepted else 403)
    assert (page.cookie_name in signed_in.cookies) == is_accepted
    signed_out = await page.request("/sign-out", "POST", cookie=cookie, **headers)
    assert signed_out.status == (303 if is_accepted else 403)
    assert await is_signed_in(page, cookie) != is_accepted


@pytest.mark.parametrize("body", [b"key=\xff", b"key=" + b"a" * 20_000, b"&" * 2000])
async def test_bodies_that_are_no_form_of_the_page_are_errors(page: RunningPage, body: bytes) -> None:
    await page.add_key("reader", Scope.QUERY)
    response = await page.request("/sign-in", "POST", body)
    assert response.status in {400, 401, 413}
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"


async def test_while_the_state_is_unavailable_those_who_are_signed_in_stay_so(page: RunningPage) -> None:
    key = await page.add_key("reader", Scope.QUERY)
    cookie, unused = await page.cookie_of(key), await page.cookie_of(key)
    assert await is_signed_in(page, cookie)
    page.state.is_down = True
    assert await is_signed_in(page, cookie)
    assert (await page.request("/", cookie=unused)).status == 503
    assert (await page.request("/")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        *("", "//evil.example", "/\\evil.example", "\\evil.example", "https://evil.example", "evil", "/ x", "/\n/evil"),
        *("/\tevil", "javascript:alert(1)", "/é", "/a\r\nSet-Cookie: a=b", "/a\\b"),
        *("/sign-in?next=/", "/sign-out"),
    ],
)
def test_a_return_path_to_another_site_leads_to_the_overview(path: str) -> None:
    assert safe_return_path(path, "") == "/"
    assert safe_return_path(path, "/stats") == "/stats/"


@pytest.mark.parametrize("path", ["/", "/items/a%2Fb?range=7d&x[]=1", "/items//a//b", "/?a=b#c"])
def test_a_return_path_of_this_server_is_kept(path: str) -> None:
    assert safe_return_path(path, "") == path
    assert safe_return_path(f"/stats{path}", "/stats") == f"/stats{path}"
    assert safe_return_path("/statistics/", "/stats") == "/stats/"
    assert safe_return_path("/stats/sign-in", "/stats") == "/stats/"
    for outside in ("/stats/../mail/", "/stats/items/..", "/stats/%2E./mail?x=1", "/stats/a/.%2e/../mail"):
        assert safe_return_path(outside, "/stats") == "/stats/"
    assert safe_return_path("/stats/items/a..b?x=/../", "/stats") == "/stats/items/a..b?x=/../"
