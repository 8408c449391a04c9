"""Errors as Elasticsearch writes them.

Clients and shippers tell errors apart by their ``type``, and show the ``reason``.
"""

from typing import Any, Final

from metronome.errors import (
    Forbidden,
    Malformed,
    MethodNotAllowed,
    MetronomeError,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    SpoolFull,
    Unauthorized,
    Unavailable,
    UnsupportedEncoding,
    describe_to_client,
)
from metronome.protocol import http_error_headers

TOO_MANY_REQUESTS: Final = 429
CONFLICT: Final = 409
AUTHENTICATION_CHALLENGE: Final = 'Basic realm="metronome", ApiKey'
REJECTED_EXECUTION_TYPE: Final = "es_rejected_execution_exception"
CONFLICT_TYPE: Final = "version_conflict_engine_exception"

_ERROR_TYPES: Final[tuple[tuple[type[MetronomeError], str], ...]] = (
    (Unauthorized, "security_exception"),
    (Forbidden, "security_exception"),
    (NotFound, "resource_not_found_exception"),
    (MethodNotAllowed, "illegal_argument_exception"),
    (PayloadTooLarge, "content_too_long_exception"),
    (RequestTimeout, "timeout_exception"),
    (UnsupportedEncoding, "media_type_header_exception"),
    (Malformed, "illegal_argument_exception"),
    (SpoolFull, REJECTED_EXECUTION_TYPE),
    (Unavailable, "unavailable_shards_exception"),
    (MetronomeError, "status_exception"),
)


def elasticsearch_status(error: MetronomeError) -> int:
    """Return the status that shippers understand: a full spool is 429, at which they wait and send again."""
    return TOO_MANY_REQUESTS if isinstance(error, SpoolFull) else error.http_status


def error_body(error: MetronomeError, status: int) -> dict[str, Any]:
    """Describe why a request was refused."""
    kind = next(name for known, name in _ERROR_TYPES if isinstance(error, known))
    cause: dict[str, Any] = {"type": kind, "reason": describe_to_client(error)}
    if isinstance(error, Unauthorized):
        cause["header"] = {"WWW-Authenticate": [AUTHENTICATION_CHALLENGE]}
    return wrap_error(cause, status)


def wrap_error(cause: dict[str, Any], status: int) -> dict[str, Any]:
    """Return the body of an answer that is an error."""
    return {"error": {"root_cause": [cause], **cause}, "status": status}


def elasticsearch_error_headers(error: MetronomeError) -> dict[str, str]:
    """Return the headers of an answer that is an error."""
    headers = http_error_headers(error)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = AUTHENTICATION_CHALLENGE
    return headers


def item_error(error: Malformed | PayloadTooLarge, action_error: str = "") -> dict[str, str]:
    """Describe why a document was refused: itself, or the action that names it."""
    of_action = action_error or isinstance(error, PayloadTooLarge)
    kind = "illegal_argument_exception" if of_action else "mapper_parsing_exception"
    return {"type": kind, "reason": describe_to_client(error)}


def conflict_error(document_id: str) -> dict[str, str]:
    """Describe that a document exists already."""
    return {"type": CONFLICT_TYPE, "reason": f"[{document_id}]: version conflict, document already exists"}


def rejected_execution_error(reason: str) -> dict[str, str]:
    """Describe that a document has to come again."""
    return {"type": REJECTED_EXECUTION_TYPE, "reason": reason}
