"""The keys that requests carry in their ``Authorization``."""

import binascii
from base64 import b64decode
from collections.abc import Mapping


def bearer(headers: Mapping[str, str]) -> str:
    """Return the key of ``Authorization: Bearer …``, or nothing."""
    return _parameter(headers, "bearer")


def password(headers: Mapping[str, str]) -> str:
    """Return the password of ``Authorization: Basic …``, or nothing; the user may be any."""
    return _decoded(_parameter(headers, "basic")).partition(":")[2]


def api_key(headers: Mapping[str, str]) -> str:
    """Return the key of Elasticsearch's ``Authorization: ApiKey …``, or nothing.

    It is sent as the base64 of ``id:key``, where the id may be any; the key alone will do as well.
    """
    given = _parameter(headers, "apikey")
    return _decoded(given).partition(":")[2] or given


def _parameter(headers: Mapping[str, str], scheme: str) -> str:
    given, _, parameter = headers.get("Authorization", "").partition(" ")
    return parameter.strip() if given.lower() == scheme else ""


def _decoded(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
