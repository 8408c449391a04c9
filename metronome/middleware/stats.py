"""What a client counts of itself, and the one line a minute that tells of what goes wrong."""

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

LOGGER_NAME: Final = "metronome.middleware"
LOG_INTERVAL_SECONDS: Final = 60.0
_MAX_CHARACTERS: Final = 300

_log = logging.getLogger(LOGGER_NAME)


def describe_error(error: BaseException) -> str:
    """Return what is to be read of an error, whatever a host's own errors do when they are shown."""
    try:
        return repr(error)[:_MAX_CHARACTERS]
    except Exception:  # noqa: BLE001  # its name is left
        return type(error).__name__


class Stats(NamedTuple):
    """What became of reports since this process began.

    Attributes:
        sent: were taken by the target.
        refused: never will be: the target says no, or they cannot be written.
        dropped: were given up: the queue was full, or the target was away for too long.
        queued: wait, or are on their way.
        faults: how often reporting itself went wrong, which the host did not notice.

    """

    sent: int
    rejected: int
    dropped: int
    queued: int
    errors: int


class StatsCounter:
    """Counts what becomes of reports, from any thread.

    Args:
        target: the target, for the log.
        clock: seconds that only go forward.

    """

    def __init__(self, target: str, clock: Callable[[], float]) -> None:
        self._target = target
        self._clock = clock
        self._lock = threading.Lock()
        self._sent = self._rejected = self._dropped = self._errors = 0
        self._reason = ""
        self._logged_at: float | None = None

    def add(self, *, sent: int = 0, rejected: int = 0, dropped: int = 0, errors: int = 0, reason: str = "") -> None:
        """Count, and remember what is to be told of it."""
        with self._lock:
            self._sent += sent
            self._rejected += rejected
            self._dropped += dropped
            self._errors += errors
            self._reason = reason or self._reason

    def stats(self, queued: int) -> Stats:
        """Return what was counted, with how many wait."""
        with self._lock:
            return Stats(self._sent, self._rejected, self._dropped, queued, self._errors)

    def log_problems(self) -> None:
        """Log what went wrong since the last line, unless that is less than a minute ago."""
        if not self._reason:
            return
        now = self._clock()
        with self._lock:
            if self._logged_at is not None and now < self._logged_at + LOG_INTERVAL_SECONDS:
                return
            self._logged_at, reason, self._reason = now, self._reason, ""
        # A host's handlers may raise, and reports are to go on.
        with contextlib.suppress(Exception):
            _log.warning(
                "reporting to %s: %s; %d sent, %d refused, %d dropped so far",
                *(self._target, reason, self._sent, self._rejected, self._dropped),
            )
