"""What an answer means for the batch that it answers."""

from collections.abc import Mapping
from typing import Final, NamedTuple

_TOO_LARGE: Final = 413
_LATER: Final = frozenset({408, 425, 429})
_KEY: Final = frozenset({401, 403})
_NOT_HERE: Final = frozenset({404, 405, *range(300, 400)})
_SERVER_ERRORS_FROM: Final = 500
_LONGEST_WAIT: Final = 300.0
_SHOWN: Final = 200


class Answer(NamedTuple):
    """What a target said: its status, headers in lower case, and the beginning of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Verdict(NamedTuple):
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
    refused: int = 0
    again: bool = False
    smaller: bool = False
    wait: float = 0.0
    reason: str = ""


def later(reason: str, wait: float = 0.0) -> Verdict:
    """Return the verdict on a batch that may be taken later."""
    return Verdict(again=True, wait=wait, reason=reason)


def refused(answer: Answer, count: int, where: str) -> Verdict:
    """Judge an answer that is no success.

    Args:
        answer: whose status is not of the 200s.
        count: how many events the batch has.
        where: the address that it was sent to, for the sentence.

    """
    status = answer.status
    said = f"{where} answers {status}{_shown(answer.body)}"
    if status >= _SERVER_ERRORS_FROM or status in _LATER:
        return later(f"{said}; it is tried again", _seconds(answer.headers.get("retry-after", "")))
    if status == _TOO_LARGE:
        if count > 1:
            return Verdict(smaller=True, reason=f"{said}: lower batch_max_bytes")
        return Verdict(refused=1, reason=f"{said}: send less with each event")
    if status in _KEY:
        return Verdict(refused=count, reason=f"{said}: give a key that may send there")
    if status in _NOT_HERE:
        return Verdict(refused=count, reason=f"{said}: correct the url")
    return Verdict(refused=count, reason=said)


def _seconds(retry_after: str) -> float:
    # A date is not worth being read: the pauses between attempts grow in any case.
    given = retry_after.strip()
    return min(float(given), _LONGEST_WAIT) if given.isascii() and given.isdigit() and len(given) < 10 else 0.0  # noqa: PLR2004  # longer ones are no seconds


def _shown(body: bytes) -> str:
    text = " ".join(body[: 4 * _SHOWN].decode(errors="replace").split())[:_SHOWN]
    return f" ({text})" if text and text.isprintable() else ""
