"""The routes that serve scripts for web pages: the beacon, and the one in place of Matomo's."""

import gzip
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from metronome.web.negotiation import accepts_gzip, build_etag, matches_etag
from metronome.web.problems import ALLOW_ANY_ORIGIN

BEACON_PATH: Final = "/metronome.js"
SCRIPT_FILES: Final = {
    BEACON_PATH: "beacon.min.js",
    # A site that changes from Matomo keeps its pages as they are, with all of their calls.
    "/matomo.js": "matomo.min.js",
    "/piwik.js": "matomo.min.js",
}
"""Written by `make docs` from beacon.js and matomo.js."""

_BEACON_HEADERS: Final = {
    # Pages of any origin may embed it, including isolated ones (COEP) and ones that check its hash (SRI).
    **ALLOW_ANY_ORIGIN,
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "public, max-age=3600, must-revalidate",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


class _ScriptVariant(NamedTuple):
    body: bytes
    headers: dict[str, str]


def beacon_routes() -> list[web.RouteDef]:
    """Return the routes of the scripts, such as ``GET /metronome.js``."""
    return [web.get(path, _script_handler(file)) for path, file in SCRIPT_FILES.items()]


def _script_handler(file: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    body = files("metronome.web").joinpath(file).read_bytes()
    compressed = gzip.compress(body, mtime=0)
    plain = _ScriptVariant(body, {**_BEACON_HEADERS, hdrs.ETAG: build_etag(body)})
    gzipped = _ScriptVariant(
        compressed, {**_BEACON_HEADERS, hdrs.ETAG: build_etag(compressed), hdrs.CONTENT_ENCODING: "gzip"}
    )

    async def get_script(request: web.Request) -> web.Response:
        variant = gzipped if accepts_gzip(request) else plain
        if matches_etag(request, variant.headers[hdrs.ETAG]):
            headers = {name: value for name, value in variant.headers.items() if name != hdrs.CONTENT_ENCODING}
            return web.Response(status=304, headers=headers)
        return web.Response(body=variant.body, content_type="text/javascript", charset="utf-8", headers=variant.headers)

    return get_script
