"""Queues records and sends them to the target in the background.

The host's threads only append to a queue. A forked process starts with an empty queue and a thread of its own; its
parent sends what the parent has queued.
"""

import atexit
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import CURRENT_REQUEST, RequestRecord, TrackedEvent
from metronome.middleware.matomo import MatomoProtocol
from metronome.middleware.native import TickProtocol
from metronome.middleware.transport import BackgroundSender, Stats, StatsCounter, describe_error

_REPORTERS: Final[WeakSet["Reporter"]] = WeakSet()


class Reporter:
    """Reports to one target. Middleware, log handlers and threads may share one; none of its methods raises.

    Args:
        config: where to send, what to report, and how to queue and retry.

    """

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self._stats: StatsCounter
        self._sender: BackgroundSender
        self._reset()
        _REPORTERS.add(self)

    def __enter__(self) -> Self:
        """Return this reporter, which is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the reporter."""
        self.close()

    def report(self, record: RequestRecord | TrackedEvent) -> None:
        """Queue a record; if the queue is full, drop and count it."""
        self._sender.put(record)

    def track(self, event: str | Mapping[str, Any], /, **fields: Any) -> None:
        """Report an event.

        During a request, the event gets the client's IP address, user agent, language, URL and referrer, unless
        *fields* override them.

        Args:
            event: the event's name, as ``view``, or the event that a function of `metronome.middleware.events` returns.
            fields: fields as ``POST /tick`` accepts them.

        """
        try:
            event_fields: Mapping[str, Any] = {"event": event} if isinstance(event, str) else event
            request = CURRENT_REQUEST.get()
            snapshot = None if request is None else request.snapshot()
            self._sender.put(TrackedEvent(time.time(), {**event_fields, **fields}, snapshot))
        except Exception as error:  # noqa: BLE001  # reporting must not break the host
            self.count_error(error)

    def count_error(self, error: Exception) -> None:
        """Count an error in reporting; problems are logged at most once a minute."""
        self._stats.add(errors=1, reason=describe_error(error))

    def flush(self, timeout: float | None = None) -> bool:
        """Send the queued reports and wait for the target's response.

        Args:
            timeout: maximum seconds to wait; default `ClientConfig.shutdown_timeout_seconds`.

        Returns:
            Whether the queue has been drained.

        """
        return self._sender.flush(self.config.shutdown_timeout_seconds if timeout is None else timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Flush, drop the remaining reports and end the thread; a later report starts another."""
        is_drained = self.flush(timeout)
        closed_sender, self._sender = self._sender, self._new_sender()
        closed_sender.stop()
        return is_drained

    def stats(self) -> Stats:
        """Return the counts of this process so far."""
        return self._stats.stats(self._sender.queued)

    def _reset(self) -> None:
        self._stats = StatsCounter(self.config.url, time.monotonic)
        self._sender = self._new_sender()

    def _new_sender(self) -> BackgroundSender:
        protocol = MatomoProtocol if self.config.protocol == "matomo" else TickProtocol
        return BackgroundSender(self.config, protocol(self.config), self._stats)


def _reset_after_fork() -> None:
    for reporter in list(_REPORTERS):
        reporter._reset()  # noqa: SLF001  # same module


def _close_all() -> None:
    for reporter in list(_REPORTERS):
        reporter.close()


os.register_at_fork(after_in_child=_reset_after_fork)
atexit.register(_close_all)
