"""The queue between the host and the target, and the thread that empties it."""

import threading
import time
from collections import deque
from typing import Final

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import RequestRecord, TrackedEvent
from metronome.middleware.stats import StatsCounter, describe_error
from metronome.middleware.transport import Transport

THREAD_NAME: Final = "metronome-reports"
QUEUE_FULL_REASON: Final = "the queue is full, as the target is away or the host too busy: raise queue_max to hold more"
_POLL_SECONDS: Final = 0.005


class BackgroundSender:
    """Takes reports from any thread, and delivers them in one of its own, which is started with the first.

    Args:
        config: how much to take, and how hard to try.
        stats: where it is counted what became of them.

    """

    def __init__(self, config: ClientConfig, stats: StatsCounter) -> None:
        self._config = config
        self._stats = stats
        self._queue: deque[RequestRecord | TrackedEvent] = deque()
        self._queue_max = config.queue_max
        self._batch_max_events = config.batch_max_events
        self._has_records = threading.Event()
        self._batch_is_full = threading.Event()
        self._flush_requested = threading.Event()
        self._stopped = threading.Event()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._in_flight = 0

    def put(self, record: RequestRecord | TrackedEvent) -> None:
        """Queue what was seen; the newest is what is dropped where there is no room."""
        queue = self._queue
        waiting = len(queue)
        if waiting >= self._queue_max:
            self._stats.add(dropped=1, reason=QUEUE_FULL_REASON)
            return
        queue.append(record)
        # Is cleared before the queue is looked at, so that nothing is overlooked.
        if not self._has_records.is_set():
            self._has_records.set()
        if self._thread is None:
            self._start_thread()
        if waiting >= self._batch_max_events and not self._batch_is_full.is_set():
            self._batch_is_full.set()

    @property
    def queued(self) -> int:
        """How many reports wait or are on their way."""
        return len(self._queue) + self._in_flight

    def flush(self, timeout: float) -> bool:
        """Wait until all is delivered, for so long at most; returns whether it is."""
        deadline = time.monotonic() + timeout
        self._flush_requested.set()
        self._has_records.set()
        self._batch_is_full.set()
        try:
            while self.queued:
                if time.monotonic() > deadline or self._thread is None:
                    return False
                time.sleep(_POLL_SECONDS)
            return True
        finally:
            self._flush_requested.clear()

    def stop(self) -> None:
        """Take nothing more, drop what is left, and let the thread end when it can."""
        self._stopped.set()
        left = len(self._queue)
        self._queue.clear()
        self._stats.add(dropped=left)
        self._flush_requested.set()
        self._has_records.set()
        self._batch_is_full.set()

    def _start_thread(self) -> None:
        with self._start_lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # The interpreter is about to end, or the system has no more threads.
                    self._stats.add(errors=1, reason=describe_error(error))
                    return
                self._thread = thread

    def _run(self) -> None:
        delivery = Transport(self._config, self._stats, self._flush_requested, self._stopped)
        while not self._stopped.is_set():
            self._has_records.wait()
            if len(self._queue) < self._batch_max_events and not self._flush_requested.is_set():
                self._batch_is_full.wait(self._config.flush_interval_seconds)
            try:
                self._send_batch(delivery)
            except Exception as error:  # noqa: BLE001  # the thread is to go on, whatever it was
                self._stats.add(dropped=self._in_flight, errors=1, reason=describe_error(error))
            self._in_flight = 0
            self._stats.log_problems()
        delivery.close()

    def _send_batch(self, transport: Transport) -> None:
        queue = self._queue
        self._has_records.clear()
        self._batch_is_full.clear()
        # First counted, then taken: whoever looks for an end must not find one between.
        self._in_flight = count = min(len(queue), self._batch_max_events)
        batch = [queue.popleft() for _ in range(count)]
        if queue:
            self._has_records.set()
        if batch:
            transport.send(batch)
