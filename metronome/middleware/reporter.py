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

from metronome.middleware.background_sender import Courier
from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import HANDLED, Hit, Tracked
from metronome.middleware.stats import Stats, Tally, shown

_REPORTERS: Final[WeakSet["Reporter"]] = WeakSet()


class Reporter:
    """Reports to one target. Any number of middlewares, handlers and threads may share one; none of it raises.

    Args:
        config: where to, what, and how hard to try.

    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._tally: Tally
        self._courier: Courier
        self._begin()
        _REPORTERS.add(self)

    def __enter__(self) -> Self:
        """Return this reporter; what is queued at the block's end is sent then."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what is queued, and end."""
        self.close()

    def report(self, seen: Hit | Tracked) -> None:
        """Queue what was seen; what does not fit is dropped and counted."""
        self._courier.put(seen)

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
            handled = HANDLED.get()
            during = None if handled is None else handled.look()
            self._courier.put(Tracked(time.time(), {**named, **fields}, during))
        except Exception as error:  # noqa: BLE001  # no host is to fail because of a report
            self.fault(error)

    def fault(self, error: Exception) -> None:
        """Count that reporting went wrong; the log tells of it, once a minute at most."""
        self._tally.add(faults=1, reason=shown(error))

    def flush(self, seconds: float | None = None) -> bool:
        """Send what is queued, and wait until that is done.

        Args:
            seconds: how long to wait at most; without them, `ClientConfig.stop_seconds`.

        Returns:
            Whether nothing is left.

        """
        return self._courier.flush(self.config.stop_seconds if seconds is None else seconds)

    def close(self, seconds: float | None = None) -> bool:
        """Do as `flush`, drop what is left, and end the thread; what is reported later starts another."""
        done = self.flush(seconds)
        ended, self._courier = self._courier, Courier(self.config, self._tally)
        ended.end()
        return done

    def stats(self) -> Stats:
        """Return what became of reports so far, in this process."""
        return self._tally.stats(self._courier.queued)

    def _begin(self) -> None:
        self._tally = Tally(self.config.url, time.monotonic)
        self._courier = Courier(self.config, self._tally)


def _begin_in_child() -> None:
    for reporter in list(_REPORTERS):
        reporter._begin()  # noqa: SLF001  # of this module


def _close_all() -> None:
    for reporter in list(_REPORTERS):
        reporter.close()


os.register_at_fork(after_in_child=_begin_in_child)
atexit.register(_close_all)
