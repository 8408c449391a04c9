"""Wait until the server has stored what was imported, and find how much of it was new to the store.

The server's health says how old the oldest event is that its store does not have yet. Its metrics count the events
that were new to the store, and those that it had before: from all senders, so they are exact for an import only if
nothing else was sent meanwhile. Metrics need the scope ``query``.
"""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Final, NamedTuple

from metronome.errors import ConfigurationError, MetronomeError, RequestError, ServerUnavailable
from metronome.server_client import ServerClient

_POLL_SECONDS: Final = 0.1
_COUNTERS_TIMEOUT_SECONDS: Final = 3.0
_TOLERANCE_SECONDS: Final = 0.2
"""The health's ages are rounded."""


class Counters(NamedTuple):
    """The server's counts of events since it was started.

    Attributes:
        accepted: on its disk.
        new: stored, and new to the store.
        known: that the store had before.
        dead: that the store rejected.

    """

    accepted: int
    new: int
    known: int
    dead: int

    def __sub__(self, other: "Counters") -> "Counters":
        return Counters(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


_METRICS: Final = Counters(*(f"metronome_events_{name}_total" for name in ("accepted", "shipped", "duplicate", "dead")))  # type: ignore[arg-type]  # their names, in the same order


class Stored(NamedTuple):
    """What the store has of an import.

    Attributes:
        is_complete: whether all that the server accepted has been stored.
        counters: of this import; None if they are not known.
        reason: why the store does not have all, or why the counters are not known; may be empty.

    """

    is_complete: bool
    counters: Counters | None = None
    reason: str = ""


class StoreWatch:
    """Compares the server's counters before and after an import.

    Args:
        client: the server; asked at once.
        retry_timeout: seconds to wait for a store that is unavailable.

    """

    def __init__(self, client: ServerClient, retry_timeout: float) -> None:
        self._client = client
        self._retry_timeout = retry_timeout
        self._before, self._unknown = self._read_counters()

    def wait(self, accepted: int, show: Callable[[int], None] = lambda _: None) -> Stored | None:
        """Wait until the store has all events that were accepted so far.

        Args:
            accepted: how many events of the import were accepted.
            show: called with the number of events that the store does not have yet.

        Returns:
            None if the server does not report its health.

        """
        started_at = monotonic()
        failed_at = None
        while True:
            try:
                pending, oldest_seconds = self._read_pending()
            except ServerUnavailable as error:
                failed_at = failed_at or monotonic()
                if monotonic() - failed_at >= self._retry_timeout:
                    return Stored(is_complete=False, reason=str(error))
            except (ConfigurationError, RequestError):
                return None
            else:
                failed_at = None
                # Events that were accepted since then are not of this import.
                if not pending or oldest_seconds + _TOLERANCE_SECONDS < monotonic() - started_at:
                    return self._compare(accepted)
                show(pending)
            sleep(_POLL_SECONDS)

    def _read_pending(self) -> tuple[int, float]:
        store = self._client.get_json("/health/ready/store", "store")["store"]
        with self._client.parsing_response("/health/ready/store"):
            return int(store["events"]), float(store["oldest_seconds"])

    def _read_counters(self) -> tuple[Counters | None, str]:
        try:
            text = self._client.get("/metrics", "text/plain").decode(errors="replace")
            values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line and line[:1] != "#")
            return Counters(*(int(float(values[str(name)])) for name in _METRICS)), ""
        except RequestError:
            return None, "that needs a key with the scope query"
        except (MetronomeError, LookupError, ValueError):
            return None, "the server does not report it"

    def _compare(self, accepted: int) -> Stored:
        if self._before is None:
            return Stored(is_complete=True, reason=self._unknown)
        deadline = monotonic() + _COUNTERS_TIMEOUT_SECONDS
        while True:
            after, reason = self._read_counters()
            if after is None:
                return Stored(is_complete=True, reason=reason)
            counters = after - self._before
            if counters.accepted == counters.new + counters.known + counters.dead == accepted:
                return Stored(is_complete=True, counters=counters)
            # The store has the events shortly before they are counted.
            if counters.accepted != accepted or monotonic() >= deadline:
                return Stored(is_complete=True, reason="other events were sent meanwhile")
            sleep(_POLL_SECONDS)
