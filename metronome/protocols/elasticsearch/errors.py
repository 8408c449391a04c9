"""Errors in Elasticsearch's format: clients decide by the ``type`` and show the ``reason``."""

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
_AUTHENTICATION_CHALLENGE: Final = 'Basic realm="metronome", ApiKey'
_REJECTED_EXECUTION_TYPE: Final = "es_rejected_execution_exception"

_ERROR_TYPES: Final[tuple[tuple[type[MetronomeError], str], ...]] = (
    (Unauthorized, "security_exception"),
    (Forbidden, "security_exception"),
    (NotFound, "resource_not_found_exception"),
    (MethodNotAllowed, "illegal_argument_exception"),
    (PayloadTooLarge, "content_too_long_exception"),
    (RequestTimeout, "timeout_exception"),
    (UnsupportedEncoding, "media_type_header_exception"),
    (Malformed, "illegal_argument_exception"),
    (SpoolFull, _REJECTED_EXECUTION_TYPE),
    (Unavailable, "unavailable_shards_exception"),
    (MetronomeError, "status_exception"),
)


def elasticsearch_status(error: MetronomeError) -> int:
    """Return the status for shippers: 429 for a full spool, after which they wait and resend."""
    return TOO_MANY_REQUESTS if isinstance(error, SpoolFull) else error.http_status


def error_body(error: MetronomeError, status: int) -> dict[str, Any]:
    """Return the body of the reply to a request that was rejected."""
    error_type = next(name for error_class, name in _ERROR_TYPES if isinstance(error, error_class))
    cause: dict[str, Any] = {"type": error_type, "reason": describe_to_client(error)}
    if isinstance(error, Unauthorized):
        cause["header"] = {"WWW-Authenticate": [_AUTHENTICATION_CHALLENGE]}
    return wrap_error(cause, status)


def wrap_error(cause: dict[str, Any], status: int) -> dict[str, Any]:
    """Return the body of an error reply."""
    return {"error": {"root_cause": [cause], **cause}, "status": status}


def elasticsearch_error_headers(error: MetronomeError) -> dict[str, str]:
    """Return the headers of an error reply."""
    headers = http_error_headers(error)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = _AUTHENTICATION_CHALLENGE
    return headers


def item_error(error: Malformed | PayloadTooLarge, *, is_content: bool) -> dict[str, str]:
    """Return why a document was rejected: for its content, its size or its action."""
    is_parsing = is_content and not isinstance(error, PayloadTooLarge)
    error_type = "mapper_parsing_exception" if is_parsing else "illegal_argument_exception"
    return {"type": error_type, "reason": describe_to_client(error)}


def rejected_execution_error(reason: str) -> dict[str, str]:
    """Return why a document has to be sent again."""
    return {"type": _REJECTED_EXECUTION_TYPE, "reason": reason}
