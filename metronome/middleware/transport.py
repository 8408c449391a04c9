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
from metronome.middleware.current_request import Hit, Tracked
from metronome.middleware.events import Reports
from metronome.middleware.matomo import Matomo
from metronome.middleware.native import Native
from metronome.middleware.response_policy import Answer, Verdict, later
from metronome.middleware.stats import Tally, shown

FAILURES: Final = (OSError, HTTPException, ValueError)
"""What may go wrong on a line; a `ValueError` is of an answer that is no HTTP."""

_BODY_MAX_BYTES: Final = 1_048_576
_AT_ONCE: Final = 65_536


class Connection:
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
        self._secure = parts.scheme == "https"
        self._timeout = timeout_seconds
        self._line: HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Post a body and return what is answered.

        Raises:
            OSError: the target is away, or did not answer in time. It may have taken the body all the same.
            HTTPException: what it answered is no HTTP.
            ValueError: likewise.

        """
        line, self._line = self._line, None
        if line is not None:
            try:
                return self._post(line, body, headers)
            except ConnectionError:
                # Nobody was at fault: targets close lines over which nothing comes for a while.
                pass
        return self._post(self._open(), body, headers)

    def _post(self, line: HTTPConnection, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            line.request("POST", self._path, body, dict(headers))
            response = line.getresponse()
            found = bytearray()
            deadline = monotonic() + self._timeout
            while part := response.read1(_AT_ONCE):
                found += part
                if len(found) > _BODY_MAX_BYTES or monotonic() > deadline:
                    raise TimeoutError("the answer does not end")
            answered = {name.lower(): value for name, value in response.getheaders()}
            if response.will_close or not response.isclosed():
                line.close()
            else:
                self._line = line
            return Answer(response.status, answered, bytes(found))
        except BaseException:
            line.close()
            raise

    def close(self) -> None:
        """Close the line, if one is open."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _open(self) -> HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        return HTTPConnection(self._host, self._port, timeout=self._timeout)


_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 30.0
_HURRIED_PAUSE_SECONDS: Final = 0.1
_DELIVERY_AT_ONCE: Final = 16
_IDEMPOTENCY_KEY: Final = "Idempotency-Key"


class Wire(Protocol):
    """How a target is spoken to: `Native` says what each of these is."""

    @property
    def url(self) -> str:
        """Where batches go."""

    @property
    def headers(self) -> dict[str, str]:
        """What goes with each."""

    @property
    def begin(self) -> bytes:
        """What stands before a batch's first event."""

    @property
    def between(self) -> bytes:
        """What stands between two."""

    @property
    def end(self) -> bytes:
        """What stands behind the last."""

    def encode(self, fields: Mapping[str, Any], identity: str) -> bytes:
        """Return an event as it goes out."""

    def judge(self, answer: Answer, count: int) -> Verdict:
        """Say what an answer means for a batch."""


def wire_of(config: ClientConfig) -> Wire:
    """Return how the target of a configuration is spoken to."""
    return Matomo(config) if config.protocol == "matomo" else Native(config)


class Delivery:
    """Delivers batches, one after the other, in the thread that calls it.

    Args:
        config: where to, and how hard to try.
        tally: where it is counted what became of them.
        hurry: is set while somebody waits for the end: pauses are short then.
        ended: is set when nobody waits any more: what is not delivered then is dropped.

    """

    def __init__(self, config: ClientConfig, tally: Tally, hurry: threading.Event, ended: threading.Event) -> None:
        self._config = config
        self._tally = tally
        self._hurry = hurry
        self._ended = ended
        self._reports = Reports(config)
        self._wire = wire_of(config)
        self._connection = Connection(self._wire.url, config.timeout_seconds)
        # Names of events that no other process gives, and this one never again.
        self._prefix = token_hex(8)
        self._named = 0
        self._random = SystemRandom()

    def deliver(self, seen: Sequence[Hit | Tracked]) -> None:
        """Deliver what was seen, all that can be written, in as many requests as it takes."""
        room = self._config.batch_max_bytes
        batch: list[bytes] = []
        size = 0
        for event in self._encoded(seen):
            if batch and size + len(event) + 1 > room:
                self._send(batch)
                batch, size = [], 0
            batch.append(event)
            size += len(event) + 1
        if batch:
            self._send(batch)

    def close(self) -> None:
        """Close the line to the target."""
        self._connection.close()

    def _encoded(self, seen: Sequence[Hit | Tracked]) -> list[bytes]:
        made: list[bytes] = []
        for one in seen:
            self._named += 1
            if self._named % _DELIVERY_AT_ONCE == 0:
                # Lets the host's own threads go first: Python itself would have them wait for 5 ms.
                time.sleep(0)
            try:
                made.append(self._wire.encode(self._reports.event(one), f"{self._prefix}{self._named:x}"))
            except Exception as error:  # noqa: BLE001  # whatever the host put into it, the others go out
                self._tally.add(refused=1, reason=f"an event cannot be written: {shown(error)}")
        return made

    def _send(self, batch: list[bytes]) -> None:
        """Send a batch until it is taken, refused, or there is no more patience."""
        wire = self._wire
        body = wire.begin + wire.between.join(batch) + wire.end
        # By it, Metronome knows a bulk of Matomo's again; Matomo itself does not look at it.
        headers = wire.headers | {_IDEMPOTENCY_KEY: f"{self._prefix}-{self._named:x}"}
        pause, deadline = _FIRST_PAUSE_SECONDS, None
        while (verdict := self._post(body, headers, len(batch))).again:
            now = time.monotonic()
            deadline = deadline or now + self._config.patience_seconds
            self._tally.add(reason=verdict.reason)
            self._tally.tell()
            if now >= deadline or self._ended.is_set():
                self._tally.add(dropped=len(batch))
                return
            rest = max(verdict.wait, pause * self._random.uniform(0.5, 1))
            self._rest(min(rest, deadline - now), verdict.wait)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        self._tally.add(sent=verdict.sent, refused=verdict.refused, reason=verdict.reason)
        if verdict.smaller:
            half = len(batch) // 2
            self._send(batch[:half])
            self._send(batch[half:])

    def _post(self, body: bytes, headers: Mapping[str, str], count: int) -> Verdict:
        try:
            answer = self._connection.post(body, headers)
        except FAILURES as error:
            return later(f"{self._wire.url} does not answer: {str(error) or type(error).__name__}; it is tried again")
        return self._wire.judge(answer, count)

    def _rest(self, seconds: float, asked_for: float) -> None:
        if self._hurry.is_set():
            time.sleep(min(seconds, max(asked_for, _HURRIED_PAUSE_SECONDS)))
        else:
            self._hurry.wait(seconds)
