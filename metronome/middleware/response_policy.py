"""What an answer means for the batch that it answers."""

from collections.abc import Mapping
from typing import Final, NamedTuple

_PAYLOAD_TOO_LARGE: Final = 413
_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})
_AUTH_STATUSES: Final = frozenset({401, 403})
_WRONG_URL_STATUSES: Final = frozenset({404, 405, *range(300, 400)})
_SERVER_ERRORS_FROM: Final = 500
_MAX_RETRY_AFTER_DIGITS: Final = 9
_MAX_RETRY_AFTER_SECONDS: Final = 300.0
_MAX_BODY_CHARACTERS: Final = 200


class TargetResponse(NamedTuple):
    """What a target said: its status, headers in lower case, and the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class SendOutcome(NamedTuple):
    """What became of a batch.

    Attributes:
        sent: how many of its events were taken.
        refused: how many never will be.
        again: whether all of it is to be sent again, later.
        smaller: whether it is to be sent again in smaller parts.
        wait: for how many seconds the target wants to be left alone.
        reason: one sentence on what is wrong, with what to do; empty where all is well.

    """

    sent: int = 0
    rejected: int = 0
    retry: bool = False
    split: bool = False
    retry_after: float = 0.0
    reason: str = ""


def retry_later(reason: str, retry_after: float = 0.0) -> SendOutcome:
    """Return the verdict on a batch that may be taken later."""
    return SendOutcome(retry=True, retry_after=retry_after, reason=reason)


def evaluate_failure(response: TargetResponse, count: int, url: str) -> SendOutcome:
    """Judge an answer that is no success.

    Args:
        response: whose status is not of the 200s.
        count: how many events the batch has.
        url: the address that it was sent to, for the sentence.

    """
    status = response.status
    said = f"{url} answers {status}{_format_body(response.body)}"
    if status >= _SERVER_ERRORS_FROM or status in _RETRYABLE_STATUSES:
        return retry_later(f"{said}; it is tried again", _parse_retry_after(response.headers.get("retry-after", "")))
    if status == _PAYLOAD_TOO_LARGE:
        if count > 1:
            return SendOutcome(split=True, reason=f"{said}: lower batch_max_bytes")
        return SendOutcome(rejected=1, reason=f"{said}: send less with each event")
    if status in _AUTH_STATUSES:
        return SendOutcome(rejected=count, reason=f"{said}: give a key that may send there")
    if status in _WRONG_URL_STATUSES:
        return SendOutcome(rejected=count, reason=f"{said}: correct the url")
    return SendOutcome(rejected=count, reason=said)


def _parse_retry_after(retry_after: str) -> float:
    # A date is not worth being read: the pauses between attempts grow in any case.
    given = retry_after.strip()
    is_number = given.isascii() and given.isdigit() and len(given) <= _MAX_RETRY_AFTER_DIGITS
    return min(float(given), _MAX_RETRY_AFTER_SECONDS) if is_number else 0.0


def _format_body(body: bytes) -> str:
    text = " ".join(body[: 4 * _MAX_BODY_CHARACTERS].decode(errors="replace").split())[:_MAX_BODY_CHARACTERS]
    return f" ({text})" if text and text.isprintable() else ""
