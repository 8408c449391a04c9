"""Brings batches to the target, and again where it is busy or away.

The line to a target: one that is kept open, over which batches are posted.
"""

import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from random import SystemRandom
from secrets import token_hex
from time import monotonic
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from metronome.middleware.config import ClientConfig
from metronome.middleware.current_request import RequestRecord, TrackedEvent
from metronome.middleware.events import EventBuilder
from metronome.middleware.matomo import MatomoProtocol
from metronome.middleware.native import TickProtocol
from metronome.middleware.response_policy import SendOutcome, TargetResponse, retry_later
from metronome.middleware.stats import StatsCounter, describe_error

CONNECTION_ERRORS: Final = (OSError, HTTPException, ValueError)
"""What may go wrong on a line; a `ValueError` is of an answer that is no HTTP."""

_RESPONSE_MAX_BYTES: Final = 1_048_576
_READ_BYTES: Final = 65_536


class TargetConnection:
    """Posts to one address, and opens the line anew where it was closed.

    Proxies that the environment names are not asked: what is reported stays between host and target.

    Args:
        url: the address.
        timeout_seconds: how long the target may be silent, and how long an answer's body may take.

    """

    def __init__(self, url: str, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._is_https = parts.scheme == "https"
        self._timeout = timeout_seconds
        self._connection: HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> TargetResponse:
        """Post a body and return what is answered.

        Raises:
            OSError: the target is away, or did not answer in time. It may have taken the body all the same.
            HTTPException: what it answered is no HTTP.
            ValueError: likewise.

        """
        line, self._connection = self._connection, None
        if line is not None:
            try:
                return self._post(line, body, headers)
            except ConnectionError:
                # Nobody was at fault: targets close lines over which nothing comes for a while.
                pass
        return self._post(self._open(), body, headers)

    def _post(self, connection: HTTPConnection, body: bytes, headers: Mapping[str, str]) -> TargetResponse:
        try:
            connection.request("POST", self._path, body, dict(headers))
            response = connection.getresponse()
            found = bytearray()
            deadline = monotonic() + self._timeout
            while part := response.read1(_READ_BYTES):
                found += part
                if len(found) > _RESPONSE_MAX_BYTES or monotonic() > deadline:
                    raise TimeoutError("the answer does not end")
            answered = {name.lower(): value for name, value in response.getheaders()}
            if response.will_close or not response.isclosed():
                connection.close()
            else:
                self._connection = connection
            return TargetResponse(response.status, answered, bytes(found))
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the line, if one is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> HTTPConnection:
        if self._is_https:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout)


_FIRST_BACKOFF_SECONDS: Final = 0.25
_MAX_BACKOFF_SECONDS: Final = 30.0
_FLUSH_BACKOFF_SECONDS: Final = 0.1
_YIELD_INTERVAL: Final = 16
_IDEMPOTENCY_KEY: Final = "Idempotency-Key"


class TargetProtocol(Protocol):
    """How a target is spoken to: `TickProtocol` says what each of these is."""

    @property
    def url(self) -> str:
        """Where batches go."""

    @property
    def headers(self) -> dict[str, str]:
        """What goes with each."""

    @property
    def body_prefix(self) -> bytes:
        """What stands before a batch's first event."""

    @property
    def separator(self) -> bytes:
        """What stands between two."""

    @property
    def body_suffix(self) -> bytes:
        """What stands behind the last."""

    def encode(self, fields: Mapping[str, Any], event_id: str) -> bytes:
        """Return an event as it goes out."""

    def evaluate_response(self, response: TargetResponse, count: int) -> SendOutcome:
        """Say what an answer means for a batch."""


def create_protocol(config: ClientConfig) -> TargetProtocol:
    """Return how the target of a configuration is spoken to."""
    return MatomoProtocol(config) if config.protocol == "matomo" else TickProtocol(config)


class Transport:
    """Delivers batches, one after the other, in the thread that calls it.

    Args:
        config: where to, and how hard to try.
        stats: where it is counted what became of them.
        flush_requested: is set while somebody waits for the end: pauses are short then.
        stopped: is set when nobody waits any more: what is not delivered then is dropped.

    """

    def __init__(
        self, config: ClientConfig, stats: StatsCounter, flush_requested: threading.Event, stopped: threading.Event
    ) -> None:
        self._config = config
        self._stats = stats
        self._flush_requested = flush_requested
        self._stopped = stopped
        self._event_builder = EventBuilder(config)
        self._protocol = create_protocol(config)
        self._connection = TargetConnection(self._protocol.url, config.timeout_seconds)
        # Names of events that no other process gives, and this one never again.
        self._id_prefix = token_hex(8)
        self._last_id = 0
        self._random = SystemRandom()

    def send(self, records: Sequence[RequestRecord | TrackedEvent]) -> None:
        """Deliver what was seen, all that can be written, in as many requests as it takes."""
        room = self._config.batch_max_bytes
        batch: list[bytes] = []
        size = 0
        for event in self._encode_records(records):
            if batch and size + len(event) + 1 > room:
                self._send_with_retries(batch)
                batch, size = [], 0
            batch.append(event)
            size += len(event) + 1
        if batch:
            self._send_with_retries(batch)

    def close(self) -> None:
        """Close the line to the target."""
        self._connection.close()

    def _encode_records(self, records: Sequence[RequestRecord | TrackedEvent]) -> list[bytes]:
        made: list[bytes] = []
        for one in records:
            self._last_id += 1
            if self._last_id % _YIELD_INTERVAL == 0:
                # Lets the host's own threads go first: Python itself would have them wait for 5 ms.
                time.sleep(0)
            try:
                made.append(
                    self._protocol.encode(self._event_builder.build_event(one), f"{self._id_prefix}{self._last_id:x}")
                )
            except Exception as error:  # noqa: BLE001  # whatever the host put into it, the others go out
                self._stats.add(rejected=1, reason=f"an event cannot be written: {describe_error(error)}")
        return made

    def _send_with_retries(self, batch: list[bytes]) -> None:
        """Send a batch until it is taken, refused, or there is no more patience."""
        wire = self._protocol
        body = wire.body_prefix + wire.separator.join(batch) + wire.body_suffix
        # By it, Metronome knows a bulk of Matomo's again; Matomo itself does not look at it.
        headers = wire.headers | {_IDEMPOTENCY_KEY: f"{self._id_prefix}-{self._last_id:x}"}
        pause, deadline = _FIRST_BACKOFF_SECONDS, None
        while (verdict := self._post(body, headers, len(batch))).retry:
            now = time.monotonic()
            deadline = deadline or now + self._config.retry_timeout_seconds
            self._stats.add(reason=verdict.reason)
            self._stats.log_problems()
            if now >= deadline or self._stopped.is_set():
                self._stats.add(dropped=len(batch))
                return
            rest = max(verdict.retry_after, pause * self._random.uniform(0.5, 1))
            self._wait(min(rest, deadline - now), verdict.retry_after)
            pause = min(pause * 2, _MAX_BACKOFF_SECONDS)
        self._stats.add(sent=verdict.sent, rejected=verdict.rejected, reason=verdict.reason)
        if verdict.split:
            half = len(batch) // 2
            self._send_with_retries(batch[:half])
            self._send_with_retries(batch[half:])

    def _post(self, body: bytes, headers: Mapping[str, str], count: int) -> SendOutcome:
        try:
            answer = self._connection.post(body, headers)
        except CONNECTION_ERRORS as error:
            return retry_later(
                f"{self._protocol.url} does not answer: {str(error) or type(error).__name__}; it is tried again"
            )
        return self._protocol.evaluate_response(answer, count)

    def _wait(self, seconds: float, retry_after: float) -> None:
        if self._flush_requested.is_set():
            time.sleep(min(seconds, max(retry_after, _FLUSH_BACKOFF_SECONDS)))
        else:
            self._flush_requested.wait(seconds)
