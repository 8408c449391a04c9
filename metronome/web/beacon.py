"""The route of the beacon, the script by which pages in browsers send what happens on them."""

import gzip
import hashlib
import re
from importlib.resources import files
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from rjsmin import jsmin

from metronome.web.problems import ALLOW_ANY_ORIGIN

BEACON_PATH: Final = "/metronome.js"

_BEACON_HEADERS: Final = {
    # Pages of any origin embed it, those too that isolate themselves (COEP) or check what they embed (SRI).
    **ALLOW_ANY_ORIGIN,
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "public, max-age=3600, must-revalidate",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
_ACCEPTS_GZIP_PATTERN: Final = re.compile(
    r"(?:^|[\s,])(?:x-)?gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[^,]*)?(?:,|$)", re.IGNORECASE
)


class _ScriptVariant(NamedTuple):
    """One of the forms in which the script is served."""

    body: bytes
    etag: str
    encoding: str | None


def build_script() -> bytes:
    """Return the script as it is served: without comments and white space, all names as they are in its source."""
    source = files("metronome.web").joinpath("beacon.js").read_text(encoding="utf-8")
    return str(jsmin(source)).encode()


def beacon_routes() -> list[web.RouteDef]:
    """List the route that answers ``GET /metronome.js``."""
    body = build_script()
    digest = hashlib.blake2b(body, digest_size=12).hexdigest()
    plain = _ScriptVariant(body, f'"{digest}"', None)
    packed = _ScriptVariant(gzip.compress(body, mtime=0), f'"{digest}-gzip"', "gzip")

    async def handle(request: web.Request) -> web.Response:
        form = packed if _ACCEPTS_GZIP_PATTERN.search(request.headers.get(hdrs.ACCEPT_ENCODING, "")) else plain
        headers = {**_BEACON_HEADERS, hdrs.ETAG: form.etag}
        known = request.headers.get(hdrs.IF_NONE_MATCH, "")
        if form.etag in known or known.strip() == "*":
            return web.Response(status=304, headers=headers)
        if form.encoding is not None:
            headers[hdrs.CONTENT_ENCODING] = form.encoding
        return web.Response(body=form.body, content_type="text/javascript", charset="utf-8", headers=headers)

    return [web.get(BEACON_PATH, handle)]
