"""Request bodies: read with a cap, and freed of their Content-Encoding with a cap on what comes out.

Compressed bytes, decoded with a cap on what comes out.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Final

from metronome.errors import Malformed, PayloadTooLarge, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError
import asyncio

from aiohttp import web

from metronome.errors import RequestTimeout

CONTENT_ENCODINGS: Final = ("gzip", "deflate", "zstd")
_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
_DECOMPRESS_CHUNK_BYTES = 16 * 1024
"""What is decoded at a time: what a decoder leaves of it is copied, once for each compressed part."""
_MAX_MEMBERS = 10_000
"""A decoder for each costs more than what is in it: a million of nine bytes would take half a minute."""


def decompress(body: bytes, encoding: str, max_bytes: int, bytes_per_extra_member: int = 0) -> bytes:
    """Decode what is compressed, taking no more memory than it may.

    Args:
        body: one compressed part, or several, one behind the other.
        encoding: one of `CONTENT_ENCODINGS`, or ``x-gzip``.
        max_bytes: how large it may be, decoded.
        bytes_per_extra_member: where senders compress each few events apart: so many decoded bytes let one more part
        be.

    Raises:
        PayloadTooLarge: it is larger.
        UnsupportedEncoding: its encoding is none of these.
        Malformed: it is not in that encoding, breaks off, or is in too many parts.

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
        raise Malformed(f"the body is no {encoding}: {error}") from None
    raise UnsupportedEncoding(
        f"Content-Encoding {encoding[:40]!r} is not spoken here, {', '.join(CONTENT_ENCODINGS)} are"
    )


def body_too_large(max_bytes: int) -> PayloadTooLarge:
    """Return the error of a body that is too large, plain or decoded."""
    return PayloadTooLarge(f"the body is over body_max_bytes ({max_bytes} bytes, decoded)")


def _inflate(body: bytes, window: int, max_bytes: int, bytes_per_extra_member: int = 0) -> bytes:
    return _decompress_members(body, lambda: zlib.decompressobj(window), max_bytes, bytes_per_extra_member)


def _decompress_members(
    body: bytes,
    new_decompressor: Callable[[], "zlib._Decompress | ZstdDecompressor"],
    max_bytes: int,
    bytes_per_extra_member: int,
) -> bytes:
    """Decode what may be several compressed parts, one behind the other."""
    parts: list[bytes] = []
    left, at, whole = max_bytes, 0, memoryview(body)
    decoders = 0
    while at < len(whole):
        decoders += 1
        if decoders > _MAX_MEMBERS + ((max_bytes - left) // bytes_per_extra_member if bytes_per_extra_member else 0):
            raise Malformed(f"the body is in over {_MAX_MEMBERS} compressed parts: compress it as one")
        decoder = new_decompressor()
        while not decoder.eof:
            step = whole[at : at + _DECOMPRESS_CHUNK_BYTES]
            if not step:
                raise Malformed("the compressed body breaks off: send it again, whole")
            part = decoder.decompress(step, left + 1)
            left -= len(part)
            if left < 0:
                raise body_too_large(max_bytes)
            parts.append(part)
            at += len(step)
        at -= len(decoder.unused_data)
    return b"".join(parts)


def _decompress_deflate(body: bytes, max_bytes: int) -> bytes:
    """Decode zlib's format, which ``deflate`` means, or the raw one that some send by mistake."""
    try:
        return _inflate(body, zlib.MAX_WBITS, max_bytes)
    except zlib.error:
        return _inflate(body, -zlib.MAX_WBITS, max_bytes)


_BODY_TIMEOUT_SECONDS = 60.0
_MAX_ENCODINGS = 4
_THREAD_MIN_BYTES = 64 * 1024
"""Smaller bodies are decoded sooner than a thread takes them over."""


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """Read and decode the body of a request.

    Args:
        request: the server must not decode it itself.
        max_bytes: how large it may be, as it comes and decoded.

    Raises:
        PayloadTooLarge: it is larger.
        RequestTimeout: it does not come.
        UnsupportedEncoding: its Content-Encoding is none of `metronome.web.bodies.ENCODINGS`.
        Malformed: it is not what its Content-Encoding says.

    """
    try:
        if request.content.is_eof():
            body = await request.read()
        else:
            async with asyncio.timeout(_BODY_TIMEOUT_SECONDS):
                body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        _release_frames(error)
        raise body_too_large(max_bytes) from None
    except TimeoutError as error:
        _release_frames(error)
        raise RequestTimeout(f"the body did not come within {_BODY_TIMEOUT_SECONDS:.0f} seconds") from None
    except (ConnectionError, web.RequestPayloadError) as error:
        _release_frames(error)
        raise Malformed("the body breaks off: send it again, whole") from None
    encoding = request.headers.get("Content-Encoding")
    if encoding is None:
        return body
    names = [name.strip().lower() for name in encoding.split(",")]
    if len(names) > _MAX_ENCODINGS:
        raise UnsupportedEncoding(f"the body is encoded {len(names)} times over, and {_MAX_ENCODINGS} are enough")
    for name in reversed(names):
        if name in {"", "identity"}:
            continue
        if len(body) < _THREAD_MIN_BYTES:
            body = decompress(body, name, max_bytes)
        else:
            body = await asyncio.to_thread(decompress, body, name, max_bytes)
    return body


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
