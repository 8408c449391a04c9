"""The Matomo Tracking API over HTTP, for trackers, browsers and Matomo's log importer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson
import pytest

from metronome.scopes import Scope
from metronome.web.gif import ERROR_HEADER, TRANSPARENT_GIF
from tests.installations import create_key, read_stored_documents
from tests.servers import Server, running_server, unique_name

FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}
FOREIGN = "f" * 32
TOKENS: dict[str, str] = {}
ADDRESSES = ["/matomo.php", "/piwik.php", "//matomo.php", "//piwik.php"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with two workers where sending is public and the scope import needs a key."""
    data = tmp_path_factory.mktemp("matomo") / "guarded"
    TOKENS["imports"] = create_key(data, "imports", Scope.IMPORT)
    TOKENS["sends"] = create_key(data, "sends", Scope.TICK)
    with running_server(data, workers=2, public="tick,tock") as running:
        yield running


@pytest.fixture
async def http(guarded: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(guarded.url) as session:
        yield session


@pytest.fixture
def item() -> str:
    return unique_name("/data/")


def query(item: str, **more: str) -> str:
    return urlencode({"idsite": 1, "rec": 1, "url": f"https://example.org{item}", **more})


async def item_counts(server: Server, item: str) -> Any:
    await asyncio.to_thread(server.wait_until_shipped)
    return await asyncio.to_thread(server.get, f"/tock/{quote(item, safe='')}.json")


async def views(server: Server, item: str) -> dict[str, int]:
    found: dict[str, int] = (await item_counts(server, item))["views"]
    return found


@pytest.mark.clock
@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_view_is_counted_in_each_request_format(
    guarded: Server, http: aiohttp.ClientSession, item: str, address: str
) -> None:
    # A relative URL with two slashes would begin with a host.
    address = guarded.url + address
    async with http.get(f"{address}?{query(item)}") as response:
        assert (response.status, response.content_type, await response.read()) == (200, "image/gif", TRANSPARENT_GIF)
    async with http.post(address, data=query(item, send_image="0"), headers=FORM) as response:
        assert (response.status, await response.read()) == (204, b"")
    async with http.post(f"{address}?{query(item, send_image='0')}", data=b"", headers=FORM) as response:
        assert response.status == 204
    bulk = orjson.dumps({"requests": [f"?{query(item)}"] * 2})
    async with http.post(address, data=bulk, headers=FORM) as response:
        assert await response.json() == {"status": "success", "tracked": 2, "invalid": 0}
    assert sum((await views(guarded, item)).values()) == 5


async def test_a_download_is_counted_by_format(guarded: Server, http: aiohttp.ClientSession, item: str) -> None:
    async with http.get(f"/matomo.php?{query('/x', download=f'https://example.org{item}.kml')}") as response:
        assert response.status == 200
    assert (await item_counts(guarded, f"{item}.kml"))["downloads"] == {"kml": 1}


@pytest.mark.parametrize("more", [{"ping": "1"}, {"e_c": "a", "e_a": "b"}, {"link": "https://x.example"}, {"ca": "1"}])
async def test_other_events_are_not_counted_as_views(
    guarded: Server, http: aiohttp.ClientSession, item: str, more: dict[str, str]
) -> None:
    async with http.get(f"/matomo.php?{query(item, **more)}") as response:
        assert response.status == 200
    assert await item_counts(guarded, item) == {
        "views": {},
        "downloads": {},
        "referers": {},
        "totals": {"views": 0, "downloads": 0},
    }


@pytest.mark.parametrize("preflight", ["rec=1", "idsite=1", "idsite=0&rec=1", "idsite=1&rec=1&cdt=2015-01-22"])
async def test_rejects_an_invalid_request_with_a_reason(http: aiohttp.ClientSession, preflight: str) -> None:
    async with http.get(f"/matomo.php?{preflight}") as response:
        assert response.status == 400
        assert len((await response.json(content_type="application/problem+json"))["detail"].split()) > 4


class TestBulk:
    async def test_an_invalid_entry_does_not_affect_the_others(
        self, guarded: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        requests = [f"?{query(item)}", "?rec=1", None, {"idsite": 1, "rec": "1", "url": item}]
        async with http.post("/matomo.php", json={"requests": requests, "token_auth": FOREIGN}) as response:
            assert await response.json() == {"status": "success", "tracked": 2, "invalid": 2}
            assert "idsite" in response.headers[ERROR_HEADER]
        async with http.post("/matomo.php", json={"requests": requests, "token_auth": TOKENS["imports"]}) as response:
            body = await response.json()
        assert body == {"status": "success", "tracked": 2, "invalid": 2, "invalid_indices": [1, 2]}
        assert sum((await views(guarded, item)).values()) == 4

    @pytest.mark.parametrize("body", [b'{"requests":["?x"', b'{"requests":{}}'])
    async def test_an_invalid_bulk_gets_an_error_in_matomos_format(
        self, http: aiohttp.ClientSession, body: bytes
    ) -> None:
        async with http.post("/piwik.php", data=body, headers={"Content-Type": "application/json"}) as response:
            error = await response.json()
        assert (response.status, error["status"], error["tracked"]) == (400, "error", 0)

    @pytest.mark.parametrize(("fraction", "count"), [(".250", 5), ("", 20)])
    async def test_an_equal_bulk_is_a_resend_if_its_times_are_finer_than_a_second(
        self, guarded: Server, item: str, fraction: str, count: int
    ) -> None:
        requests = [query(item, cdt=f"2015-01-22 09:30:00{fraction}", cip="198.51.100.1")] * 5
        for _ in range(4):
            # With a new connection for each request, both workers get some.
            async with (
                aiohttp.ClientSession(guarded.url) as session,
                session.post(
                    "/piwik.php?queuedtracking=0",
                    json={"token_auth": TOKENS["imports"], "requests": [f"?{request}" for request in requests]},
                ) as response,
            ):
                assert (await response.json())["tracked"] == 5
        assert await views(guarded, item) == {"2015-01-22": count}


class TestTokens:
    @staticmethod
    def request_arguments(place: str, body: str, token: str) -> dict[str, Any]:
        """Return the arguments of a request with its token in that place."""
        address = {"query": f"/matomo.php?token_auth={token}", "header": "/matomo.php?token_auth=x"}
        own_headers = {"Authorization": f"Bearer {token}"} if place == "header" else {}
        return {
            "url": address.get(place, "/matomo.php"),
            "data": f"{body}&token_auth={token}" if place == "form" else body,
            "headers": {**FORM, **own_headers},
        }

    @pytest.mark.parametrize("place", ["query", "form", "header"])
    async def test_only_a_key_with_the_scope_import_allows_an_old_view(
        self, guarded: Server, http: aiohttp.ClientSession, item: str, place: str
    ) -> None:
        old = query(item, cdt="2015-01-22 09:30:00", cip="198.51.100.1", send_image="0")
        for token, status in ((FOREIGN, 400), (TOKENS["sends"], 400), (TOKENS["imports"], 204)):
            async with http.post(**self.request_arguments(place, old, token)) as response:
                assert response.status == status, token
        assert await views(guarded, item) == {"2015-01-22": 1}


class TestBrowsers:
    origin = "https://example.org"

    @pytest.mark.parametrize("address", ADDRESSES)
    async def test_a_page_may_send_and_read_with_credentials(
        self, guarded: Server, http: aiohttp.ClientSession, address: str, item: str
    ) -> None:
        preflight = {"Origin": self.origin, "Access-Control-Request-Method": "POST"}
        address = guarded.url + address
        replies = [
            await http.options(address, headers=preflight),
            await http.post(address, data=query(item, send_image="0"), headers={**FORM, "Origin": self.origin}),
            await http.post(address, data="rec=1", headers={**FORM, "Origin": self.origin}),
            await http.get(f"{address}?{query(item)}", headers={"Origin": self.origin}),
        ]
        assert [reply.status for reply in replies] == [204, 204, 400, 200]
        for reply in replies:
            assert reply.headers["Access-Control-Allow-Origin"] == self.origin
            assert reply.headers["Access-Control-Allow-Credentials"] == "true"
            assert reply.headers["Vary"] == "Origin"

    @pytest.mark.parametrize("address", ["/tock/a.json", "/query", "/es/_bulk", "/documents", "/"])
    async def test_credentials_are_not_allowed_at_other_urls(self, http: aiohttp.ClientSession, address: str) -> None:
        preflight = {"Origin": self.origin, "Access-Control-Request-Method": "POST"}
        async with http.options(address, headers=preflight) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in response.headers


class TestLogImporter:
    @staticmethod
    def form(token: str, **more: str) -> dict[str, str]:
        return {
            "module": "API",
            "format": "json",
            "method": "SitesManager.getSiteFromId",
            "filter_limit": "-1",
            "token_auth": token,
            "idSite": "1",
            **more,
        }

    @pytest.mark.parametrize("address", ["/", "/index.php", "//", "//index.php"])
    async def test_the_importer_gets_the_url_of_its_site(
        self, guarded: Server, http: aiohttp.ClientSession, address: str
    ) -> None:
        form = self.form(TOKENS["imports"])
        address = guarded.url + address
        for pending in (http.post(address, data=form), http.get(f"{address}?{urlencode(form)}")):
            async with pending as response:
                assert (response.status, response.content_type) == (200, "application/json")
                assert (await response.json())["main_url"] == guarded.url

    @pytest.mark.parametrize(("key", "status"), [("", 401), (FOREIGN, 401), ("sends", 403)])
    async def test_an_importer_without_the_scope_import_is_rejected_before_it_starts(
        self, http: aiohttp.ClientSession, key: str, status: int
    ) -> None:
        async with http.post("/", data=self.form(TOKENS.get(key, key))) as response:
            assert response.status == status
            assert (await response.json())["result"] == "error"
            assert ("WWW-Authenticate" in response.headers) == (status == 401)

    async def test_other_paths_are_not_found(self, guarded: Server, http: aiohttp.ClientSession) -> None:
        for address in ("/index.php?module=CoreHome", "//", "//tick.gif", "///matomo.php"):
            async with http.get(guarded.url + address) as response:
                assert response.status == 404


@pytest.mark.slow
def test_stores_neither_keys_nor_whole_addresses(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("matomo") / "stored"
    token = create_key(data, "imports", Scope.IMPORT)
    preflight = [query("/a", token_auth=token, cip="198.51.100.77", ua="Odd/1", **{"odd[name]": "x"})]

    async def send(server: Server) -> None:
        async with aiohttp.ClientSession(server.url) as http:
            async with http.get(f"/matomo.php?{preflight[0]}") as response:
                assert response.status == 200
            async with http.post("/matomo.php", json={"requests": [f"?{preflight[0]}"]}) as response:
                assert (await response.json())["tracked"] == 1

    with running_server(data, public="none") as server:
        asyncio.run(send(server))
    documents = read_stored_documents(data)
    assert len(documents) == 2
    for found in documents:
        text = orjson.dumps(found).decode()
        assert token not in text
        assert "198.51.100.77" not in text
        assert (found["id"], found["agent"], found["params"]) == ("/a", "Odd/1", {"odd[name]": "x"})
