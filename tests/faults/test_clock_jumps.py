"""A server whose clock is set back and forth, under libfaketime, stores what it acknowledged, once."""

import subprocess
from pathlib import Path

import orjson
import pytest

from tests.clock.run import MISSING, library
from tests.faults.observations import is_ready
from tests.faults.rounds import SentEvents, count_marks_in_duckdb, ship_and_stop
from tests.servers import COMMAND, Server, build_environment, unique_name


class ServerWithClock(Server):
    """A server whose clock can be shifted while it runs."""

    def launch(self) -> None:
        """Start the server with its own clock."""
        preload = library()
        if preload is None:
            pytest.fail(MISSING)
        self.shift(0)
        variables = build_environment(data=self.data, port=self.port, **self.settings) | {
            "LD_PRELOAD": preload,
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "serve"], env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def shift(self, seconds: int) -> None:
        """Shift the clock from the true time by some seconds."""
        self._clock.write_text(f"{seconds:+d}")

    @property
    def _clock(self) -> Path:
        return self.data.with_name("clock")


def test_a_clock_that_jumps_loses_and_doubles_nothing(data: Path) -> None:
    sent = SentEvents()
    data.mkdir()
    with ServerWithClock(data) as server:
        server.start()
        for seconds in (0, -3600, 86_400, -30 * 86_400, 40 * 86_400, 0):
            server.shift(seconds)
            for _ in range(10):
                mark = unique_name()
                sent.attempted.add(mark)
                server.post_events(orjson.dumps({"id": "x", "mark": mark}))
                sent.acknowledged.add(mark)
            assert is_ready(server)
            assert server.get("/tock/x.json")
        ship_and_stop(server)
        sent.check(count_marks_in_duckdb(server), at_least=50)
