"""Delivery in the background: the queue, its thread, HTTP requests to the target, retries, and counts."""

import contextlib
import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from random import SystemRandom
from secrets import token_hex
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import RequestRecord, TrackedEvent
from metronome.middleware.events import EventBuilder

LOGGER_NAME: Final = "metronome.middleware"
LOG_INTERVAL_SECONDS: Final = 60.0
THREAD_NAME: Final = "metronome-reports"
QUEUE_FULL_REASON: Final = "the queue is full: the target is unavailable or the host too busy, or raise queue_max"
_POLL_SECONDS: Final = 0.005
_MAX_ERROR_CHARACTERS: Final = 300

_log = logging.getLogger(LOGGER_NAME)


class Stats(NamedTuple):
    """Counts of reports since the process started.

    Attributes:
        sent: accepted by the target.
        rejected: rejected by the target, or not encodable.
        dropped: given up because the queue was full or retries timed out.
        queued: waiting or being sent.
        errors: errors in reporting itself, hidden from the host.

    """

    sent: int
    rejected: int
    dropped: int
    queued: int
    errors: int


class StatsCounter:
    """Counts reports from any thread, and logs problems at most once a minute.

    Args:
        target: URL for the log.
        clock: returns monotonic seconds.

    """

    def __init__(self, target: str, clock: Callable[[], float]) -> None:
        self._target = target
        self._clock = clock
        self._lock = threading.Lock()
        self._sent = self._rejected = self._dropped = self._errors = 0
        self._reason = ""
        self._logged_at: float | None = None

    def add(self, *, sent: int = 0, rejected: int = 0, dropped: int = 0, errors: int = 0, reason: str = "") -> None:
        """Add to the counts; the latest *reason* is logged."""
        with self._lock:
            self._sent += sent
            self._rejected += rejected
            self._dropped += dropped
            self._errors += errors
            self._reason = reason or self._reason

    def stats(self, queued: int) -> Stats:
        """Return the counts, with *queued* as the length of the queue."""
        with self._lock:
            return Stats(self._sent, self._rejected, self._dropped, queued, self._errors)

    def log_problems(self) -> None:
        """Log the latest problem, unless something was logged less than a minute ago."""
        if not self._reason:
            return
        now = self._clock()
        with self._lock:
            if self._logged_at is not None and now < self._logged_at + LOG_INTERVAL_SECONDS:
                return
            self._logged_at, reason, self._reason = now, self._reason, ""
        # A host's log handler may raise.
        with contextlib.suppress(Exception):
            _log.warning(
                "reporting to %s: %s; %d sent, %d rejected, %d dropped so far",
                *(self._target, reason, self._sent, self._rejected, self._dropped),
            )


def describe_error(error: BaseException) -> str:
    """Return an error's `repr`, or its type if that raises."""
    try:
        return repr(error)[:_MAX_ERROR_CHARACTERS]
    except Exception:  # noqa: BLE001  # a host's exception may have a broken __repr__
        return type(error).__name__


class TargetResponse(NamedTuple):
    """A target's response: status, headers with lower-case names, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class SendOutcome(NamedTuple):
    """The outcome of sending a batch.

    Attributes:
        sent: number of accepted events.
        rejected: number of rejected events.
        retry: whether to send the whole batch again later.
        split: whether to send the batch again in smaller ones.
        retry_after: minimum seconds to wait before a retry.
        reason: a problem and its remedy, for the log; empty if there is none.

    """

    sent: int = 0
    rejected: int = 0
    retry: bool = False
    split: bool = False
    retry_after: float = 0.0
    reason: str = ""


_PAYLOAD_TOO_LARGE: Final = 413
_RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})
_AUTH_STATUSES: Final = frozenset({401, 403})
_WRONG_URL_STATUSES: Final = frozenset({404, 405, *range(300, 400)})
_MIN_SERVER_ERROR: Final = 500
_MAX_RETRY_AFTER_DIGITS: Final = 9
_MAX_RETRY_AFTER_SECONDS: Final = 300.0
_MAX_BODY_CHARACTERS: Final = 200


def retry_later(reason: str, retry_after: float = 0.0) -> SendOutcome:
    """Return the outcome of a batch that the target may accept later."""
    return SendOutcome(retry=True, retry_after=retry_after, reason=reason)


def evaluate_failure(response: TargetResponse, count: int, url: str) -> SendOutcome:
    """Return the outcome of a batch from a response that is not successful.

    Args:
        response: the response; its status is not 2xx.
        count: number of events in the batch.
        url: URL of the request, for the log.

    """
    status = response.status
    problem = f"{url} responded with status {status}{_format_body(response.body)}"
    if status >= _MIN_SERVER_ERROR or status in _RETRYABLE_STATUSES:
        return retry_later(f"{problem}; retrying", _parse_retry_after(response.headers.get("retry-after", "")))
    if status == _PAYLOAD_TOO_LARGE:
        if count > 1:
            return SendOutcome(split=True, reason=f"{problem}: lower batch_max_bytes")
        return SendOutcome(rejected=1, reason=f"{problem}: make the event smaller")
    if status in _AUTH_STATUSES:
        return SendOutcome(rejected=count, reason=f"{problem}: check the key and its scope")
    if status in _WRONG_URL_STATUSES:
        return SendOutcome(rejected=count, reason=f"{problem}: check the URL")
    return SendOutcome(rejected=count, reason=problem)


def _parse_retry_after(header: str) -> float:
    # The form with a date is ignored: the backoff grows in any case.
    seconds = header.strip()
    is_number = seconds.isascii() and seconds.isdigit() and len(seconds) <= _MAX_RETRY_AFTER_DIGITS
    return min(float(seconds), _MAX_RETRY_AFTER_SECONDS) if is_number else 0.0


def _format_body(body: bytes) -> str:
    text = " ".join(body[: 4 * _MAX_BODY_CHARACTERS].decode(errors="replace").split())[:_MAX_BODY_CHARACTERS]
    return f" ({text})" if text and text.isprintable() else ""


CONNECTION_ERRORS: Final = (OSError, HTTPException, ValueError)
"""Errors of an HTTP request; `ValueError` is raised for some invalid responses."""
_RESPONSE_MAX_BYTES: Final = 1_048_576
_READ_BYTES: Final = 65_536


class TargetConnection:
    """A persistent HTTP connection to one URL, reopened when the target has closed it.

    Proxies of the environment are ignored: reports go directly from the host to the target.

    Args:
        url: URL to post to.
        timeout_seconds: timeout of each socket operation, and of reading a response's body.

    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._is_https = parts.scheme == "https"
        self._timeout = timeout_seconds
        self._connection: HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> TargetResponse:
        """Post a body and return the response.

        Raises:
            OSError: the target is unreachable or timed out. It may have received the body.
            HTTPException: the response is not valid HTTP.
            ValueError: the response is not valid HTTP.

        """
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                return self._post(connection, body, headers)
            except ConnectionError:
                # Not a failure: servers close connections that have been idle for a while.
                pass
        return self._post(self._open(), body, headers)

    def _post(self, connection: HTTPConnection, body: bytes, headers: Mapping[str, str]) -> TargetResponse:
        try:
            connection.request("POST", self._path, body, dict(headers))
            response = connection.getresponse()
            response_body = bytearray()
            deadline = time.monotonic() + self._timeout
            while chunk := response.read1(_READ_BYTES):
                response_body += chunk
                if len(response_body) > _RESPONSE_MAX_BYTES or time.monotonic() > deadline:
                    raise TimeoutError("the response is too long or too slow")
            response_headers = {name.lower(): value for name, value in response.getheaders()}
            if response.will_close or not response.isclosed():
                connection.close()
            else:
                self._connection = connection
            return TargetResponse(response.status, response_headers, bytes(response_body))
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the connection if it is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> HTTPConnection:
        if self._is_https:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout)


class TargetProtocol(Protocol):
    """How to talk to a target: URL, headers, encoding of a batch, and meaning of responses."""

    @property
    def url(self) -> str:
        """URL to post batches to."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of each request."""

    @property
    def body_prefix(self) -> bytes:
        """Bytes before a batch's first event."""

    @property
    def separator(self) -> bytes:
        """Bytes between two events."""

    @property
    def body_suffix(self) -> bytes:
        """Bytes after a batch's last event."""

    def encode(self, fields: Mapping[str, Any], event_id: str) -> bytes:
        """Return an encoded event.

        Args:
            fields: the event's fields.
            event_id: identifies the event if it is sent again.

        """

    def evaluate_response(self, response: TargetResponse, count: int) -> SendOutcome:
        """Return the outcome of a batch of *count* events."""


_FIRST_BACKOFF_SECONDS: Final = 0.25
_MAX_BACKOFF_SECONDS: Final = 30.0
_FLUSH_BACKOFF_SECONDS: Final = 0.1
_YIELD_INTERVAL: Final = 16
_IDEMPOTENCY_KEY: Final = "Idempotency-Key"


class Transport:
    """Encodes records and sends them in batches, with retries, in the calling thread.

    Args:
        config: the reporter's configuration.
        protocol: how to talk to the target.
        stats: counts the outcomes.
        flush_requested: set while a caller waits for the queue to drain: the backoff is then short.
        stopped: set when the reporter has been closed: undelivered batches are then dropped.

    """

    def __init__(
        self,
        config: ClientConfig,
        protocol: TargetProtocol,
        stats: StatsCounter,
        flush_requested: threading.Event,
        stopped: threading.Event,
    ) -> None:
        self._config = config
        self._stats = stats
        self._flush_requested = flush_requested
        self._stopped = stopped
        self._event_builder = EventBuilder(config)
        self._protocol = protocol
        self._connection = TargetConnection(protocol.url, config.timeout_seconds)
        # Event IDs are unique across processes.
        self._id_prefix = token_hex(8)
        self._last_id = 0
        self._random = SystemRandom()

    def send(self, records: Sequence[RequestRecord | TrackedEvent]) -> None:
        """Send records, in as many requests as the size limit requires."""
        max_bytes = self._config.batch_max_bytes
        batch: list[bytes] = []
        size = 0
        for event in self._encode_records(records):
            if batch and size + len(event) + 1 > max_bytes:
                self._send_with_retries(batch)
                batch, size = [], 0
            batch.append(event)
            size += len(event) + 1
        if batch:
            self._send_with_retries(batch)

    def close(self) -> None:
        """Close the connection to the target."""
        self._connection.close()

    def _encode_records(self, records: Sequence[RequestRecord | TrackedEvent]) -> list[bytes]:
        encoded: list[bytes] = []
        for record in records:
            self._last_id += 1
            if self._last_id % _YIELD_INTERVAL == 0:
                # Releases the GIL: otherwise the host's threads wait for it for up to 5 ms.
                time.sleep(0)
            try:
                event = self._event_builder.build_event(record)
                encoded.append(self._protocol.encode(event, f"{self._id_prefix}{self._last_id:x}"))
            except Exception as error:  # noqa: BLE001  # fields are the host's own; the other events must go out
                self._stats.add(rejected=1, reason=f"an event cannot be encoded: {describe_error(error)}")
        return encoded

    def _send_with_retries(self, batch: list[bytes]) -> None:
        protocol = self._protocol
        body = protocol.body_prefix + protocol.separator.join(batch) + protocol.body_suffix
        # Metronome deduplicates Matomo's bulk requests by this header, which Matomo ignores.
        headers = protocol.headers | {_IDEMPOTENCY_KEY: f"{self._id_prefix}-{self._last_id:x}"}
        backoff, deadline = _FIRST_BACKOFF_SECONDS, None
        while (outcome := self._post(body, headers, len(batch))).retry:
            now = time.monotonic()
            deadline = deadline or now + self._config.retry_timeout_seconds
            self._stats.add(reason=outcome.reason)
            self._stats.log_problems()
            if now >= deadline or self._stopped.is_set():
                self._stats.add(dropped=len(batch))
                return
            pause = max(outcome.retry_after, backoff * self._random.uniform(0.5, 1))
            self._wait(min(pause, deadline - now), outcome.retry_after)
            backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
        self._stats.add(sent=outcome.sent, rejected=outcome.rejected, reason=outcome.reason)
        if outcome.split:
            half = len(batch) // 2
            self._send_with_retries(batch[:half])
            self._send_with_retries(batch[half:])

    def _post(self, body: bytes, headers: Mapping[str, str], count: int) -> SendOutcome:
        try:
            response = self._connection.post(body, headers)
        except CONNECTION_ERRORS as error:
            return retry_later(f"{self._protocol.url} is unreachable: {str(error) or type(error).__name__}; retrying")
        return self._protocol.evaluate_response(response, count)

    def _wait(self, seconds: float, retry_after: float) -> None:
        if self._flush_requested.is_set():
            time.sleep(min(seconds, max(retry_after, _FLUSH_BACKOFF_SECONDS)))
        else:
            self._flush_requested.wait(seconds)


class BackgroundSender:
    """A bounded queue that any thread may append to, and a thread that sends it, started by the first record.

    Args:
        config: the reporter's configuration.
        protocol: how to talk to the target.
        stats: counts the outcomes.

    """

    def __init__(self, config: ClientConfig, protocol: TargetProtocol, stats: StatsCounter) -> None:
        self._config = config
        self._protocol = protocol
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
        """Queue a record; if the queue is full, drop and count it."""
        queue = self._queue
        length = len(queue)
        if length >= self._queue_max:
            self._stats.add(dropped=1, reason=QUEUE_FULL_REASON)
            return
        queue.append(record)
        # The thread clears this event before it reads the queue, so that no record is missed.
        if not self._has_records.is_set():
            self._has_records.set()
        if self._thread is None:
            self._start_thread()
        if length >= self._batch_max_events and not self._batch_is_full.is_set():
            self._batch_is_full.set()

    @property
    def queued(self) -> int:
        """Number of records that are waiting or being sent."""
        return len(self._queue) + self._in_flight

    def flush(self, timeout: float) -> bool:
        """Wait until the queue is drained, at most *timeout* seconds; return whether it is."""
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
        """Drop the queued records and let the thread end."""
        self._stopped.set()
        length = len(self._queue)
        self._queue.clear()
        self._stats.add(dropped=length)
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
                    # The interpreter is shutting down, or the system has no more threads.
                    self._stats.add(errors=1, reason=describe_error(error))
                    return
                self._thread = thread

    def _run(self) -> None:
        transport = Transport(self._config, self._protocol, self._stats, self._flush_requested, self._stopped)
        while not self._stopped.is_set():
            self._has_records.wait()
            if len(self._queue) < self._batch_max_events and not self._flush_requested.is_set():
                self._batch_is_full.wait(self._config.flush_interval_seconds)
            try:
                self._send_batch(transport)
            except Exception as error:  # noqa: BLE001  # the thread must survive any error
                self._stats.add(dropped=self._in_flight, errors=1, reason=describe_error(error))
            self._in_flight = 0
            self._stats.log_problems()
        transport.close()

    def _send_batch(self, transport: Transport) -> None:
        queue = self._queue
        self._has_records.clear()
        self._batch_is_full.clear()
        # Counted before they are removed from the queue: `flush` must not see both at zero in between.
        self._in_flight = count = min(len(queue), self._batch_max_events)
        batch = [queue.popleft() for _ in range(count)]
        if queue:
            self._has_records.set()
        if batch:
            transport.send(batch)
