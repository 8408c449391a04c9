"""Request bodies: read with a cap, and freed of their Content-Encoding with a cap on what comes out."""

import asyncio

from aiohttp import web

from metronome.dialects.encodings import decode, too_large
from metronome.errors import Malformed, TooSlow, UnknownEncoding

_BODY_SECONDS = 60.0
_MAX_ENCODINGS = 4
_IN_A_THREAD_FROM = 64 * 1024
"""Smaller bodies are decoded sooner than a thread takes them over."""


async def read_body(request: web.Request, max_bytes: int) -> bytes:
    """Read and decode the body of a request.

    Args:
        request: the server must not decode it itself.
        max_bytes: how large it may be, as it comes and decoded.

    Raises:
        TooLarge: it is larger.
        TooSlow: it does not come.
        UnknownEncoding: its Content-Encoding is none of `metronome.dialects.encodings.ENCODINGS`.
        Malformed: it is not what its Content-Encoding says.

    """
    try:
        if request.content.is_eof():
            body = await request.read()
        else:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        _release_frames(error)
        raise too_large(max_bytes) from None
    except TimeoutError as error:
        _release_frames(error)
        raise TooSlow(f"the body did not come within {_BODY_SECONDS:.0f} seconds") from None
    except (ConnectionError, web.RequestPayloadError) as error:
        _release_frames(error)
        raise Malformed("the body breaks off: send it again, whole") from None
    encoding = request.headers.get("Content-Encoding")
    if encoding is None:
        return body
    names = [name.strip().lower() for name in encoding.split(",")]
    if len(names) > _MAX_ENCODINGS:
        raise UnknownEncoding(f"the body is encoded {len(names)} times over, and {_MAX_ENCODINGS} are enough")
    for name in reversed(names):
        if name in {"", "identity"}:
            continue
        if len(body) < _IN_A_THREAD_FROM:
            body = decode(body, name, max_bytes)
        else:
            body = await asyncio.to_thread(decode, body, name, max_bytes)
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
