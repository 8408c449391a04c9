"""The page's routes in this process, with a store and a state of their own that can fail, and a clock that is set."""

import asyncio
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from aiohttp import ClientSession, DummyCookieJar, web
from multidict import CIMultiDictProxy
from prometheus_client import CollectorRegistry

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import ClientAddress
from metronome.auth.key_cache import KeyCache
from metronome.auth.keys import KEY_KIND, build_key, generate_token
from metronome.errors import StoreUnavailable
from metronome.event import DocumentContext, Event, build_document
from metronome.intake import Intake
from metronome.page.routes import PageRoutes
from metronome.scopes import Scope
from metronome.server.app import build_app, build_runner
from metronome.server.report_routes import query_routes
from metronome.state.base import Record
from metronome.state.sqlite import SQLiteState
from metronome.stores.base import DocumentBatch
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.query import Query, QueryResult
from metronome.telemetry import Telemetry
from metronome.web.handlers import QueryContext

NOW: Final = 1_422_000_000.0
"""23 January 2015, 08:00 UTC."""
CREATED: Final = "2015-01-01T00:00:00.000Z"
PUBLIC: Final = frozenset({Scope.TICK, Scope.TOCK})
BODY_MAX_BYTES: Final = 2**20
_INGEST: Final = DocumentContext(
    received_at="2015-01-23T07:59:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)


class PageResponse(NamedTuple):
    """A response that has been read."""

    status: int
    headers: CIMultiDictProxy[str]
    cookies: SimpleCookie
    text: str


class FragileStore(DuckDBStore):
    """A store that can be made to fail, or to wait."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.error: Exception | None = None
        self.query_count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        self.query_count += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return await super().query(*queries)


class FragileState(SQLiteState):
    """A state that can be made to fail."""

    is_down = False

    async def get(self, kind: str, name: str) -> Record | None:
        if self.is_down:
            raise StoreUnavailable("the state is down")
        return await super().get(kind, name)


class RunningPage:
    """The page on a free port of this machine.

    Args:
        folder: for the store and the state.
        public: the public scopes.
        base_path: precedes all paths.
        intake: where the demo's events go.

    """

    def __init__(
        self, folder: Path, public: frozenset[Scope] = PUBLIC, base_path: str = "", intake: Intake | None = None
    ) -> None:
        self.now = NOW
        self.base_path = base_path
        self.store = FragileStore(folder)
        self.state = FragileState(folder)
        self.key_cache = KeyCache(self.state)
        authorizer = Authorizer(self.key_cache, public, lambda: self.now, on_loopback=True)
        self.context = QueryContext(
            self.store, authorizer, ClientAddress(("127.0.0.0/8",)), Telemetry(CollectorRegistry()), lambda: self.now
        )
        page = PageRoutes(self.context, self.state, base_path, intake)
        routes = [web.get("/", page.overview), *page.routes(), *query_routes(self.context, BODY_MAX_BYTES)]
        self._runner = build_runner(build_app(routes, BODY_MAX_BYTES, base_path=base_path), 0.0)

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.store.setup()
        await self.key_cache.refresh()
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        self.cookie_name = f"metronome-{self._runner.addresses[0][1]}"
        self._http = ClientSession(
            f"http://{self.host}", cookie_jar=DummyCookieJar(), skip_auto_headers=("Accept-Encoding",)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop it."""
        await self._http.close()
        await self._runner.cleanup()
        await self.store.close()
        await self.state.close()

    async def add_events(self, *events: dict[str, Any]) -> None:
        """Put events into the store."""
        documents = [build_document(Event(event), _INGEST, f"e{at}") for at, event in enumerate(events)]
        await self.store.write(DocumentBatch.from_documents(documents))

    async def add_key(self, name: str, *scopes: Scope, **more: Any) -> str:
        """Add a key, and return its token."""
        token = generate_token()
        await self.state.add(KEY_KIND, name, build_key(name, scopes, token, CREATED, **more).to_record())
        await self.key_cache.refresh()
        return token

    async def revoke(self, name: str) -> None:
        """Revoke a key."""
        record = await self.state.get(KEY_KIND, name)
        assert record is not None
        assert await self.state.compare_and_swap(KEY_KIND, name, record, {**record, "revoked": CREATED})
        await self.key_cache.refresh()

    async def request(
        self, path: str, method: str = "GET", data: Any = None, cookie: str = "", **headers: str
    ) -> PageResponse:
        """Send a request, and return its response; redirects are not followed."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie:
            sent["Cookie"] = f"{self.cookie_name}={cookie}"
        async with self._http.request(method, path, data=data, headers=sent, allow_redirects=False) as response:
            return PageResponse(response.status, response.headers, response.cookies, await response.text())

    async def sign_in(self, key: str, return_path: str = "", cookie: str = "", **headers: str) -> PageResponse:
        """Send the form of the sign-in, as a browser does."""
        headers = {"Origin": f"http://{self.host}", "Sec_Fetch_Site": "same-origin", **headers}
        data = {"key": key, "next": return_path}
        return await self.request(f"{self.base_path}/sign-in", "POST", data, cookie, **headers)

    async def cookie_of(self, key: str) -> str:
        """Sign in, and return the cookie's value."""
        response = await self.sign_in(key)
        assert response.status == 303, response.text
        return response.cookies[self.cookie_name].value
