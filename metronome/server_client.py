"""HTTP client for a running Metronome server: single requests, and uploads of batches that are retried.

aiohttp is imported when a request is made, because it takes longer to import than the rest of a command.
"""

import asyncio
import contextlib
import math
import os
import socket
import ssl
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from http import HTTPStatus
from threading import Thread
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, Self, TypeVar
from urllib.parse import quote

import orjson

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from metronome.errors import ConfigurationError, Malformed, RequestError, ServerUnavailable, Unauthorized
from metronome.retry import Backoff, retry

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

TICK_PATH: Final = "/tick"
DOCUMENTS_PATH: Final = "/documents"
REQUEST_MAX_EVENTS: Final = 10_000
"""Maximum number of events that the server accepts in one request."""
BATCH_MAX_BYTES: Final = 8 * 2**20
"""A batch is full at this size, whatever its number of events: the server decodes at most 16 MiB."""
RETRY_TIMEOUT_SECONDS: Final = 30.0

PENDING_HEADER: Final = "Metronome-Pending"
"""Response header of a report with the number of accepted events that may be missing in it; absent for 0."""

_JSON: Final = "application/json"
_REQUEST_TIMEOUT_SECONDS: Final = 120.0
_UPLOAD_TIMEOUT_SECONDS: Final = 60.0
_UPLOAD_HEADERS: Final = {"Content-Type": "application/x-ndjson", "Content-Encoding": "zstd"}
_MAX_IN_FLIGHT: Final = 2
_NOTIFY_INTERVAL_SECONDS: Final = 60.0
_ZSTD_LEVEL: Final = 1
_BACKOFF: Final = Backoff(0.25, 8.0)
_SUCCESS_STATUSES: Final = frozenset({HTTPStatus.OK, HTTPStatus.ACCEPTED})
_WRONG_URL_STATUSES: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
_KEY_STATUSES: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_KEY_HINT: Final = "; set a key with METRONOME_KEY or --key-file, which `metronome keys create` creates on the server"
_CLIENT_ERRORS: Final = range(400, 500)
_SERVER_ERRORS: Final = range(500, 600)
_MAX_DETAIL_CHARACTERS: Final = 300


class EventLoopThread:
    """Runs coroutines in a thread of its own, so that Ctrl-C interrupts the caller whatever it waits for.

    Coroutines that still run at the end of the ``with`` block are cancelled.

    Args:
        name: name of the thread.

    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(_cancel_other_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine, and return its future result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and return its result."""
        return self.submit(coroutine).result()


async def _cancel_other_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class ServerClient:
    """A Metronome server.

    Attributes:
        url: URL of the server.
        key: API key; None to send none.
        on_pending: called if a report may lack accepted events, with their number.

    Raises:
        ConfigurationError: the key cannot be sent in a header.

    """

    url: str
    key: str | None = None
    on_pending: Callable[[int], None] = lambda _: None

    def __post_init__(self) -> None:
        validate_key(self.key or "")

    def get(self, path: str, media_type: str = _JSON) -> bytes:
        """Return the body of the response to a GET request.

        Args:
            path: path and query, percent-encoded.
            media_type: media type to ask for.

        Raises:
            ServerUnavailable: the server does not respond, or is overloaded.
            RequestError: the server rejects the request; the message has the reason.
            ConfigurationError: the URL is not that of a Metronome server.

        """

        async def send() -> bytes:
            async with self.open_session(_REQUEST_TIMEOUT_SECONDS) as session:
                return await self.request(session, "GET", path, {"Accept": media_type})

        return asyncio.run(send())

    def get_json(self, path: str, *required_keys: str) -> dict[str, Any]:
        """Return the JSON object in the response to a GET request; raises as `get` does."""
        with self.parsing_response(path):
            result = orjson.loads(self.get(path))
            if not isinstance(result, dict) or not result.keys() >= {*required_keys}:
                raise ValueError(required_keys)
            return result

    def post_json(self, path: str, body: Mapping[str, Any], *required_keys: str) -> dict[str, Any]:
        """Send a JSON object, and return the JSON object in the response; raises as `get` does."""

        async def send() -> bytes:
            async with self.open_session(_REQUEST_TIMEOUT_SECONDS) as session:
                headers = {"Accept": _JSON, "Content-Type": _JSON}
                return await self.request(session, "POST", path, headers, orjson.dumps(body))

        with self.parsing_response(path):
            result = orjson.loads(asyncio.run(send()))
            if not isinstance(result, dict) or not result.keys() >= {*required_keys}:
                raise ValueError(required_keys)
            return result

    @contextlib.contextmanager
    def parsing_response(self, path: str) -> Iterator[None]:
        """Raise `ConfigurationError` if parsing the response from *path* fails in the block."""
        try:
            yield
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
            raise self._not_metronome(f"cannot parse the response from {path.partition('?')[0]}") from None

    @contextlib.asynccontextmanager
    async def open_session(self, timeout_seconds: float) -> "AsyncIterator[aiohttp.ClientSession]":
        """Open a session for `request`, in which each request may take *timeout_seconds*."""
        import aiohttp  # noqa: PLC0415  # see the module's docstring

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            yield session

    async def request(
        self,
        session: "aiohttp.ClientSession",
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> bytes:
        """Send a request, and return the body of the response; raises as `get` does."""
        import aiohttp  # noqa: PLC0415  # see the module's docstring
        from yarl import URL  # noqa: PLC0415

        try:
            url = URL(self.url.rstrip("/") + path, encoded=True)
            async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
                text = await response.read()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            raise ConfigurationError(
                f"invalid --url or METRONOME_URL {self.url!r}: expected http://host:port"
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServerUnavailable(
                f"{self.url} does not respond: {_connection_failure(error)}; start the server with `metronome serve`, "
                "or set its URL with --url or METRONOME_URL"
            ) from None
        status = response.status
        if status in _SUCCESS_STATUSES:
            pending = response.headers.get(PENDING_HEADER, "")
            if pending.isascii() and pending.isdigit():
                self.on_pending(int(pending))
            return text
        detail = _problem_detail(text, response.reason)
        if status == HTTPStatus.TOO_MANY_REQUESTS or status in _SERVER_ERRORS:
            retry_after = response.headers.get("Retry-After", "")
            seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
            raise ServerUnavailable(f"{self.url} responds {status} {detail}", seconds)
        if status in _CLIENT_ERRORS and status not in _WRONG_URL_STATUSES:
            # Commands have an option for the key, so the advice about the header would be a second one.
            detail = detail.removesuffix(f"; {Unauthorized.advice}")
            raise RequestError(f"{detail}{_KEY_HINT if status in _KEY_STATUSES else ''}")
        raise self._not_metronome(f"{method} {path.partition('?')[0]} responds {status} {detail}")

    def _not_metronome(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"--url {self.url} is not a Metronome server of this version: {reason}")


class SendableBatch(Protocol):
    """Events or documents that are sent in one request.

    Attributes:
        body: NDJSON.

    """

    @property
    def body(self) -> bytes:
        """NDJSON."""

    def location(self, index: int) -> str:
        """Return where the line of that index comes from."""


B = TypeVar("B", bound=SendableBatch)


class SendResult(NamedTuple, Generic[B]):
    """The server's response to one batch.

    Attributes:
        batch: the batch.
        accepted: how many of its events are on the server's disk.
        rejected: location of each other event, with the server's reason.
        already_stored: how many of the accepted events the server had before, if it says so.

    """

    batch: B
    accepted: int
    rejected: list[tuple[str, str]]
    already_stored: int = 0


def rate_limited(notify: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that passes on at most one message a minute."""
    notified_at = -math.inf

    def notify_if_due(message: str) -> None:
        nonlocal notified_at
        if monotonic() - notified_at >= _NOTIFY_INTERVAL_SECONDS:
            notified_at = monotonic()
            notify(message)

    return notify_if_due


class BatchSender(Generic[B]):
    """Sends batches, two at a time, and retries them while the server is busy or unreachable.

    Resending a batch does no harm, because events have IDs. Compression and network run in a thread of their own, so
    that the caller can read on, and can be interrupted at any time.

    Args:
        client: the server.
        on_result: called with each result in the order of the batches, in the thread that calls `send` or `flush`.
        retry_timeout: seconds to keep retrying a batch, counted from its first failure.
        on_retry: called with the reason of each retry, in another thread.
        path: path of the endpoint.

    """

    def __init__(
        self,
        client: ServerClient,
        on_result: Callable[[SendResult[B]], None],
        retry_timeout: float = RETRY_TIMEOUT_SECONDS,
        on_retry: Callable[[str], None] = lambda _: None,
        path: str = TICK_PATH,
    ) -> None:
        self._client = client
        self._path = path
        self._on_result = on_result
        self._retry_timeout = retry_timeout
        self._on_retry = on_retry
        self._in_flight: deque[Future[SendResult[B]]] = deque()
        self._loop_thread = EventLoopThread("sender")
        self._open_session = client.open_session(_UPLOAD_TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        self._loop_thread.__enter__()
        self._session = self._loop_thread.run(self._open_session.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop_thread.run(self._close())
        self._loop_thread.__exit__(kind, error, trace)

    def send(self, batch: B) -> None:
        """Send a batch once fewer than two are in flight.

        Raises:
            ServerUnavailable: the server did not accept an earlier batch within the retry timeout.
            RequestError: the server rejects the request; the message has the reason.
            ConfigurationError: the URL is not that of a Metronome server.

        """
        while len(self._in_flight) >= _MAX_IN_FLIGHT:
            self._complete_oldest()
        self._in_flight.append(self._loop_thread.submit(self._send_with_retries(batch)))

    def flush(self) -> None:
        """Wait for the results of all batches; raises as `send` does."""
        while self._in_flight:
            self._complete_oldest()

    def collect_results(self) -> None:
        """Pass on the results that have arrived, without waiting; raises as `send` does."""
        while self._in_flight and self._in_flight[0].done():
            self._complete_oldest()

    def drain(self, timeout: float) -> None:
        """Wait at most *timeout* seconds for batches in flight, pass on their results, and give up the rest."""
        wait([*self._in_flight], timeout=timeout)
        while self._in_flight and self._in_flight[0].done() and self._in_flight[0].exception() is None:
            self._complete_oldest()

    def _complete_oldest(self) -> None:
        # If it is interrupted while it waits, the batch stays in flight.
        future = self._in_flight[0]
        try:
            result = future.result()
        except (ServerUnavailable, RequestError, ConfigurationError):
            self._in_flight.popleft()
            for other in self._in_flight:
                if other.done() and other.exception() is None:
                    self._on_result(other.result())
            raise
        self._in_flight.popleft()
        self._on_result(result)

    async def _send_with_retries(self, batch: B) -> SendResult[B]:
        body = zstd.compress(batch.body, _ZSTD_LEVEL)

        async def post() -> bytes:
            return await self._client.request(self._session, "POST", self._path, _UPLOAD_HEADERS, body)

        try:
            response = await retry(
                post,
                _BACKOFF,
                on_retry=lambda error, _: self._on_retry(str(error)),
                timeout_seconds=self._retry_timeout,
            )
        except RequestError as error:
            raise RequestError(f"{self._client.url} rejects the events: {error}") from None
        return self._parse_result(batch, response)

    def _parse_result(self, batch: B, response: bytes) -> SendResult[B]:
        with self._client.parsing_response(self._path):
            result = orjson.loads(response)
            rejected = [(batch.location(entry["index"]), str(entry["error"])) for entry in result["rejected"]]
            return SendResult(batch, int(result["accepted"]), rejected, int(result.get("known", 0)))

    async def _close(self) -> None:
        await _cancel_other_tasks()
        await self._open_session.__aexit__(None, None, None)


def validate_key(key: str) -> str:
    """Return a key if it can be sent in a header.

    Raises:
        ConfigurationError: it cannot; the message does not contain it.

    """
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("invalid key: expected printable ASCII characters")
    return key


def _connection_failure(error: Exception) -> str:
    """Return why a request failed, without aiohttp's details of the connection where the system has a message."""
    cause = getattr(error, "os_error", error)
    # The numbers of resolver and TLS errors are not those of the system.
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, socket.gaierror | ssl.SSLError):
        return os.strerror(cause.errno).lower()
    return str(getattr(cause, "strerror", None) or error) or type(error).__name__


def _problem_detail(body: bytes, reason: str | None) -> str:
    try:
        problem = orjson.loads(body)
        detail = problem.get("detail") or problem["title"]
    except (ValueError, LookupError, AttributeError):
        return reason or ""
    return str(detail)[:_MAX_DETAIL_CHARACTERS]


def encode_parameters(parameters: Iterable[tuple[str, str | None]]) -> list[str]:
    """Encode the parameters that have a value for the query of a URL."""
    return [f"{name}={percent_encode(value)}" for name, value in parameters if value is not None]


def percent_encode(text: str, safe: str = "") -> str:
    """Percent-encode a text.

    Raises:
        Malformed: it is not valid UTF-8; a terminal may send any bytes.

    """
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise Malformed(f"invalid argument {text!r}: expected UTF-8") from None
