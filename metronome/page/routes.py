"""The routes of the page: overview, items, whole tables, the live part, embeds, sign-in, and the files they load.

Errors of these routes are pages, too. Requests may have a sign-in's cookie (see `metronome.page.sign_in`) or, as for
reports, a key in ``Authorization``.
"""

import asyncio
import contextlib
import gzip
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import structlog
from aiohttp import hdrs, web

from metronome.auth.authorizer import Permissions
from metronome.auth.client_address import check_same_origin
from metronome.demo import load_demo
from metronome.errors import (
    Forbidden,
    Malformed,
    MetronomeError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    QueryTooExpensive,
    Unauthorized,
)
from metronome.intake import Intake
from metronome.page import render
from metronome.page.embed import build_embed
from metronome.page.item import build_item_page
from metronome.page.live import build_live
from metronome.page.model import Embed, Page, TablePage, Viewer
from metronome.page.overview import build_overview, build_table_page, is_empty
from metronome.page.recent import RecentPage, RecentPages
from metronome.page.render import Site
from metronome.page.sign_in import (
    SignIns,
    delete_cookie,
    read_cookie,
    safe_return_path,
    set_cookie,
)
from metronome.page.tables import CSV_MAX_ROWS, build_table, table_csv, table_needs_query
from metronome.page.titles import Titles
from metronome.page.view import View, parse_view
from metronome.protocol import bearer_token, http_error_headers, parse_form
from metronome.reports.query.names import FieldChecker
from metronome.reports.recommendations import MIN_VISITORS
from metronome.scopes import Scope
from metronome.state.base import State
from metronome.web.bodies import read_body
from metronome.web.handlers import Handler, QueryContext, parse_item_id
from metronome.web.limits import PAGE_LIMITS, ConcurrencyLimiter
from metronome.web.negotiation import accepts_gzip, build_etag, matches_etag
from metronome.web.problems import ALLOW_ANY_ORIGIN, problem_response

log = structlog.get_logger()

_COMPUTE_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 15.0
"""Together less than the minute that a worker waits for the main process."""
_DEMO_STORE_SECONDS: Final = 20.0
"""How long to wait until the whole demo is in the store."""
_DEMO_POLL_SECONDS: Final = 0.1
_GZIP_LEVEL: Final = 6
_FORM_MAX_BYTES: Final = 16_384
_LOGGED_CHARACTERS: Final = 200
_HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)
_SECURITY_HEADERS: Final = {
    "Content-Security-Policy": render.CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
_EMBED_HEADERS: Final = {
    **{name: value for name, value in _SECURITY_HEADERS.items() if name != "X-Frame-Options"},
    "Content-Security-Policy": render.EMBED_CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_ERROR_TITLES: Final = {
    400: "This view cannot be shown",
    401: "A key is needed",
    403: "Not allowed",
    404: "Nothing is here",
    408: "The request took too long",
    413: "The request is too large",
    500: "This should not happen",
    503: "Not available at the moment",
}


_PAGE_ADVICE: Final[Mapping[type[MetronomeError], str]] = {
    Forbidden: "",
    NotFound: "start from the overview",
    QueryTooExpensive: "choose a shorter range or an item",
}
"""What to do about errors whose own advice is for programs."""
_OPERATOR_ADVICE: Final = "If you run this server: its log and /health/ready say why."
_KEY_STATUSES: Final = frozenset({401, 403})
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Access:
    """What a request to the page may do.

    Attributes:
        permissions: its scopes, and the name of its key.
        is_signed_in: whether it has the cookie of a sign-in that has not ended.
        has_key: whether it has a key in ``Authorization``.

    """

    permissions: Permissions
    is_signed_in: bool = False
    has_key: bool = False

    def require(self, scope: Scope) -> None:
        """Check a scope.

        Raises:
            Unauthorized: a key is needed.
            Forbidden: the key does not have the scope.

        """
        if scope in self.permissions.scopes:
            return
        if self.is_signed_in or self.has_key:
            raise Forbidden(f"the key {self.permissions.key_name!r} does not have the scope {scope}: use one that has")
        raise Unauthorized(f"a key with the scope {scope} is needed")


class PageRoutes:
    """The routes of the page.

    Args:
        context: the context of reports.
        state: stores sign-ins.
        base_path: precedes all paths; empty, or such as ``/metronome``. Requests come without it.
        intake: where the demo's events go; None where this process accepts no events, and offers no demo.
        min_visitors: minimum number of shared visitors of an item that is also viewed.

    """

    def __init__(
        self,
        context: QueryContext,
        state: State,
        base_path: str = "",
        intake: Intake | None = None,
        min_visitors: int = MIN_VISITORS,
    ) -> None:
        self._context = context
        self._intake = intake
        self._demo: asyncio.Task[int] | None = None
        self._demo_lock = asyncio.Lock()
        self._base_path = base_path
        self._min_visitors = min_visitors
        self._sign_ins = SignIns(state, context.authorizer, context.clock)
        self._field_checker = FieldChecker(context.store)
        self._titles = Titles(context.store)
        self._recent = RecentPages(context.store_version, deletions=context.deletions)
        self._limiter = ConcurrencyLimiter(PAGE_LIMITS)
        self.overview: Final[Handler] = self._handler(self._get_overview)
        """The handler of ``GET /``, which is also an endpoint of Matomo's API."""

    def routes(self) -> list[web.RouteDef]:
        """Return all routes but that of the overview."""
        handler = self._handler
        return [
            web.get(r"/items/{id:[\s\S]+}", handler(self._get_item)),
            web.get(r"/tables/{key:[a-z-]+}.csv", handler(self._get_table_csv)),
            web.get("/tables/{key}", handler(self._get_table)),
            web.get("/live", handler(self._get_live, redirect=False)),
            web.get(r"/embed/{id:[\s\S]+}", handler(self._get_embed, redirect=False)),
            web.get("/sign-in", handler(self._get_sign_in)),
            web.post("/sign-in", handler(self._post_sign_in)),
            web.post("/sign-out", handler(self._post_sign_out)),
            *([] if self._intake is None else [web.post("/demo", handler(partial(self._post_demo, self._intake)))]),
            *file_routes(),
        ]

    # Pages of numbers.

    async def _get_overview(self, request: web.Request) -> web.StreamResponse:
        return await self._show_page(request, None, build_overview)

    async def _get_item(self, request: web.Request) -> web.StreamResponse:
        build = partial(build_item_page, min_visitors=self._min_visitors)
        return await self._show_page(request, parse_item_id(request, "/items/"), build)

    async def _show_page(
        self, request: web.Request, item: str | None, build: Callable[..., Awaitable[Any]]
    ) -> web.StreamResponse:
        access, view, pending = await self._parse(request, item=item)
        viewer = self._viewer(request, access)

        async def compute() -> Any:
            page = await build(self._context.store, self._field_checker, view, viewer, view.now)
            return replace(await self._titles.add_to_page(page), notices=pending_notices(pending))

        return await self._respond(request, access, "page", compute, render.render_page)

    async def _get_table(self, request: web.Request) -> web.StreamResponse:
        access, view, pending = await self._parse(request, table=request.match_info["key"])
        viewer = self._viewer(request, access)

        async def compute() -> Any:
            page = await build_table_page(self._context.store, self._field_checker, view, viewer, view.now)
            return replace(await self._titles.add_to_table_page(page), notices=pending_notices(pending))

        return await self._respond(request, access, "page_table", compute, render.render_table_page)

    async def _get_table_csv(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        access, view, _ = await self._parse(request, table=key)
        viewer = self._viewer(request, access)

        async def compute() -> Any:
            table = await build_table(
                self._context.store, self._field_checker, view, viewer, view.now, limit=CSV_MAX_ROWS, has_links=False
            )
            if table.total is not None and table.total > CSV_MAX_ROWS:
                raise QueryTooExpensive(f"the table has {table.total:,} rows: over the limit of {CSV_MAX_ROWS:,}")
            return table

        headers: dict[str, str] = {
            hdrs.CONTENT_TYPE: "text/csv; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{key}.csv"',
        }
        return await self._respond(
            request, access, "page_table", compute, lambda table, *_: table_csv(table), headers=headers
        )

    async def _get_live(self, request: web.Request) -> web.StreamResponse:
        access, view, _ = await self._parse(request)
        viewer = self._viewer(request, access)

        async def compute() -> Any:
            return self._titles.add_to_live(await build_live(self._context.store, view, viewer, view.now))

        headers: dict[str, str] = {hdrs.CACHE_CONTROL: "no-store"}
        return await self._respond(
            request, access, "page_live", compute, lambda live, site, _: render.render_live(live, site), headers=headers
        )

    async def _get_embed(self, request: web.Request) -> web.StreamResponse:
        query, theme = _take_parameter(request.rel_url.raw_query_string, "theme")
        access, view, _ = await self._parse(request, item=parse_item_id(request, "/embed/"), query=query)

        async def compute() -> Any:
            return await build_embed(self._context.store, view, view.now)

        return await self._respond(
            request,
            access,
            "page_embed",
            compute,
            lambda embed, site, _: render.render_embed(embed, site, theme),
            security_headers=_EMBED_HEADERS,
        )

    async def _parse(
        self, request: web.Request, *, item: str | None = None, table: str = "", query: str | None = None
    ) -> tuple[Access, View, int]:
        """Return what a request may do, the view that it is for, and how many accepted events it may not show yet."""
        access = await self._access(request)
        self._context.check_rate(request, access.permissions)
        access.require(Scope.TOCK)
        query = request.rel_url.raw_query_string if query is None else query
        view = parse_view(query, self._context.now(), item=item, table=table, base_path=self._base_path)
        if table_needs_query(view) if table else view.needs_query:
            access.require(Scope.QUERY)
        # Before the page takes a slot of expensive queries.
        pending = await self._context.wait_for(() if view.item is None else (view.item,))
        return access, view, pending

    async def _respond(
        self,
        request: web.Request,
        access: Access,
        name: str,
        compute: Callable[[], Awaitable[Any]],
        render_content: Callable[[Any, Site, datetime], str | bytes],
        headers: Mapping[str, str] = _NO_HEADERS,
        security_headers: Mapping[str, str] = _SECURITY_HEADERS,
    ) -> web.Response:
        """Return the response with a page, computed now or a moment ago; if the store is unavailable, the last one.

        Args:
            request: the request.
            access: what it may do.
            name: label of the page in ``metronome_answer_seconds``.
            compute: returns the content.
            render_content: renders the content.
            headers: additional headers; they replace those of pages.
            security_headers: what browsers may do with the page.

        """
        may_load_demo = self._intake is not None and Scope.IMPORT in access.permissions.scopes
        site = replace(self._site(request), may_load_demo=may_load_demo)
        viewer = self._viewer(request, access)
        # What is rendered depends on the address, the rights and the public URL.
        is_public = not (access.is_signed_in or access.has_key or Scope.ADMIN in access.permissions.scopes)
        key = (request.rel_url.raw_path_qs, viewer, site)
        page, error = await self._recent.get(
            key, partial(self._compute, name, compute, render_content, site, is_public)
        )
        if error is not None:
            if page.content is None:
                # It cannot say how old it is.
                raise error
            _log_error(error)
            if not isinstance(page.content, Embed):
                content = replace(page.content, stale_since=page.content.computed_at)
                page = await asyncio.to_thread(_render, content, render_content, site, self._context.now())
        return _page_response(request, page, {**security_headers, **_cache_headers(access), **headers})

    async def _compute(
        self,
        name: str,
        compute: Callable[[], Awaitable[Any]],
        render_content: Callable[[Any, Site, datetime], str | bytes],
        site: Site,
        is_public: bool,  # noqa: FBT001  # bound by position
    ) -> RecentPage:
        with self._context.telemetry.report_seconds.labels(name).time():
            async with self._slot(is_public=is_public):
                try:
                    async with asyncio.timeout(_COMPUTE_SECONDS):
                        content = await compute()
                except TimeoutError:
                    raise QueryTooExpensive(f"computing the page took over {_COMPUTE_SECONDS:g} s") from None
            # Rendering takes some milliseconds, in which this process should accept events.
            return await asyncio.to_thread(_render, content, render_content, site, self._context.now())

    @contextlib.asynccontextmanager
    async def _slot(self, *, is_public: bool) -> AsyncIterator[None]:
        """Hold a slot for expensive queries; all pages together hold at most one, so that reports have the other."""
        async with contextlib.AsyncExitStack() as slots:
            try:
                async with asyncio.timeout(_WAIT_SECONDS):
                    await slots.enter_async_context(self._limiter.acquire())
                    await slots.enter_async_context(self._context.slots.acquire(is_public=is_public))
            except TimeoutError:
                raise Overloaded(f"timed out after waiting {_WAIT_SECONDS:g} s for other queries") from None
            yield

    # The demo.

    async def _post_demo(self, intake: Intake, request: web.Request) -> web.StreamResponse:
        """Load the demo if the store is empty, and show it; a repeated request waits for the first one."""
        check_same_origin(request)
        (await self._access(request)).require(Scope.IMPORT)
        async with self._demo_lock:
            if self._demo is None or (self._demo.done() and self._demo.exception() is not None):
                if await is_empty(self._context.store):
                    self._demo = asyncio.create_task(load_demo(intake, self._context.now()))
                else:
                    raise Malformed(
                        "the store has events already, and the demo's cannot be removed again; use another server, "
                        "such as that of `metronome serve --demo`"
                    )
        # The demo is loaded even if the client does not wait for it.
        await asyncio.shield(self._demo)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEMO_STORE_SECONDS):
                while await self._context.wait_for():  # noqa: ASYNC110  # it waits, too
                    await asyncio.sleep(_DEMO_POLL_SECONDS)
        return _redirect(f"{self._base_path}/")

    # Signing in and out.

    async def _get_sign_in(self, request: web.Request) -> web.StreamResponse:
        return_path = safe_return_path(request.query.get("next", ""), self._base_path)
        if self._is_unrestricted(request):
            return _redirect(return_path)
        return _html_response(render.render_sign_in(self._site(request), return_path), HTTPStatus.OK)

    async def _post_sign_in(self, request: web.Request) -> web.StreamResponse:
        check_same_origin(request)
        self._context.check_rate(request, self._context.authorizer.public_permissions)
        form = await _read_form(request)
        return_path = safe_return_path(form.get("next", ""), self._base_path)
        token = form.get("key", "").strip()
        authorizer = self._context.authorizer
        try:
            key = await authorizer.find_key(token)
            if key is None:
                raise Unauthorized("the key is unknown")
            await authorizer.authorize(
                Scope.TOCK,
                token,
                request.headers.get(hdrs.ORIGIN, ""),
                is_local=self._context.client_address.is_local(request),
            )
        except (Unauthorized, Forbidden) as error:
            self._context.telemetry.count_rejection(error)
            text = render.render_sign_in(self._site(request), return_path, _sentence(str(error)))
            return _html_response(text, error.http_status, http_error_headers(error))
        await self._sign_ins.end(read_cookie(request))
        response = _redirect(return_path)
        is_secure = self._scheme(request) == "https"
        set_cookie(request, response, await self._sign_ins.start(key), self._base_path, secure=is_secure)
        return response

    async def _post_sign_out(self, request: web.Request) -> web.StreamResponse:
        check_same_origin(request)
        await self._sign_ins.end(read_cookie(request))
        response = _redirect(f"{self._base_path}/")
        delete_cookie(request, response, self._base_path)
        return response

    async def _access(self, request: web.Request) -> Access:
        """Return what a request may do.

        Raises:
            Unauthorized: its key in ``Authorization`` is not valid.
            Forbidden: its key is for other origins.
            StoreUnavailable: it has a key or a sign-in that is unknown, and the state cannot be read.

        """
        context, origin = self._context, request.headers.get(hdrs.ORIGIN, "")
        is_local = context.client_address.is_local(request)
        anonymous = Access(context.authorizer.anonymous_permissions(is_local=is_local))
        if self._is_unrestricted(request):
            return anonymous
        if token := bearer_token(request.headers):
            permissions = await context.authorizer.authorize(Scope.TOCK, token, origin, is_local=is_local)
            return Access(permissions, has_key=True)
        if cookie := read_cookie(request):
            key = await self._sign_ins.find_key(cookie)
            if key is not None:
                return Access(context.authorizer.key_permissions(key), is_signed_in=True)
        return anonymous

    def _is_unrestricted(self, request: web.Request) -> bool:
        """Return whether the request may do everything, as before the first key is created."""
        is_local = self._context.client_address.is_local(request)
        permissions = self._context.authorizer.anonymous_permissions(is_local=is_local)
        return Scope.ADMIN in permissions.scopes

    def _viewer(self, request: web.Request, access: Access) -> Viewer:
        return Viewer(
            is_signed_in=access.is_signed_in,
            can_query=Scope.QUERY in access.permissions.scopes,
            sign_in_href=self._sign_in_href(request) if self._context.authorizer.has_keys else "",
        )

    def _sign_in_href(self, request: web.Request) -> str:
        path = self._base_path + request.rel_url.raw_path_qs
        return f"{self._base_path}/sign-in?next={quote(path, safe='/')}"

    def _site(self, request: web.Request) -> Site:
        host = request.host if _HOST_PATTERN.fullmatch(request.host) else "localhost"
        return Site(self._base_path, f"{self._scheme(request)}://{host}{self._base_path}")

    def _scheme(self, request: web.Request) -> str:
        # Browsers tell in each POST by which scheme they sent it, even if the proxy does not.
        if request.headers.get(hdrs.ORIGIN, "").startswith("https://"):
            return "https"
        return self._context.client_address.resolve_scheme(request)

    # Errors.

    def _handler(
        self, handle: Callable[[web.Request], Awaitable[web.StreamResponse]], *, redirect: bool = True
    ) -> Handler:
        """Return a handler that responds to errors with pages.

        Args:
            handle: handles requests.
            redirect: whether a request that needs a key is redirected to the sign-in.

        """

        async def handle_errors(request: web.Request) -> web.StreamResponse:
            try:
                return await handle(request)
            except MetronomeError as error:
                is_navigation = redirect and request.method in {hdrs.METH_GET, hdrs.METH_HEAD}
                if isinstance(error, Unauthorized) and is_navigation and not bearer_token(request.headers):
                    return _redirect(self._sign_in_href(request))
                return self._error_page(request, self._context.count_error(request, error))
            except Exception:
                # A bug: the page says so, instead of an empty response.
                log.exception("page_failed", path=request.path[:_LOGGED_CHARACTERS])
                return self._error_page(request, MetronomeError("an error in Metronome; the log has its details"))

        return handle_errors

    def _error_page(self, request: web.Request, error: MetronomeError) -> web.Response:
        _log_error(error)
        status = error.http_status
        text = render.render_error(
            self._site(request),
            status,
            _ERROR_TITLES.get(status, HTTPStatus(status).phrase),
            _sentence(error.public_message or str(error)),
            _OPERATOR_ADVICE if error.public_message else _sentence(_PAGE_ADVICE.get(type(error), error.advice)),
            Viewer(can_query=False, sign_in_href=self._sign_in_href(request) if status in _KEY_STATUSES else ""),
        )
        return _html_response(text, status, http_error_headers(error))


def pending_notices(pending: int) -> tuple[str, ...]:
    """Return what a page says about accepted events that it may not show yet.

    Args:
        pending: how many there are.

    """
    if not pending:
        return ()
    events = "1 accepted event is" if pending == 1 else f"{pending:,} accepted events are"
    return (f"{events} not counted here yet: load the page again in a moment.",)


def _log_error(error: MetronomeError) -> None:
    if error.public_message:
        log.warning("answered_with_error", kind=type(error).__name__, error=str(error), advice=error.advice)


def accepts_page(request: web.Request) -> bool:
    """Return whether a request is one of a browser that opens an address, or of another client that wants HTML."""
    return request.method in {hdrs.METH_GET, hdrs.METH_HEAD} and "text/html" in request.headers.get(hdrs.ACCEPT, "")


def not_found_page(base_path: str) -> web.Response:
    """Return the response to a browser that opens an address where nothing is."""
    status = HTTPStatus.NOT_FOUND
    detail = "This server has no page at this address."
    return _html_response(render.render_error(Site(base_path), status, _ERROR_TITLES[status], detail), status)


def file_routes() -> list[web.RouteDef]:
    """Return the routes of the files that pages load, and of those that browsers and robots request by themselves."""

    async def get_asset(request: web.Request) -> web.StreamResponse:
        asset = render.ASSETS.get(request.match_info["name"])
        if asset is None:
            return problem_response(NotFound("this version of the page has no such file: load the page again"))
        # The name contains a hash of the content.
        return _file_response(request, asset, "public, max-age=31536000, immutable")

    async def get_icon(request: web.Request) -> web.StreamResponse:
        return _file_response(request, render.ICON, "public, max-age=86400")

    async def get_usage_script(request: web.Request) -> web.StreamResponse:
        # As the beacon: pages of any origin load it.
        headers = {**ALLOW_ANY_ORIGIN, "Cross-Origin-Resource-Policy": "cross-origin"}
        return _file_response(request, usage_script, "public, max-age=3600, must-revalidate", headers)

    async def get_robots(_: web.Request) -> web.StreamResponse:
        return web.Response(text=render.ROBOTS_TXT, headers={hdrs.CACHE_CONTROL: "public, max-age=86400"})

    usage_script = render.read_file("usage.js")
    return [
        web.get("/assets/{name}", get_asset),
        web.get("/favicon.ico", get_icon),
        web.get("/robots.txt", get_robots),
        web.get("/usage.js", get_usage_script),
    ]


def _file_response(
    request: web.Request, asset: render.Asset, cache_control: str, headers: Mapping[str, str] = _NO_HEADERS
) -> web.Response:
    etag = build_etag(asset.body)
    headers = {
        # An SVG that is opened as a page must not run scripts either.
        "Content-Security-Policy": "default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        hdrs.CACHE_CONTROL: cache_control,
        hdrs.ETAG: f"W/{etag}",
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
        **headers,
    }
    if matches_etag(request, etag):
        return web.Response(status=304, headers=headers)
    headers[hdrs.CONTENT_TYPE] = _with_charset(asset.content_type)
    if accepts_gzip(request):
        return web.Response(body=asset.gzipped, headers={**headers, hdrs.CONTENT_ENCODING: "gzip"})
    return web.Response(body=asset.body, headers=headers)


def _with_charset(content_type: str) -> str:
    return f"{content_type}; charset=utf-8" if content_type.startswith("text/") else content_type


def _render(
    content: Any, render_content: Callable[[Any, Site, datetime], str | bytes], site: Site, now: datetime
) -> RecentPage:
    rendered = render_content(content, site, now)
    body = rendered.encode() if isinstance(rendered, str) else rendered
    # What a large file was rendered from takes many times as much memory.
    kept = content if isinstance(content, Page | TablePage | Embed) else None
    is_fresh = getattr(content, "stored_events", True) and not getattr(content, "notices", ())
    return RecentPage(kept, body, gzip.compress(body, _GZIP_LEVEL, mtime=0), build_etag(body), is_fresh)


def _page_response(request: web.Request, page: RecentPage, headers: Mapping[str, str]) -> web.Response:
    headers = {
        hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
        hdrs.VARY: "Accept-Encoding, Cookie",
        hdrs.ETAG: f"W/{page.etag}",
        **headers,
    }
    if matches_etag(request, page.etag):
        return web.Response(status=304, headers=headers)
    if accepts_gzip(request):
        return web.Response(body=page.gzipped, headers={**headers, hdrs.CONTENT_ENCODING: "gzip"})
    return web.Response(body=page.body, headers=headers)


def _cache_headers(access: Access) -> dict[str, str]:
    """Return how long a page may be kept: not at all if it needed a key, so that it is gone after signing out."""
    return {hdrs.CACHE_CONTROL: "no-store" if access.is_signed_in or access.has_key else "private, no-cache"}


def _html_response(text: str, status: int, headers: Mapping[str, str] = _NO_HEADERS) -> web.Response:
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        headers={**_SECURITY_HEADERS, hdrs.CACHE_CONTROL: "no-store", **headers},
    )


def _redirect(path: str) -> web.Response:
    """Return a redirect to a path of this server; the next request is a GET."""
    return web.Response(status=303, headers={hdrs.LOCATION: path, hdrs.CACHE_CONTROL: "no-store"})


async def _read_form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        Malformed: it is not a form in UTF-8.
        PayloadTooLarge: it is too large.

    """
    body = await read_body(request, _FORM_MAX_BYTES)
    if len(body) > _FORM_MAX_BYTES:
        raise PayloadTooLarge(f"the form is over {_FORM_MAX_BYTES} bytes")
    try:
        return dict(parse_form(body.decode()))
    except UnicodeDecodeError:
        raise Malformed("the form is not valid UTF-8") from None


def _take_parameter(query: str, name: str) -> tuple[str, str]:
    """Return a query string without a parameter, and the parameter's value; empty for none."""
    parts = query.split("&") if query else []
    values = [part.partition("=")[2] for part in parts if part.partition("=")[0] == name]
    return "&".join(part for part in parts if part.partition("=")[0] != name), values[0] if values else ""


def _sentence(text: str) -> str:
    """Return a message of an error as a sentence."""
    return (
        f"{text[:1].upper()}{text[1:]}." if text and not text.endswith((".", "!", "?")) else text[:1].upper() + text[1:]
    )
