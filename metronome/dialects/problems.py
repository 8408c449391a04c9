"""Errors as ``application/problem+json`` (RFC 9457), for protocols without an error shape of their own."""

from typing import Final

import orjson

from metronome.dialects.dialect import Reply
from metronome.errors import MetronomeError, NoKey

RETRY_AFTER_SECONDS: Final = 5


def problem(error: MetronomeError, status: int) -> Reply:
    """Describe an error.

    Args:
        error: what is wrong; where it may name what is behind the service, strangers are told less.
        status: its HTTP status.

    """
    name = type(error).__name__
    body = {"type": f"urn:metronome:error:{name}", "title": name, "status": status, "detail": sentence(error)}
    return Reply(status, orjson.dumps(body), "application/problem+json", headers_of(error))


def sentence(error: MetronomeError) -> str:
    """Return what strangers are told of an error: what is wrong and what to do."""
    detail = error.in_public or f"{error}; {error.advice}"
    # What the message quotes may hold lone surrogates, which have no bytes.
    return detail.encode(errors="backslashreplace").decode()


def headers_of(error: MetronomeError) -> dict[str, str]:
    """Return the headers that HTTP wants for an error, whatever the shape of the body."""
    headers = {}
    if error.retry:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, NoKey):
        headers["WWW-Authenticate"] = 'Bearer realm="metronome"'
    return headers
