"""The Matomo Tracking API of a real server: what trackers, browsers and Matomo's log importer see of it."""

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
    """Anybody may send, and only an importer is believed; two workers take turns."""
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


async def counted(server: Server, item: str) -> Any:
    await asyncio.to_thread(server.wait_until_shipped)
    return await asyncio.to_thread(server.get, f"/tock/{quote(item, safe='')}.json")


async def views(server: Server, item: str) -> dict[str, int]:
    found: dict[str, int] = (await counted(server, item))["views"]
    return found


@pytest.mark.clock
@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_view_counts_however_it_is_sent(
    guarded: Server, http: aiohttp.ClientSession, item: str, address: str
) -> None:
    # Without the host before it, two slashes would begin a host.
    address = guarded.url + address
    async with http.get(f"{address}?{query(item)}") as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (200, "image/gif", TRANSPARENT_GIF)
    async with http.post(address, data=query(item, send_image="0"), headers=FORM) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    async with http.post(f"{address}?{query(item, send_image='0')}", data=b"", headers=FORM) as answer:
        assert answer.status == 204
    bulk = orjson.dumps({"requests": [f"?{query(item)}"] * 2})
    async with http.post(address, data=bulk, headers=FORM) as answer:
        assert await answer.json() == {"status": "success", "tracked": 2, "invalid": 0}
    assert sum((await views(guarded, item)).values()) == 5


async def test_a_download_counts_by_its_format(guarded: Server, http: aiohttp.ClientSession, item: str) -> None:
    async with http.get(f"/matomo.php?{query('/x', download=f'https://example.org{item}.kml')}") as answer:
        assert answer.status == 200
    assert (await counted(guarded, f"{item}.kml"))["downloads"] == {"kml": 1}


@pytest.mark.parametrize("more", [{"ping": "1"}, {"e_c": "a", "e_a": "b"}, {"link": "https://x.example"}, {"ca": "1"}])
async def test_what_is_no_view_counts_as_none(
    guarded: Server, http: aiohttp.ClientSession, item: str, more: dict[str, str]
) -> None:
    async with http.get(f"/matomo.php?{query(item, **more)}") as answer:
        assert answer.status == 200
    assert await counted(guarded, item) == {"views": {}, "downloads": {}, "referers": {}}


@pytest.mark.parametrize("asked", ["rec=1", "idsite=1", "idsite=0&rec=1", "idsite=1&rec=1&cdt=2015-01-22"])
async def test_a_wrong_request_is_refused_with_a_reason(http: aiohttp.ClientSession, asked: str) -> None:
    async with http.get(f"/matomo.php?{asked}") as answer:
        assert answer.status == 400
        assert len((await answer.json(content_type="application/problem+json"))["detail"].split()) > 4


class TestBulk:
    async def test_a_wrong_request_fails_none_of_its_neighbours(
        self, guarded: Server, http: aiohttp.ClientSession, item: str
    ) -> None:
        requests = [f"?{query(item)}", "?rec=1", None, {"idsite": 1, "rec": "1", "url": item}]
        async with http.post("/matomo.php", json={"requests": requests, "token_auth": FOREIGN}) as answer:
            assert await answer.json() == {"status": "success", "tracked": 2, "invalid": 2}
            assert "idsite" in answer.headers[ERROR_HEADER]
        async with http.post("/matomo.php", json={"requests": requests, "token_auth": TOKENS["imports"]}) as answer:
            told = await answer.json()
        assert told == {"status": "success", "tracked": 2, "invalid": 2, "invalid_indices": [1, 2]}
        assert sum((await views(guarded, item)).values()) == 4

    @pytest.mark.parametrize("body", [b'{"requests":["?x"', b'{"requests":{}}'])
    async def test_one_that_cannot_be_read_is_refused_in_matomos_way(
        self, http: aiohttp.ClientSession, body: bytes
    ) -> None:
        async with http.post("/piwik.php", data=body, headers={"Content-Type": "application/json"}) as answer:
            told = await answer.json()
        assert (answer.status, told["status"], told["tracked"]) == (400, "error", 0)

    async def test_one_that_is_sent_again_adds_nothing(self, guarded: Server, item: str) -> None:
        requests = [query(item, cdt=f"2015-01-22 09:30:0{second}", cip="198.51.100.1") for second in range(5)]
        for _ in range(4):
            # A connection each, so that both workers get some.
            async with (
                aiohttp.ClientSession(guarded.url) as session,
                session.post(
                    "/piwik.php?queuedtracking=0",
                    json={"token_auth": TOKENS["imports"], "requests": [f"?{request}" for request in requests]},
                ) as answer,
            ):
                assert (await answer.json())["tracked"] == 5
        assert await views(guarded, item) == {"2015-01-22": 5}


class TestTokens:
    @staticmethod
    def sent(place: str, body: str, token: str) -> dict[str, Any]:
        """Say how a request is sent with its token at that place."""
        address = {"query": f"/matomo.php?token_auth={token}", "header": "/matomo.php?token_auth=x"}
        own_headers = {"Authorization": f"Bearer {token}"} if place == "header" else {}
        return {
            "url": address.get(place, "/matomo.php"),
            "data": f"{body}&token_auth={token}" if place == "form" else body,
            "headers": {**FORM, **own_headers},
        }

    @pytest.mark.parametrize("place", ["query", "form", "header"])
    async def test_only_the_right_one_lets_a_view_be_old(
        self, guarded: Server, http: aiohttp.ClientSession, item: str, place: str
    ) -> None:
        old = query(item, cdt="2015-01-22 09:30:00", cip="198.51.100.1", send_image="0")
        for token, status in ((FOREIGN, 400), (TOKENS["sends"], 400), (TOKENS["imports"], 204)):
            async with http.post(**self.sent(place, old, token)) as answer:
                assert answer.status == status, token
        assert await views(guarded, item) == {"2015-01-22": 1}


class TestBrowsers:
    origin = "https://example.org"

    @pytest.mark.parametrize("address", ADDRESSES)
    async def test_a_page_may_ask_and_read_with_credentials(
        self, guarded: Server, http: aiohttp.ClientSession, address: str, item: str
    ) -> None:
        asked = {"Origin": self.origin, "Access-Control-Request-Method": "POST"}
        address = guarded.url + address
        replies = [
            await http.options(address, headers=asked),
            await http.post(address, data=query(item, send_image="0"), headers={**FORM, "Origin": self.origin}),
            await http.post(address, data="rec=1", headers={**FORM, "Origin": self.origin}),
            await http.get(f"{address}?{query(item)}", headers={"Origin": self.origin}),
        ]
        assert [reply.status for reply in replies] == [204, 204, 400, 200]
        for reply in replies:
            assert reply.headers["Access-Control-Allow-Origin"] == self.origin
            assert reply.headers["Access-Control-Allow-Credentials"] == "true"
            assert reply.headers["Vary"] == "Origin"

    @pytest.mark.parametrize("address", ["/tick", "/"])
    async def test_credentials_are_allowed_nowhere_else(self, http: aiohttp.ClientSession, address: str) -> None:
        asked = {"Origin": self.origin, "Access-Control-Request-Method": "POST"}
        async with http.options(address, headers=asked) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in answer.headers


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
    async def test_it_is_told_the_address_of_its_site(
        self, guarded: Server, http: aiohttp.ClientSession, address: str
    ) -> None:
        form = self.form(TOKENS["imports"])
        address = guarded.url + address
        for sent in (http.post(address, data=form), http.get(f"{address}?{urlencode(form)}")):
            async with sent as answer:
                assert (answer.status, answer.content_type) == (200, "application/json")
                assert (await answer.json())["main_url"] == guarded.url

    @pytest.mark.parametrize(("key", "status"), [("", 401), (FOREIGN, 401), ("sends", 403)])
    async def test_one_that_is_not_believed_hears_it_before_it_starts(
        self, http: aiohttp.ClientSession, key: str, status: int
    ) -> None:
        async with http.post("/", data=self.form(TOKENS.get(key, key))) as answer:
            assert answer.status == status
            assert (await answer.json())["result"] == "error"
            assert ("WWW-Authenticate" in answer.headers) == (status == 401)

    async def test_nothing_else_is_there(self, guarded: Server, http: aiohttp.ClientSession) -> None:
        for address in ("/", "/index.php?module=CoreHome", "//", "//tick.gif", "///matomo.php"):
            async with http.get(guarded.url + address) as answer:
                assert answer.status == 404


def test_no_key_is_ever_stored_and_no_address_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("matomo") / "stored"
    token = create_key(data, "imports", Scope.IMPORT)
    asked = [query("/a", token_auth=token, cip="198.51.100.77", ua="Odd/1", **{"odd[name]": "x"})]

    async def send(server: Server) -> None:
        async with aiohttp.ClientSession(server.url) as http:
            async with http.get(f"/matomo.php?{asked[0]}") as answer:
                assert answer.status == 200
            async with http.post("/matomo.php", json={"requests": [f"?{asked[0]}"]}) as answer:
                assert (await answer.json())["tracked"] == 1

    with running_server(data, public="none") as server:
        asyncio.run(send(server))
    documents = read_stored_documents(data)
    assert len(documents) == 2
    for found in documents:
        text = orjson.dumps(found).decode()
        assert token not in text
        assert "198.51.100.77" not in text
        assert (found["id"], found["agent"], found["params"]) == ("/a", "Odd/1", {"odd[name]": "x"})
