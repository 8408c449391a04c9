"""Errors as Elasticsearch writes them.

Clients and shippers tell errors apart by their ``type``, and show the ``reason``.
"""

from typing import Any, Final

from metronome.errors import (
    Away,
    Malformed,
    MetronomeError,
    NoKey,
    NoSuchPage,
    NotAllowed,
    SpoolFull,
    TooLarge,
    TooSlow,
    UnknownEncoding,
    WrongMethod,
)
from metronome.protocol import headers_of, sentence

BUSY: Final = 429
CONFLICT: Final = 409
CHALLENGE: Final = 'Basic realm="metronome", ApiKey'
BUSY_TYPE: Final = "es_rejected_execution_exception"
CONFLICT_TYPE: Final = "version_conflict_engine_exception"

_TYPES: Final[tuple[tuple[type[MetronomeError], str], ...]] = (
    (NoKey, "security_exception"),
    (NotAllowed, "security_exception"),
    (NoSuchPage, "resource_not_found_exception"),
    (WrongMethod, "illegal_argument_exception"),
    (TooLarge, "content_too_long_exception"),
    (TooSlow, "timeout_exception"),
    (UnknownEncoding, "media_type_header_exception"),
    (Malformed, "illegal_argument_exception"),
    (SpoolFull, BUSY_TYPE),
    (Away, "unavailable_shards_exception"),
    (MetronomeError, "status_exception"),
)


def status_for(error: MetronomeError, status: int) -> int:
    """Return the status that shippers understand: a full spool is 429, at which they wait and send again."""
    return BUSY if isinstance(error, SpoolFull) else status


def described(error: MetronomeError, status: int) -> dict[str, Any]:
    """Describe why a request was refused."""
    kind = next(name for known, name in _TYPES if isinstance(error, known))
    cause: dict[str, Any] = {"type": kind, "reason": sentence(error)}
    if isinstance(error, NoKey):
        cause["header"] = {"WWW-Authenticate": [CHALLENGE]}
    return whole(cause, status)


def whole(cause: dict[str, Any], status: int) -> dict[str, Any]:
    """Return the body of an answer that is an error."""
    return {"error": {"root_cause": [cause], **cause}, "status": status}


def error_headers(error: MetronomeError) -> dict[str, str]:
    """Return the headers of an answer that is an error."""
    headers = headers_of(error)
    if isinstance(error, NoKey):
        headers["WWW-Authenticate"] = CHALLENGE
    return headers


def item_cause(error: Malformed | TooLarge, wrong_action: str = "") -> dict[str, str]:
    """Describe why a document was refused: itself, or the action that names it."""
    of_action = wrong_action or isinstance(error, TooLarge)
    kind = "illegal_argument_exception" if of_action else "mapper_parsing_exception"
    return {"type": kind, "reason": sentence(error)}


def conflict_cause(identity: str) -> dict[str, str]:
    """Describe that a document exists already."""
    return {"type": CONFLICT_TYPE, "reason": f"[{identity}]: version conflict, document already exists"}


def busy_cause(reason: str) -> dict[str, str]:
    """Describe that a document has to come again."""
    return {"type": BUSY_TYPE, "reason": reason}
