"""Request bodies: read and decompressed, with a limit on their size."""

import asyncio
import contextlib
import re
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from metronome.errors import Malformed, PayloadTooLarge, RequestTimeout, UnsupportedEncoding
from metronome.protocol import FORM_MAX_FIELDS, content_charset
from metronome.web.budget import BODY_BUDGET, PACE_CHECK_SECONDS, SMALL_MAX_BYTES

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
_MULTIPART_CONTENT_TYPE: Final = "multipart/form-data"
_BOUNDARY_PATTERN: Final = re.compile(r';\s*boundary=(?:"([^"]{1,200})"|([^\s;",]{1,200}))', re.IGNORECASE)
_FIELD_NAME_PATTERN: Final = re.compile(
    rb'\r\ncontent-disposition:[ \t]*+form-data[^\r]*?;[ \t]*+name=(?:"([^"\r]*+)"|([^\s;]++))', re.IGNORECASE
)
_WIDE_CHARSETS: Final = ("utf-16", "utf-32")
"""Text in these may be valid UTF-8, with zeros."""
_BODY_TIMEOUT_SECONDS: Final = 60.0
_MAX_ENCODINGS: Final = 4
_THREAD_MIN_BYTES: Final = 64 * 1024
"""Decompressing a smaller body takes less time than handing it to a thread."""
CONTENT_ENCODINGS: Final = ("gzip", "deflate", "zstd")
_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
_DECOMPRESS_CHUNK_BYTES = 16 * 1024
"""How much is passed to a decompressor at once: it copies what it does not use, for each member."""
_MAX_MEMBERS = 10_000
"""Each member costs a new decompressor: a million members of nine bytes would take half a minute."""


def decompress(body: bytes, encoding: str, max_bytes: int, bytes_per_extra_member: int = 0) -> bytes:
    """Decompress a body within a limit of memory.

    Args:
        body: one compressed member, or several in sequence.
        encoding: one of `CONTENT_ENCODINGS`, or ``x-gzip``.
        max_bytes: maximum size, decompressed.
        bytes_per_extra_member: for senders that compress few events at a time: one more member is accepted for each
            of so many decompressed bytes.

    Raises:
        PayloadTooLarge: the decompressed body is too large.
        UnsupportedEncoding: the encoding is unknown.
        Malformed: the body is invalid in that encoding, incomplete, or has too many members.

    """
    try:
        match encoding:
            case "gzip" | "x-gzip":
                return _inflate(body, _GZIP_WINDOW_BITS, max_bytes, bytes_per_extra_member)
            case "deflate":
                return _decompress_deflate(body, max_bytes)
            case "zstd":
                return _decompress_members(body, ZstdDecompressor, max_bytes, bytes_per_extra_member)
    except (zlib.error, ZstdError) as error:
        raise Malformed(f"the body is not valid {encoding}: {error}") from None
    raise UnsupportedEncoding(
        f"unsupported Content-Encoding {encoding[:40]!r}: expected one of {', '.join(CONTENT_ENCODINGS)}"
    )


def body_too_large(max_bytes: int) -> PayloadTooLarge:
    """Return the error for a body that is too large, compressed or decompressed."""
    return PayloadTooLarge(
        f"the body is over body_max_bytes ({max_bytes} bytes, decompressed): send less at once, or raise that setting"
    )


def _inflate(body: bytes, window: int, max_bytes: int, bytes_per_extra_member: int = 0) -> bytes:
    return _decompress_members(body, lambda: zlib.decompressobj(window), max_bytes, bytes_per_extra_member)


def _decompress_members(
    body: bytes,
    new_decompressor: Callable[[], "zlib._Decompress | ZstdDecompressor"],
    max_bytes: int,
    bytes_per_extra_member: int,
) -> bytes:
    parts: list[bytes] = []
    remaining, position, data = max_bytes, 0, memoryview(body)
    members = 0
    while position < len(data):
        members += 1
        extra_members = (max_bytes - remaining) // bytes_per_extra_member if bytes_per_extra_member else 0
        if members > _MAX_MEMBERS + extra_members:
            raise Malformed(f"the body has over {_MAX_MEMBERS} compressed members: compress it as one")
        decompressor = new_decompressor()
        while not decompressor.eof:
            chunk = data[position : position + _DECOMPRESS_CHUNK_BYTES]
            if not chunk:
                raise Malformed("the compressed body is incomplete")
            part = decompressor.decompress(chunk, remaining + 1)
            remaining -= len(part)
            if remaining < 0:
                raise body_too_large(max_bytes)
            parts.append(part)
            position += len(chunk)
        position -= len(decompressor.unused_data)
    return b"".join(parts)


def _decompress_deflate(body: bytes, max_bytes: int) -> bytes:
    """Decompress the zlib format, which ``deflate`` means, or raw deflate, which some clients send by mistake."""
    try:
        return _inflate(body, zlib.MAX_WBITS, max_bytes)
    except zlib.error:
        return _inflate(body, -zlib.MAX_WBITS, max_bytes)


def _to_utf8(body: bytes, charset: str) -> bytes:
    """Return a text as UTF-8, without a byte order mark; in UTF-8 already, or invalid in its charset, as it is."""
    if charset and (charset.startswith(_WIDE_CHARSETS) or not _is_utf8(body)):
        with contextlib.suppress(UnicodeError):
            body = body.decode(charset).encode()
    return body.removeprefix(BOM_UTF8)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """Read and decompress the body of a request, and recode it to UTF-8 if its content type has another charset.

    A UTF-8 byte order mark, which programs on Windows write, is removed.

    Args:
        request: of an application that does not decompress bodies itself.
        max_bytes: maximum size, compressed and decompressed.

    Raises:
        PayloadTooLarge: the body is too large.
        RequestTimeout: the body did not arrive in time.
        MemoryLimitReached: the bodies of other requests take all memory.
        UnsupportedEncoding: the Content-Encoding is not one of `CONTENT_ENCODINGS`.
        Malformed: the body is incomplete, or invalid in its Content-Encoding.

    """
    length = request.content_length
    if length is not None and length > max_bytes:
        raise body_too_large(max_bytes)
    try:
        if request.content.is_eof():
            body = await request.read()
        else:
            async with asyncio.timeout(_BODY_TIMEOUT_SECONDS):
                body = await _receive_body(request, max_bytes)
    except web.HTTPRequestEntityTooLarge as error:
        _release_frames(error)
        raise body_too_large(max_bytes) from None
    except TimeoutError as error:
        _release_frames(error)
        raise RequestTimeout(f"the body did not arrive within {_BODY_TIMEOUT_SECONDS:.0f} seconds") from None
    except (ConnectionError, web.RequestPayloadError) as error:
        _release_frames(error)
        raise Malformed("the connection closed before the body was complete") from None
    encoding = request.headers.get("Content-Encoding")
    if encoding is not None:
        body = await _decode_body(request, body, encoding, max_bytes)
    return _to_utf8(body, content_charset(request.headers))


async def _decode_body(request: web.Request, body: bytes, encodings: str, max_bytes: int) -> bytes:
    names = [name.strip().lower() for name in encodings.split(",")]
    if len(names) > _MAX_ENCODINGS:
        raise UnsupportedEncoding(f"the body has {len(names)} encodings: use at most {_MAX_ENCODINGS}")
    for name in reversed(names):
        if name in {"", "identity"}:
            continue
        if len(body) < _THREAD_MIN_BYTES:
            decompressed = decompress(body, name, max_bytes)
        else:
            decompressed = await asyncio.to_thread(decompress, body, name, max_bytes)
        if len(decompressed) > SMALL_MAX_BYTES and (budget := request.app.get(BODY_BUDGET)) is not None:
            budget.open(request).resize(len(body) + len(decompressed))
        body = decompressed
    return body


async def _receive_body(request: web.Request, max_bytes: int) -> bytes:
    """Return a body that has not arrived as a whole, within the budget of all requests.

    Raises:
        PayloadTooLarge: it is too large.
        MemoryLimitReached: other requests take all memory.
        RequestTimeout: it arrives slowly while memory is short.

    """
    budget = request.app.get(BODY_BUDGET)
    lease = None if budget is None else budget.open(request)
    content, body = request.content, bytearray()
    while True:
        try:
            async with asyncio.timeout(PACE_CHECK_SECONDS):
                chunk = await content.readany()
        except TimeoutError:
            chunk = None
        if chunk == b"":
            return bytes(body)
        body += chunk or b""
        if len(body) > max_bytes:
            raise body_too_large(max_bytes)
        if lease is not None:
            lease.resize(len(body))
            lease.check_pace()


async def read_form_body(request: web.Request, max_bytes: int) -> tuple[bytes, str]:
    """Read a body as `read_body` does, and convert a multipart form to a URL-encoded one.

    Returns:
        The body and its media type in lower case, without parameters; it may be empty.

    """
    body = await read_body(request, max_bytes)
    header = request.headers.get("Content-Type", "")
    media_type = header.partition(";")[0].strip().lower()
    if media_type != _MULTIPART_CONTENT_TYPE:
        return body, media_type
    return flatten_multipart_form(body, header), FORM_CONTENT_TYPE


def flatten_multipart_form(body: bytes, content_type: str) -> bytes:
    """Return a multipart form (RFC 7578) as a URL-encoded one; a file is the value of its field.

    Args:
        body: of the request.
        content_type: the header, with the boundary.

    Raises:
        Malformed: the body is not a multipart form with this boundary.
        PayloadTooLarge: it has too many fields.

    """
    match = _BOUNDARY_PATTERN.search(content_type)
    boundary = b"\r\n--" + (match[1] or match[2]).encode(errors="replace") if match else b""
    # The first boundary has no line before it.
    head, *parts = (b"\r\n" + body).split(boundary, FORM_MAX_FIELDS + 2) if boundary else [b""]
    if not parts or len(head) == len(body) + 2:
        raise Malformed("the body is not a multipart form with the boundary in its Content-Type")
    if len(parts) > FORM_MAX_FIELDS + 1:
        raise PayloadTooLarge(f"over {FORM_MAX_FIELDS} fields: send fewer")
    pairs: list[tuple[bytes, bytes]] = []
    for part in parts:
        if part.startswith(b"--"):
            break
        headers, separator, value = part.partition(b"\r\n\r\n")
        name = _FIELD_NAME_PATTERN.search(headers)
        if not separator or name is None:
            raise Malformed("a part of the multipart form has no name")
        # Browsers encode these characters, and no other.
        field = (name[1] or name[2] or b"").replace(b"%22", b'"').replace(b"%0D", b"\r").replace(b"%0A", b"\n")
        pairs.append((field, value))
    else:
        raise Malformed("the multipart form is incomplete")
    return urlencode(pairs).encode()


def _release_frames(error: BaseException) -> None:
    """Clear the tracebacks of an error, of its causes and of its contexts.

    aiohttp keeps the error of a broken connection in the request's stream. Its traceback refers to the frames that
    read the stream, and these to the request and to all of the body that has arrived: a cycle that only a full
    garbage collection frees.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = None
        pending += (current.__cause__, current.__context__)
