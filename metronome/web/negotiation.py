"""HTTP negotiation: media types, compression, and responses that a client may cache and revalidate."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import IO, Final, NamedTuple

from aiohttp import hdrs, web

from metronome.web.problems import ALLOW_ANY_ORIGIN

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_GZIP_NAMES: Final = frozenset({"gzip", "x-gzip"})
_ZERO_WEIGHT_PATTERN: Final = re.compile(r"q\s*=\s*0(\.0*)?", re.ASCII)


class Content(NamedTuple):
    """The content of a successful response.

    Attributes:
        body: the encoded content; a file is sent in pieces, needs an ``ETag`` in *headers*, and is closed.
        media_type: without parameters.
        charset: of a text.
        headers: additional headers; they replace default ones of the same name.

    """

    body: bytes | IO[bytes]
    media_type: str = "application/json"
    charset: str | None = None
    headers: Mapping[str, str] = _NO_HEADERS


def negotiate_media_type(request: web.Request, available: Sequence[str]) -> str:
    """Return the first media type of the ``Accept`` headers that is available, else the first available one.

    Weights and wildcards are ignored.
    """
    for value in request.headers.getall(hdrs.ACCEPT, ()):
        for media_range in value.split(","):
            media_type = media_range.partition(";")[0].strip().lower()
            if media_type in available:
                return media_type
    return available[0]


def accepts_gzip(request: web.Request) -> bool:
    """Return whether the client accepts a response compressed with gzip."""
    for coding in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() in _GZIP_NAMES:
            return _ZERO_WEIGHT_PATTERN.fullmatch(weight.strip()) is None
    return False


def build_etag(body: bytes) -> str:
    """Return a strong entity tag of a body."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def matches_etag(request: web.Request, etag: str) -> bool:
    """Return whether ``If-None-Match`` names an entity tag, by weak comparison (RFC 9110, section 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get(hdrs.IF_NONE_MATCH, "").split(",")]
    return etag.removeprefix("W/") in known or known == ["*"]


def cached_response(request: web.Request, content: Content, *, compress: bool = False) -> web.Response:
    """Return a response that caches must revalidate; 304 without a body if the client has this content.

    Args:
        request: the request.
        content: what to send.
        compress: whether to compress the body with gzip if the client accepts that.

    """
    etag = build_etag(content.body) if isinstance(content.body, bytes) else content.headers[hdrs.ETAG]
    headers = {**ALLOW_ANY_ORIGIN, hdrs.ETAG: etag, hdrs.CACHE_CONTROL: "no-cache", **content.headers}
    if compress:
        headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        compress = accepts_gzip(request)
        if compress:
            # Weak: the compressed body has other bytes.
            headers[hdrs.ETAG] = f"W/{etag}"
    if matches_etag(request, etag):
        if not isinstance(content.body, bytes):
            content.body.close()
        return web.Response(status=304, headers=headers)
    response = _build_response(content, headers)
    if compress:
        response.enable_compression(web.ContentCoding.gzip)
    return response


def uncached_response(_request: web.Request, content: Content) -> web.Response:
    """Return a response that no cache may keep."""
    return _build_response(content, {**ALLOW_ANY_ORIGIN, hdrs.CACHE_CONTROL: "no-store", **content.headers})


def _build_response(content: Content, headers: Mapping[str, str]) -> web.Response:
    return web.Response(body=content.body, content_type=content.media_type, charset=content.charset, headers=headers)
