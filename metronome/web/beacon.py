"""The route that serves the beacon, the script for web pages."""

import gzip
from importlib.resources import files
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from metronome.web.negotiation import accepts_gzip, build_etag, matches_etag
from metronome.web.problems import ALLOW_ANY_ORIGIN

BEACON_PATH: Final = "/metronome.js"

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
    """Return the route ``GET /metronome.js``."""
    # Written by `make docs` from beacon.js.
    body = files("metronome.web").joinpath("beacon.min.js").read_bytes()
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

    return [web.get(BEACON_PATH, get_script)]
