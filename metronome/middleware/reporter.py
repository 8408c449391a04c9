"""Takes what is seen in a host, and brings it to the target in the background.

The host's own threads do no more than put something small into a queue. Each process that the host forks begins anew,
with a queue and a thread of its own: what its parent holds, its parent sends.
"""

import atexit
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

from metronome.middleware.background_sender import BackgroundSender
from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import CURRENT_REQUEST, RequestRecord, TrackedEvent
from metronome.middleware.stats import Stats, StatsCounter, describe_error

_REPORTERS: Final[WeakSet["Reporter"]] = WeakSet()


class Reporter:
    """Reports to one target. Any number of middlewares, handlers and threads may share one; none of it raises.

    Args:
        config: where to, what, and how hard to try.

    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._stats: StatsCounter
        self._sender: BackgroundSender
        self._reset()
        _REPORTERS.add(self)

    def __enter__(self) -> Self:
        """Return this reporter; what is queued at the block's end is sent then."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is queued, and end."""
        self.close()

    def report(self, record: RequestRecord | TrackedEvent) -> None:
        """Queue what was seen; what does not fit is dropped and counted."""
        self._sender.put(record)

    def track(self, event: str | Mapping[str, Any], /, **fields: Any) -> None:
        """Report that something has happened.

        While a request is handled, the event gets its visitor's address, agent and language, its URL and its referer,
        where *fields* say nothing else.

        Args:
            event: what happened: ``view``, ``download`` or any name; or what a function of
                `metronome.middleware.events` returns.
            fields: of the event, as ``POST /tick`` takes them.

        """
        try:
            named: Mapping[str, Any] = {"event": event} if isinstance(event, str) else event
            handled = CURRENT_REQUEST.get()
            during = None if handled is None else handled.snapshot()
            self._sender.put(TrackedEvent(time.time(), {**named, **fields}, during))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self.count_error(error)

    def count_error(self, error: Exception) -> None:
        """Count that reporting went wrong; the log tells of it, once a minute at most."""
        self._stats.add(errors=1, reason=describe_error(error))

    def flush(self, timeout: float | None = None) -> bool:
        """Send what is queued, and wait until that is done.

        Args:
            timeout: how long to wait at most; without them, `ClientConfig.shutdown_timeout_seconds`.

        Returns:
            Whether nothing is left.

        """
        return self._sender.flush(self.config.shutdown_timeout_seconds if timeout is None else timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Do as `flush`, drop what is left, and end the thread; what is reported later starts another."""
        done = self.flush(timeout)
        ended, self._sender = self._sender, BackgroundSender(self.config, self._stats)
        ended.stop()
        return done

    def stats(self) -> Stats:
        """Return what became of reports so far, in this process."""
        return self._stats.stats(self._sender.queued)

    def _reset(self) -> None:
        self._stats = StatsCounter(self.config.url, time.monotonic)
        self._sender = BackgroundSender(self.config, self._stats)


def _reset_after_fork() -> None:
    for reporter in list(_REPORTERS):
        reporter._reset()  # noqa: SLF001  # of this module


def _close_all() -> None:
    for reporter in list(_REPORTERS):
        reporter.close()


os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(_close_all)
