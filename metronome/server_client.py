"""Sends batches of events to a Metronome server, and again where it is busy or away.

Sending a batch again does no harm: the events carry their own identities. The network has a thread of
its own, so that whoever reads the log can be interrupted at any time and compresses nothing.

An event loop in a thread of its own, so that a command can be interrupted whatever it waits for.

Asks a Metronome server for a report, once.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from random import SystemRandom
from threading import Thread
from types import TracebackType
from typing import Any, Final, Generic, NamedTuple, Protocol, Self, TypeVar

import aiohttp
import orjson

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd
import contextlib
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

import typer
from yarl import URL

from metronome.errors import ConfigurationError, Malformed, RequestError, ServerUnavailable

T = TypeVar("T")


class EventLoopThread:
    """Does asynchronous work while the block runs; what is left of it as the block ends is given up.

    Args:
        name: what the thread is called.

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
        self.submit(_cancel_remaining_tasks()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something, and return what will be its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do something, and return its result."""
        return self.submit(coroutine).result()


async def _cancel_remaining_tasks() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


TICK_PATH: Final = "/tick"
RETRY_TIMEOUT_SECONDS: Final = 30.0
_MAX_IN_FLIGHT = 2
_ZSTD_LEVEL = 1
_UPLOAD_TIMEOUT_SECONDS = 60
_FIRST_BACKOFF_SECONDS = 0.25
_MAX_BACKOFF_SECONDS = 8.0
_HEADERS = {"Content-Type": "application/x-ndjson", "Content-Encoding": "zstd"}
_OK = 200
_CLIENT_ERRORS = range(400, 500)
_WRONG_URL_STATUSES = frozenset({404, 405})
_TOO_MANY_REQUESTS = 429
AUTH_STATUSES = frozenset({401, 403})
KEY_HINT = "; a key is given with --key, or as METRONOME_KEY"
_SERVER_ERRORS = range(500, 600)
_MAX_DETAIL_CHARACTERS = 300


class SendableBatch(Protocol):
    """What is sent together.

    Attributes:
        body: lines of JSON.

    """

    @property
    def body(self) -> bytes:
        """Lines of JSON."""

    def location(self, index: int) -> str:
        """Say where the line of that index is from."""


B = TypeVar("B", bound=SendableBatch)


class SendResult(NamedTuple, Generic[B]):
    """What the server said to one batch.

    Attributes:
        batch: what was sent.
        accepted: how many of its events are on the server's disk.
        rejected: the places of the others' lines, each with the server's reason.
        known: how many of the accepted it had before, as far as it says.

    """

    batch: B
    accepted: int
    rejected: list[tuple[str, str]]
    already_stored: int = 0


class _RetryLater(NamedTuple):
    """The server may take the same request later."""

    reason: str
    retry_after: float


class BatchSender(Generic[B]):
    """Sends batches, two at a time, and hands on what the server answers.

    Args:
        url: the server's address.
        on_result: is called with each answer, in the thread that calls `send` or `finish`.
        retry_timeout: for how many seconds a batch is sent again to a server that is busy or away.
        key: is shown to the server, if it asks for one.
        on_retry: is called, in another thread, with the reason each time that a batch has to wait.
        path: where on the server it is sent to.

    """

    def __init__(
        self,
        url: str,
        on_result: Callable[[SendResult[B]], None],
        retry_timeout: float = RETRY_TIMEOUT_SECONDS,
        key: str | None = None,
        on_retry: Callable[[str], None] | None = None,
        path: str = TICK_PATH,
    ) -> None:
        self._url = url.rstrip("/")
        self._path = path
        self._on_result = on_result
        self._retry_timeout = retry_timeout
        self._headers = _HEADERS | ({"Authorization": f"Bearer {validate_key(key)}"} if key else {})
        self._on_retry = on_retry
        self._random = SystemRandom()
        self._in_flight: deque[Future[SendResult[B]]] = deque()
        self._loop_thread = EventLoopThread("sender")

    def __enter__(self) -> Self:
        self._loop_thread.__enter__()
        self._session = self._loop_thread.run(_open_session())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop_thread.run(self._close())
        self._loop_thread.__exit__(kind, error, trace)

    def send(self, batch: B) -> None:
        """Send a batch as soon as fewer than two are on their way.

        Raises:
            ServerUnavailable: an earlier batch was not taken for as long as there was patience.
            RequestError: the server refuses to take anything of the kind; the message has its reason.
            ConfigurationError: there is no Metronome at this address.

        """
        while len(self._in_flight) >= _MAX_IN_FLIGHT:
            self._complete_oldest()
        self._in_flight.append(self._loop_thread.submit(self._send_with_retries(batch)))

    def flush(self) -> None:
        """Wait until all that was sent is answered; raises as `send` does."""
        while self._in_flight:
            self._complete_oldest()

    def collect_results(self) -> None:
        """Hand on the answers that are there, and wait for none; raises as `send` does."""
        while self._in_flight and self._in_flight[0].done():
            self._complete_oldest()

    def drain(self, timeout: float) -> None:
        """Wait so long for what is on its way, hand on the answers that come, and give up the rest."""
        wait([*self._in_flight], timeout=timeout)
        while self._in_flight and self._in_flight[0].done() and self._in_flight[0].exception() is None:
            self._complete_oldest()

    def _complete_oldest(self) -> None:
        # Whoever is interrupted here finds the batch still on its way.
        flight = self._in_flight[0]
        try:
            answer = flight.result()
        except (ServerUnavailable, RequestError, ConfigurationError):
            self._in_flight.popleft()
            for other in self._in_flight:
                if other.done() and other.exception() is None:
                    self._on_result(other.result())
            raise
        self._in_flight.popleft()
        self._on_result(answer)

    async def _send_with_retries(self, batch: B) -> SendResult[B]:
        body = zstd.compress(batch.body, _ZSTD_LEVEL)
        pause = _FIRST_BACKOFF_SECONDS
        deadline = None
        while isinstance(reply := await self._post(body), _RetryLater):
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + self._retry_timeout
            if now >= deadline:
                raise ServerUnavailable(f"{self._url} does not take events: {reply.reason}")
            if self._on_retry is not None:
                self._on_retry(f"{self._url} does not take events: {reply.reason}")
            rest = max(reply.retry_after, pause * self._random.uniform(0.5, 1))
            await asyncio.sleep(min(rest, deadline - now))
            pause = min(pause * 2, _MAX_BACKOFF_SECONDS)
        return self._parse_response(batch, reply)

    async def _post(self, body: bytes) -> bytes | _RetryLater:
        request = self._session.post(self._url + self._path, data=body, headers=self._headers, allow_redirects=False)
        try:
            async with request as response:
                text = await response.read()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise ConfigurationError(f"--url {self._url} is no web address: write it as http://host:port") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _RetryLater(str(error) or type(error).__name__, 0)
        status = response.status
        if status == _OK:
            return text
        reason = f"{status} {problem_detail(text, response.reason)}"
        if status == _TOO_MANY_REQUESTS or status in _SERVER_ERRORS:
            return _RetryLater(reason, _parse_retry_after(response.headers.get("Retry-After", "")))
        if status in _CLIENT_ERRORS and status not in _WRONG_URL_STATUSES:
            raise RequestError(f"{self._url} refuses the events: {reason}{KEY_HINT if status in AUTH_STATUSES else ''}")
        raise ConfigurationError(f"--url {self._url} is no Metronome: POST {self._url}{self._path} answers {reason}")

    def _parse_response(self, batch: B, text: bytes) -> SendResult[B]:
        try:
            reply = orjson.loads(text)
            rejected = [(batch.location(one["index"]), str(one["error"])) for one in reply["rejected"]]
            return SendResult(batch, int(reply["accepted"]), rejected, int(reply.get("known", 0)))
        except (ValueError, TypeError, LookupError):
            raise ConfigurationError(f"--url {self._url} is no Metronome: its answer cannot be read") from None

    async def _close(self) -> None:
        flights = asyncio.all_tasks() - {asyncio.current_task()}
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._session.close()


async def _open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_UPLOAD_TIMEOUT_SECONDS))


def validate_key(key: str) -> str:
    """Return a key that can be sent.

    Raises:
        ConfigurationError: it holds what no header can.

    """
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError("--key is no key: it holds what cannot stand in a header")
    return key


def _parse_retry_after(retry_after: str) -> float:
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0


def problem_detail(body: bytes, reason: str | None) -> str:
    """Return the sentence of a problem+json answer, or what the status is called."""
    try:
        problem = orjson.loads(body)
        detail = problem.get("detail") or problem["title"]
    except (ValueError, LookupError, AttributeError):
        return reason or ""
    return str(detail)[:_MAX_DETAIL_CHARACTERS]


EXIT_FAILED: Final = 2
JSON_MEDIA_TYPE: Final = "application/json"

UrlOption = Annotated[str, typer.Option(help="The Metronome server that is asked.")]
KeyOption = Annotated[
    str | None, typer.Option(metavar="KEY", envvar="METRONOME_KEY", help="The key that the server asks for.")
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="TIME", help="From when on: a day, a time, or -30d, -12h and the like.", show_default="all"
    ),
]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="Until when; a day is included.", show_default="now")
]
TimeZoneOption = Annotated[
    str, typer.Option(metavar="ZONE", help="The time zone that days belong to, as Europe/Zurich.")
]
BotsOption = Annotated[bool, typer.Option("--bots", help="Count bots, too.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the answer as it came, for programs.")]

DEFAULT_SERVER_URL: Final = "http://127.0.0.1:8080"

_REQUEST_TIMEOUT_SECONDS: Final = 120.0
_REDIRECTS: Final = range(300, 400)
_PROBLEM_MEDIA_TYPE: Final = "application/problem+json"


class ServerClient(NamedTuple):
    """The server that is asked.

    Attributes:
        url: its address.
        key: is shown to it, if it asks for one.

    """

    url: str
    key: str | None = None

    def get(self, path: str, media_type: str = JSON_MEDIA_TYPE) -> bytes:
        """Return what the server answers.

        Args:
            path: with its query, percent-encoded.
            media_type: the media type that the answer should have.

        Raises:
            ServerUnavailable: it does not answer, or is too busy.
            RequestError: it refuses; the message has its reason.
            ConfigurationError: there is no Metronome at this address.

        """
        headers = {"Accept": media_type} | ({"Authorization": f"Bearer {validate_key(self.key)}"} if self.key else {})
        status, kind, body = asyncio.run(self._fetch(self.url.rstrip("/") + path, headers))
        if status == HTTPStatus.OK:
            return body
        detail = problem_detail(body, HTTPStatus(status).phrase if status in {*HTTPStatus} else "")
        if kind != _PROBLEM_MEDIA_TYPE or status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            raise self._unexpected_response(f"GET {path.partition('?')[0]} answers {status} {detail}")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServerUnavailable(detail)
        raise RequestError(f"{detail}{KEY_HINT if status in AUTH_STATUSES else ''}")

    def get_json(self, path: str, *required_keys: str) -> dict[str, Any]:
        """Return what the server answers: an object that has these names; raises as `ask` does."""
        try:
            answer = orjson.loads(self.get(path))
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not answer.keys() >= {*required_keys}:
            raise self._unexpected_response(f"what GET {path.partition('?')[0]} answers cannot be read")
        return answer

    @contextlib.contextmanager
    def parsing_response(self, path: str) -> Iterator[None]:
        """Read an answer to *path* within the block; an unexpected shape raises `ConfigurationError`."""
        try:
            yield
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
            raise self._unexpected_response(f"what GET {path.partition('?')[0]} answers cannot be read") from None

    async def _fetch(self, url: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_SECONDS)) as session,
                session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response,
            ):
                return response.status, response.content_type, await response.read()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            raise ConfigurationError(f"--url {self.url} is no web address: write it as http://host:port") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ServerUnavailable(f"{self.url} does not answer: {reason}; {ServerUnavailable.advice}") from None

    def _unexpected_response(self, reason: str) -> ConfigurationError:
        return ConfigurationError(f"--url {self.url} is no Metronome that knows this: {reason}")


def encode_parameters(parameters: Iterable[tuple[str, str | None]]) -> list[str]:
    """Write parameters for an address, without those that have no value."""
    return [f"{name}={percent_encode(value)}" for name, value in parameters if value is not None]


def percent_encode(text: str, safe: str = "") -> str:
    """Percent-encode a text.

    Raises:
        Malformed: it is no UTF-8, as a terminal may send anything.

    """
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise Malformed(f"{text!r} is no UTF-8: write it in that") from None


def print_response(body: bytes) -> None:
    """Write an answer to standard output as it came."""
    typer.echo(body, nl=not body.endswith(b"\n"))
