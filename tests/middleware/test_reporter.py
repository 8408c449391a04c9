"""What becomes of reports, with targets of every kind: real servers on the loopback."""

import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

from metronome.middleware.background_sender import THREAD_NAME
from metronome.middleware.config import ClientConfig
from metronome.middleware.reporter import Reporter
from metronome.middleware.stats import LOG_INTERVAL_SECONDS, LOGGER_NAME, StatsCounter
from tests.middleware.recorder import Received, Recorder, Said, accepting, recording
from tests.servers import free_port

QUICK: dict[str, Any] = {"flush_interval_seconds": 0.01, "shutdown_timeout_seconds": 20.0}


@contextmanager
def reporting(url: str, **config: Any) -> Iterator[Reporter]:
    reporter = Reporter(ClientConfig(url=url, **(QUICK | config)))
    try:
        yield reporter
    finally:
        reporter.close(0)


def track(reporter: Reporter, count: int) -> None:
    for number in range(count):
        reporter.track("view", id=f"d{number}")


def events(recorder: Recorder) -> list[Any]:
    return [orjson.loads(line) for received in recorder.received for line in received.body.splitlines()]


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_closed(recorder: Recorder, lines: int) -> bool:
    return recorder.closed == lines


def once(first: Said) -> Callable[[Received], Said]:
    """Answer the first request so, and all others as Metronome does."""
    left = [first]
    return lambda received: left.pop() if left else accepting(received)


def test_what_is_tracked_arrives_in_its_order_in_batches_over_one_line() -> None:
    with recording() as recorder, reporting(recorder.url, batch_max_events=100, key="k") as reporter:
        track(reporter, 250)
        assert reporter.flush()
        assert [event["id"] for event in events(recorder)] == [f"d{number}" for number in range(250)]
        assert len({event["event_id"] for event in events(recorder)}) == 250
        assert reporter.stats() == (250, 0, 0, 0, 0)
        assert {received.headers["authorization"] for received in recorder.received} == {"Bearer k"}
        assert max(len(received.body.splitlines()) for received in recorder.received) <= 100


def test_no_request_is_larger_than_is_said() -> None:
    with recording() as recorder, reporting(recorder.url, batch_max_bytes=2000) as reporter:
        track(reporter, 100)
        assert reporter.flush()
        assert max(len(received.body) for received in recorder.received) <= 2000
        assert len(events(recorder)) == 100


@pytest.mark.parametrize(
    "first",
    [
        Said(503, headers={"Retry-After": "0"}),
        Said(429),
        Said(500, b"\xff garbage"),
        Said(None),
        Said(200, b"<html>somebody else's</html>"),
        Said(200, b"", {"Content-Length": "9", "Connection": "close"}),
    ],
    ids=["503", "429", "500", "closed", "garbage", "cut off"],
)
def test_what_may_be_taken_later_is_sent_again_as_it_was(first: Said) -> None:
    with recording(once(first)) as recorder, reporting(recorder.url) as reporter:
        track(reporter, 3)
        recorder.wait_for(2)
        assert reporter.flush()
        assert recorder.received[0].body == recorder.received[1].body
        assert reporter.stats() == (3, 0, 0, 0, 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301])
def test_what_is_refused_is_counted_and_told_and_the_rest_goes_out(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with recording(once(Said(status))) as recorder, reporting(recorder.url) as reporter:
        track(reporter, 3)
        assert reporter.flush()
        track(reporter, 2)
        assert reporter.flush()
        assert reporter.stats() == (2, 3, 0, 0, 0)
    (line,) = [record.getMessage() for record in caplog.records if record.name == LOGGER_NAME]
    assert f"answers {status}" in line


def test_what_is_too_large_is_sent_in_halves_until_it_fits() -> None:
    def answer(received: Received) -> Said:
        lines = received.body.splitlines()
        return accepting(received) if len(lines) < 4 and b'"d5"' not in received.body else Said(413)

    with recording(answer) as recorder, reporting(recorder.url, flush_interval_seconds=0.2) as reporter:
        track(reporter, 10)
        assert reporter.flush()
        assert reporter.stats() == (9, 1, 0, 0, 0)


def test_what_one_event_has_wrong_fails_no_other() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("the host's own")

    with recording() as recorder, reporting(recorder.url) as reporter:
        reporter.track("view", id=Broken())
        reporter.track("view", id="well")
        assert reporter.flush()
        assert [event["id"] for event in events(recorder)] == ["well"]
        assert reporter.stats() == (1, 1, 0, 0, 0)


def test_while_the_target_is_away_the_queue_holds_what_it_may_and_counts_the_rest() -> None:
    port = free_port()
    with reporting(f"http://127.0.0.1:{port}", queue_max=50, batch_max_events=10) as reporter:
        track(reporter, 10)
        wait_until(lambda: not reporter._sender._queue)  # the first batch is on its way, and nothing else
        track(reporter, 80)
        assert reporter.stats() == (0, 0, 30, 60, 0)
        assert not reporter.flush(0.2)
        assert not reporter.close(0)
        wait_until(lambda: reporter.stats().dropped == 90)


def test_after_all_patience_a_batch_is_dropped_and_the_next_is_tried() -> None:
    def answer(received: Received) -> Said:
        return Said(503) if b'"d0"' in received.body else accepting(received)

    impatient = {"retry_timeout_seconds": 0.3, "batch_max_events": 1}
    with recording(answer) as recorder, reporting(recorder.url, **impatient) as reporter:
        track(reporter, 2)
        wait_until(lambda: reporter.stats().queued == 0)
        assert reporter.stats() == (1, 0, 1, 0, 0)


def test_a_target_that_never_answers_holds_nobody_up() -> None:
    # It takes connections and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with reporting(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.05) as reporter:
            track(reporter, 5)
            wait_until(lambda: reporter._stats._logged_at is not None)  # it has failed once by now
            assert not reporter.close(0.1)
        assert reporter.stats().sent == 0


def test_a_reporter_that_was_closed_goes_on_with_the_next_report() -> None:
    with recording() as recorder, reporting(recorder.url) as reporter:
        track(reporter, 1)
        assert reporter.close()
        wait_until(lambda: THREAD_NAME not in [thread.name for thread in threading.enumerate()])
        track(reporter, 1)
        assert reporter.close()
        assert reporter.stats() == (2, 0, 0, 0, 0)


def test_a_line_that_the_target_has_closed_meanwhile_is_opened_anew_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with recording(idle_seconds=0.05) as recorder, reporting(recorder.url) as reporter:
        for number in range(1, 4):
            track(reporter, 1)
            assert reporter.flush()
            wait_until(partial(has_closed, recorder, number))
        assert reporter.stats() == (3, 0, 0, 0, 0)
    assert [record for record in caplog.records if record.name == LOGGER_NAME] == []


OVER_TLS = """
import sys
from metronome.middleware import ClientConfig, Reporter
with Reporter(ClientConfig(url=sys.argv[1], shutdown_timeout_seconds=float(sys.argv[2]))) as reporter:
    reporter.track("view", id="rivers")
print(reporter.stats().sent)
"""


@pytest.mark.parametrize(("known", "sent"), [(True, b"1"), (False, b"0")])
def test_over_tls_only_a_target_with_a_known_certificate_is_told(known: bool, sent: bytes, tmp_path: Path) -> None:  # noqa: FBT001  # a case of the test
    authority = trustme.CA()
    (trustme.CA() if not known else authority).cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with recording(tls=context) as recorder:
        done = subprocess.run(
            [sys.executable, "-c", OVER_TLS, recorder.url, "20" if known else "0.5"],
            env=os.environ | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")},
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip() == sent
        assert len(recorder.received) == int(sent)
    assert known or b"certificate verify failed" in done.stderr


def test_to_flush_before_the_first_report_does_no_harm() -> None:
    with recording() as recorder, reporting(recorder.url) as reporter:
        assert reporter.flush()
        track(reporter, 1)
        assert reporter.flush()
        assert reporter.stats() == (1, 0, 0, 0, 0)


def test_many_threads_may_report_at_once() -> None:
    with recording() as recorder, reporting(recorder.url, batch_max_events=64) as reporter:
        threads = [threading.Thread(target=track, args=(reporter, 500)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reporter.flush()
        assert reporter.stats() == (4000, 0, 0, 0, 0)
        assert len({event["event_id"] for event in events(recorder)}) == 4000


def test_nothing_stays_behind_however_the_threads_meet() -> None:
    with recording() as recorder, reporting(recorder.url, flush_interval_seconds=0.0, batch_max_events=1) as reporter:
        for number in range(300):
            track(reporter, 1)
            if number % 3:
                time.sleep(0.0005)
        wait_until(lambda: reporter.stats().sent == 300)


def test_a_forked_process_sends_its_own_and_its_parent_s_stay_its_parent_s() -> None:
    with recording() as recorder, reporting(recorder.url, flush_interval_seconds=60.0) as reporter:
        reporter.track("view", id="parent")
        child = os.fork()
        if not child:
            reporter.track("view", id="child")
            os._exit(0 if reporter.flush() and reporter.stats() == (1, 0, 0, 0, 0) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert [event["id"] for event in events(recorder)] == ["child"]
        assert reporter.flush()
        assert sorted(event["id"] for event in events(recorder)) == ["child", "parent"]
        assert len({event["event_id"] for event in events(recorder)}) == 2


def test_a_bulk_of_matomo_s_has_the_same_name_when_it_comes_again() -> None:
    with recording(once(Said(503))) as recorder, reporting(recorder.url, protocol="matomo") as reporter:
        reporter.track("view", url="https://example.org/")
        recorder.wait_for(2)
        assert reporter.flush()
        first, second = recorder.received
        assert first.path == "/matomo.php"
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
        assert first.body == second.body


class Unshown(Exception):
    """An error that cannot even be shown."""

    def __repr__(self) -> str:
        raise ValueError("no")


class Raising(logging.Handler):
    """A handler of a host's that raises."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError(record.name)


def test_neither_odd_errors_nor_odd_handlers_of_the_host_s_stop_the_reports() -> None:
    handler = Raising()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        with recording(once(Said(503))) as recorder, reporting(recorder.url) as reporter:
            reporter.count_error(Unshown())
            track(reporter, 2)
            assert reporter.flush()
            assert reporter.stats() == (2, 0, 0, 0, 1)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)


def test_one_line_a_minute_tells_what_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    tally = StatsCounter("http://stats.example.org", lambda: now[0])
    tally.log_problems()
    for _ in range(5):
        tally.add(dropped=1, reason="it is full")
        tally.log_problems()
    now[0] += LOG_INTERVAL_SECONDS
    tally.log_problems()
    tally.log_problems()
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER_NAME]
    assert lines == [
        "reporting to http://stats.example.org: it is full; 0 sent, 0 refused, 1 dropped so far",
        "reporting to http://stats.example.org: it is full; 0 sent, 0 refused, 5 dropped so far",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
