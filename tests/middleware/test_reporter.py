"""Delivery of reports to targets that work, fail, reject or do not respond: real servers on the loopback."""

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

import pytest
import trustme

from metronome.middleware.config import ClientConfig
from metronome.middleware.reporter import Reporter
from metronome.middleware.transport import LOG_INTERVAL_SECONDS, LOGGER_NAME, THREAD_NAME, StatsCounter
from tests.middleware.recorder import CannedResponse, ReceivedRequest, Recorder, Respond, accept_all, recording
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


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_closed(recorder: Recorder, connections: int) -> bool:
    return recorder.closed_connections == connections


def first_then_accept(first: CannedResponse) -> Respond:
    """Respond to the first request with *first* and accept all others."""
    pending = [first]
    return lambda request: pending.pop() if pending else accept_all(request)


def test_events_arrive_in_order_in_batches_over_one_connection() -> None:
    with recording() as recorder, reporting(recorder.url, batch_max_events=100, key="k") as reporter:
        track(reporter, 250)
        assert reporter.flush()
        assert [event["id"] for event in recorder.events()] == [f"d{number}" for number in range(250)]
        assert len({event["event_id"] for event in recorder.events()}) == 250
        assert reporter.stats() == (250, 0, 0, 0, 0)
        assert {request.headers["authorization"] for request in recorder.requests} == {"Bearer k"}
        assert max(len(request.body.splitlines()) for request in recorder.requests) <= 100


def test_no_request_exceeds_batch_max_bytes() -> None:
    with recording() as recorder, reporting(recorder.url, batch_max_bytes=2000) as reporter:
        track(reporter, 100)
        assert reporter.flush()
        assert max(len(request.body) for request in recorder.requests) <= 2000
        assert len(recorder.events()) == 100


@pytest.mark.parametrize(
    "first",
    [
        CannedResponse(503, headers={"Retry-After": "0"}),
        CannedResponse(429),
        CannedResponse(500, b"\xff garbage"),
        CannedResponse(None),
        CannedResponse(200, b"<html>another server</html>"),
        CannedResponse(200, b"", {"Content-Length": "9", "Connection": "close"}),
    ],
    ids=["503", "429", "500", "closed", "garbage", "truncated"],
)
def test_a_failed_batch_is_sent_again_unchanged(first: CannedResponse) -> None:
    with recording(first_then_accept(first)) as recorder, reporting(recorder.url) as reporter:
        track(reporter, 3)
        recorder.wait_for_requests(2)
        assert reporter.flush()
        assert recorder.requests[0].body == recorder.requests[1].body
        assert reporter.stats() == (3, 0, 0, 0, 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301])
def test_a_rejected_batch_is_counted_and_logged_and_the_next_one_is_sent(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with recording(first_then_accept(CannedResponse(status))) as recorder, reporting(recorder.url) as reporter:
        track(reporter, 3)
        assert reporter.flush()
        track(reporter, 2)
        assert reporter.flush()
        assert reporter.stats() == (2, 3, 0, 0, 0)
    (line,) = [record.getMessage() for record in caplog.records if record.name == LOGGER_NAME]
    assert f"responded with status {status}" in line


def test_a_batch_that_is_too_large_is_split_until_it_fits() -> None:
    def respond(request: ReceivedRequest) -> CannedResponse:
        lines = request.body.splitlines()
        return accept_all(request) if len(lines) < 4 and b'"d5"' not in request.body else CannedResponse(413)

    with recording(respond) as recorder, reporting(recorder.url, flush_interval_seconds=0.2) as reporter:
        track(reporter, 10)
        assert reporter.flush()
        assert reporter.stats() == (9, 1, 0, 0, 0)


def test_an_event_that_cannot_be_encoded_does_not_affect_others() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("the host's own")

    with recording() as recorder, reporting(recorder.url) as reporter:
        reporter.track("view", id=Broken())
        reporter.track("view", id="valid")
        assert reporter.flush()
        assert [event["id"] for event in recorder.events()] == ["valid"]
        assert reporter.stats() == (1, 1, 0, 0, 0)


def test_while_the_target_is_unreachable_the_queue_fills_and_further_events_are_dropped() -> None:
    port = free_port()
    with reporting(f"http://127.0.0.1:{port}", queue_max=50, batch_max_events=10) as reporter:
        track(reporter, 10)
        wait_until(lambda: not reporter._sender._queue)  # only the first batch is in flight
        track(reporter, 80)
        assert reporter.stats() == (0, 0, 30, 60, 0)
        assert not reporter.flush(0.2)
        assert not reporter.close(0)
        wait_until(lambda: reporter.stats().dropped == 90)


def test_a_batch_is_dropped_after_the_retry_timeout_and_the_next_one_is_sent() -> None:
    def respond(request: ReceivedRequest) -> CannedResponse:
        return CannedResponse(503) if b'"d0"' in request.body else accept_all(request)

    config = {"retry_timeout_seconds": 0.3, "batch_max_events": 1}
    with recording(respond) as recorder, reporting(recorder.url, **config) as reporter:
        track(reporter, 2)
        wait_until(lambda: reporter.stats().queued == 0)
        assert reporter.stats() == (1, 0, 1, 0, 0)


def test_a_target_that_never_responds_does_not_delay_the_close() -> None:
    # Accepts connections and never responds.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with reporting(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.05) as reporter:
            track(reporter, 5)
            wait_until(lambda: reporter._stats._logged_at is not None)  # a request has timed out
            assert not reporter.close(0.1)
        assert reporter.stats().sent == 0


def test_a_closed_reporter_restarts_with_the_next_event() -> None:
    with recording() as recorder, reporting(recorder.url) as reporter:
        track(reporter, 1)
        assert reporter.close()
        wait_until(lambda: THREAD_NAME not in [thread.name for thread in threading.enumerate()])
        track(reporter, 1)
        assert reporter.close()
        assert reporter.stats() == (2, 0, 0, 0, 0)


def test_a_connection_that_the_target_has_closed_is_reopened_without_a_warning(
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


@pytest.mark.parametrize(("trusted", "sent"), [(True, b"1"), (False, b"0")])
def test_over_tls_only_a_target_with_a_trusted_certificate_receives_events(
    trusted: bool,  # noqa: FBT001  # a parameter of the test
    sent: bytes,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    (trustme.CA() if not trusted else authority).cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with recording(tls=context) as recorder:
        run = subprocess.run(
            [sys.executable, "-c", OVER_TLS, recorder.url, "20" if trusted else "0.5"],
            env=os.environ | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")},
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert run.stdout.strip() == sent
        assert len(recorder.requests) == int(sent)
    assert trusted or b"certificate verify failed" in run.stderr


def test_flush_before_the_first_event_returns_at_once() -> None:
    with recording() as recorder, reporting(recorder.url) as reporter:
        assert reporter.flush()
        track(reporter, 1)
        assert reporter.flush()
        assert reporter.stats() == (1, 0, 0, 0, 0)


def test_many_threads_can_report_at_once() -> None:
    with recording() as recorder, reporting(recorder.url, batch_max_events=64) as reporter:
        threads = [threading.Thread(target=track, args=(reporter, 500)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert reporter.flush()
        assert reporter.stats() == (4000, 0, 0, 0, 0)
        assert len({event["event_id"] for event in recorder.events()}) == 4000


def test_no_event_stays_in_the_queue_whatever_the_timing_of_threads() -> None:
    with recording() as recorder, reporting(recorder.url, flush_interval_seconds=0.0, batch_max_events=1) as reporter:
        for number in range(300):
            track(reporter, 1)
            if number % 3:
                time.sleep(0.0005)
        wait_until(lambda: reporter.stats().sent == 300)


def test_a_forked_process_sends_only_its_own_events() -> None:
    with recording() as recorder, reporting(recorder.url, flush_interval_seconds=60.0) as reporter:
        reporter.track("view", id="parent")
        child = os.fork()
        if not child:
            reporter.track("view", id="child")
            os._exit(0 if reporter.flush() and reporter.stats() == (1, 0, 0, 0, 0) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert [event["id"] for event in recorder.events()] == ["child"]
        assert reporter.flush()
        assert sorted(event["id"] for event in recorder.events()) == ["child", "parent"]
        assert len({event["event_id"] for event in recorder.events()}) == 2


def test_a_retried_matomo_bulk_request_has_the_same_idempotency_key() -> None:
    with (
        recording(first_then_accept(CannedResponse(503))) as recorder,
        reporting(recorder.url, protocol="matomo") as reporter,
    ):
        reporter.track("view", url="https://example.org/")
        recorder.wait_for_requests(2)
        assert reporter.flush()
        first, second = recorder.requests
        assert first.path == "/matomo.php"
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
        assert first.body == second.body


class Unprintable(Exception):
    """An error whose repr raises."""

    def __repr__(self) -> str:
        raise ValueError("no")


class Raising(logging.Handler):
    """A log handler that raises."""

    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError(record.name)


def test_broken_exceptions_and_log_handlers_of_the_host_do_not_stop_reporting() -> None:
    handler = Raising()
    logging.getLogger(LOGGER_NAME).addHandler(handler)
    try:
        with recording(first_then_accept(CannedResponse(503))) as recorder, reporting(recorder.url) as reporter:
            reporter.count_error(Unprintable())
            track(reporter, 2)
            assert reporter.flush()
            assert reporter.stats() == (2, 0, 0, 0, 1)
    finally:
        logging.getLogger(LOGGER_NAME).removeHandler(handler)


def test_problems_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    counter = StatsCounter("http://stats.example.org", lambda: now[0])
    counter.log_problems()
    for _ in range(5):
        counter.add(dropped=1, reason="the queue is full")
        counter.log_problems()
    now[0] += LOG_INTERVAL_SECONDS
    counter.log_problems()
    counter.log_problems()
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER_NAME]
    assert lines == [
        "reporting to http://stats.example.org: the queue is full; 0 sent, 0 rejected, 1 dropped so far",
        "reporting to http://stats.example.org: the queue is full; 0 sent, 0 rejected, 5 dropped so far",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
