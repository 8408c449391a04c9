"""Shared by the crash tests: the number of rounds, the sent events, and the stored events.

``METRONOME_TEST_CRASH_ROUNDS`` sets how often each kind of crash is tested; the low default keeps the suite fast.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.installations import read_stored_documents
from tests.servers import Server

ROUNDS: Final = int(os.environ.get("METRONOME_TEST_CRASH_ROUNDS", "4"))
ROUND_TIMEOUT_SECONDS: Final = 30

ServerFactory = Callable[..., Server]
"""Creates servers with the arguments of `Server` (see `new_server`)."""

crash_timeout: Final = pytest.mark.timeout(120 + ROUNDS * ROUND_TIMEOUT_SECONDS)


@dataclass
class SentEvents:
    """Marks of the events that were sent, and of those that were acknowledged; each event has a unique mark."""

    attempted: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)

    def check(self, stored: Counter[str], at_least: int = 100) -> None:
        """Check that the store has every acknowledged event, no event twice, and no event that was never sent."""
        lost = self.acknowledged - stored.keys()
        assert not lost, f"{len(lost)} events were lost, such as {min(lost)}"
        duplicates = [mark for mark, times in stored.items() if times > 1]
        assert not duplicates, f"{len(duplicates)} events count more than once, such as {duplicates[0]}"
        unknown = stored.keys() - self.attempted
        assert not unknown, f"{len(unknown)} events were never sent, such as {min(unknown)}"
        assert len(self.acknowledged) > at_least, f"only {len(self.acknowledged)} events were acknowledged"


def count_marks_in_duckdb(server: Server) -> Counter[str]:
    """Count the events in a server's store by mark, or by event ID for events that cannot have a mark."""
    documents = read_stored_documents(server.data)
    return Counter(str(document.get("mark", document["event_id"])) for document in documents)


def ship_and_stop(server: Server) -> None:
    """Wait until a running server has shipped its spool, and stop it."""
    server.wait_until_shipped()
    assert server.stop() == 0
    assert server.error_lines() == []
