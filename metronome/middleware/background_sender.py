"""The queue between the host and the target, and the thread that empties it."""

import threading
import time
from collections import deque
from typing import Final

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import Hit, Tracked
from metronome.middleware.stats import Tally, shown
from metronome.middleware.transport import Delivery

THREAD_NAME: Final = "metronome-reports"
FULL: Final = "the queue is full, as the target is away or the host too busy: raise queue_max to hold more"
_LOOK_SECONDS: Final = 0.005


class Courier:
    """Takes reports from any thread, and delivers them in one of its own, which is started with the first.

    Args:
        config: how much to take, and how hard to try.
        tally: where it is counted what became of them.

    """

    def __init__(self, config: ClientConfig, tally: Tally) -> None:
        self._config = config
        self._tally = tally
        self._queue: deque[Hit | Tracked] = deque()
        self._queue_max = config.queue_max
        self._full_batch = config.batch_max_events
        self._some = threading.Event()
        self._enough = threading.Event()
        self._hurry = threading.Event()
        self._ended = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._under_way = 0

    def put(self, seen: Hit | Tracked) -> None:
        """Queue what was seen; the newest is what is dropped where there is no room."""
        queue = self._queue
        waiting = len(queue)
        if waiting >= self._queue_max:
            self._tally.add(dropped=1, reason=FULL)
            return
        queue.append(seen)
        # Is cleared before the queue is looked at, so that nothing is overlooked.
        if not self._some.is_set():
            self._some.set()
        if self._thread is None:
            self._start()
        if waiting >= self._full_batch and not self._enough.is_set():
            self._enough.set()

    @property
    def queued(self) -> int:
        """How many reports wait or are on their way."""
        return len(self._queue) + self._under_way

    def flush(self, seconds: float) -> bool:
        """Wait until all is delivered, for so long at most; returns whether it is."""
        deadline = time.monotonic() + seconds
        self._hurry.set()
        self._some.set()
        self._enough.set()
        try:
            while self.queued:
                if time.monotonic() > deadline or self._thread is None:
                    return False
                time.sleep(_LOOK_SECONDS)
            return True
        finally:
            self._hurry.clear()

    def end(self) -> None:
        """Take nothing more, drop what is left, and let the thread end when it can."""
        self._ended.set()
        left = len(self._queue)
        self._queue.clear()
        self._tally.add(dropped=left)
        self._hurry.set()
        self._some.set()
        self._enough.set()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # The interpreter is about to end, or the system has no more threads.
                    self._tally.add(faults=1, reason=shown(error))
                    return
                self._thread = thread

    def _work(self) -> None:
        delivery = Delivery(self._config, self._tally, self._hurry, self._ended)
        while not self._ended.is_set():
            self._some.wait()
            if len(self._queue) < self._full_batch and not self._hurry.is_set():
                self._enough.wait(self._config.gather_seconds)
            try:
                self._deliver_one_batch(delivery)
            except Exception as error:  # noqa: BLE001  # the thread is to go on, whatever it was
                self._tally.add(dropped=self._under_way, faults=1, reason=shown(error))
            self._under_way = 0
            self._tally.tell()
        delivery.close()

    def _deliver_one_batch(self, delivery: Delivery) -> None:
        queue = self._queue
        self._some.clear()
        self._enough.clear()
        # First counted, then taken: whoever looks for an end must not find one between.
        self._under_way = count = min(len(queue), self._full_batch)
        batch = [queue.popleft() for _ in range(count)]
        if queue:
            self._some.set()
        if batch:
            delivery.deliver(batch)
