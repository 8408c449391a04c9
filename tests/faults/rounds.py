"""What all crash tests share: how often something dies, what was sent, and what the store has in the end.

``METRONOME_TEST_CRASH_ROUNDS`` says how often each kind of death is tried; the usual few keep the suite quick.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import duckdb
import pytest

from tests.servers import Server

ROUNDS: Final = int(os.environ.get("METRONOME_TEST_CRASH_ROUNDS", "4"))
PER_ROUND_SECONDS: Final = 30

ServerFactory = Callable[..., Server]
"""Makes servers as `Server` does (see `new_server`)."""

crash_timeout: Final = pytest.mark.timeout(120 + ROUNDS * PER_ROUND_SECONDS)


@dataclass
class SentEvents:
    """What was sent, and what of it was acknowledged: each event has a mark of its own."""

    attempted: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)

    def check(self, stored: Counter[str], at_least: int = 100) -> None:
        """Check that a store holds all that was acknowledged, nothing twice, and nothing that was never sent."""
        lost = self.acknowledged - stored.keys()
        assert not lost, f"{len(lost)} events were lost, such as {min(lost)}"
        twice = [mark for mark, times in stored.items() if times > 1]
        assert not twice, f"{len(twice)} events count more than once, such as {twice[0]}"
        foreign = stored.keys() - self.attempted
        assert not foreign, f"{len(foreign)} events were never sent, such as {min(foreign)}"
        assert len(self.acknowledged) > at_least, f"only {len(self.acknowledged)} events were acknowledged"


def count_marks_in_duckdb(server: Server) -> Counter[str]:
    """Count the events in a server's store by their marks; those that can have none, by their identities."""
    with duckdb.connect(server.data / "metronome.duckdb", read_only=True) as database:
        rows = database.execute(
            "SELECT coalesce(json_extract_string(doc, '/mark'), json_extract_string(doc, '/event_id')) FROM events"
        ).fetchall()
        (counted,) = database.execute("SELECT sum(n) FROM rollup").fetchall()[0]
    assert counted == len(rows)
    return Counter(mark for (mark,) in rows)


def ship_and_stop(server: Server) -> None:
    """Let a server that runs ship what it has left, and end it."""
    server.wait_until_shipped()
    assert server.stop() == 0
    assert server.error_lines() == []
