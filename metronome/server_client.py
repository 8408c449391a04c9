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

from metronome.errors import CallerError, Malformed, Misconfigured, ServerAway

T = TypeVar("T")


class Background:
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
        self.begin(_give_up_the_rest()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something, and return what will be its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something, and return its result."""
        return self.begin(work).result()


async def _give_up_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


TICK: Final = "/tick"
PATIENCE_SECONDS: Final = 30.0
_IN_FLIGHT = 2
_ZSTD_LEVEL = 1
_REQUEST_SECONDS = 60
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 8.0
_HEADERS = {"Content-Type": "application/x-ndjson", "Content-Encoding": "zstd"}
_OK = 200
_CALLER_ERRORS = range(400, 500)
_WRONG_ADDRESS = frozenset({404, 405})
_TOO_MANY_REQUESTS = 429
ABOUT_KEYS = frozenset({401, 403})
KEY_HINT = "; a key is given with --key, or as METRONOME_KEY"
_SERVER_ERRORS = range(500, 600)
_SHOWN = 300


class Sendable(Protocol):
    """What is sent together.

    Attributes:
        body: lines of JSON.

    """

    @property
    def body(self) -> bytes:
        """Lines of JSON."""

    def place(self, index: int) -> str:
        """Say where the line of that index is from."""


B = TypeVar("B", bound=Sendable)


class Answer(NamedTuple, Generic[B]):
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
    known: int = 0


class _Busy(NamedTuple):
    """The server may take the same request later."""

    reason: str
    retry_after: float


class Sender(Generic[B]):
    """Sends batches, two at a time, and hands on what the server answers.

    Args:
        url: the server's address.
        answered: is called with each answer, in the thread that calls `send` or `finish`.
        patience: for how many seconds a batch is sent again to a server that is busy or away.
        key: is shown to the server, if it asks for one.
        waiting: is called, in another thread, with the reason each time that a batch has to wait.
        path: where on the server it is sent to.

    """

    def __init__(
        self,
        url: str,
        answered: Callable[[Answer[B]], None],
        patience: float = PATIENCE_SECONDS,
        key: str | None = None,
        waiting: Callable[[str], None] | None = None,
        path: str = TICK,
    ) -> None:
        self._url = url.rstrip("/")
        self._path = path
        self._answered = answered
        self._patience = patience
        self._headers = _HEADERS | ({"Authorization": f"Bearer {checked_key(key)}"} if key else {})
        self._waiting = waiting
        self._random = SystemRandom()
        self._flights: deque[Future[Answer[B]]] = deque()
        self._background = Background("sender")

    def __enter__(self) -> Self:
        self._background.__enter__()
        self._session = self._background.run(_open_session())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._background.run(self._close())
        self._background.__exit__(kind, error, trace)

    def send(self, batch: B) -> None:
        """Send a batch as soon as fewer than two are on their way.

        Raises:
            ServerAway: an earlier batch was not taken for as long as there was patience.
            CallerError: the server refuses to take anything of the kind; the message has its reason.
            Misconfigured: there is no Metronome at this address.

        """
        while len(self._flights) >= _IN_FLIGHT:
            self._land()
        self._flights.append(self._background.begin(self._deliver(batch)))

    def finish(self) -> None:
        """Wait until all that was sent is answered; raises as `send` does."""
        while self._flights:
            self._land()

    def collect(self) -> None:
        """Hand on the answers that are there, and wait for none; raises as `send` does."""
        while self._flights and self._flights[0].done():
            self._land()

    def settle(self, seconds: float) -> None:
        """Wait so long for what is on its way, hand on the answers that come, and give up the rest."""
        wait([*self._flights], timeout=seconds)
        while self._flights and self._flights[0].done() and self._flights[0].exception() is None:
            self._land()

    def _land(self) -> None:
        # Whoever is interrupted here finds the batch still on its way.
        flight = self._flights[0]
        try:
            answer = flight.result()
        except (ServerAway, CallerError, Misconfigured):
            self._flights.popleft()
            for other in self._flights:
                if other.done() and other.exception() is None:
                    self._answered(other.result())
            raise
        self._flights.popleft()
        self._answered(answer)

    async def _deliver(self, batch: B) -> Answer[B]:
        body = zstd.compress(batch.body, _ZSTD_LEVEL)
        pause = _FIRST_PAUSE_SECONDS
        deadline = None
        while isinstance(reply := await self._post(body), _Busy):
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + self._patience
            if now >= deadline:
                raise ServerAway(f"{self._url} does not take events: {reply.reason}")
            if self._waiting is not None:
                self._waiting(f"{self._url} does not take events: {reply.reason}")
            rest = max(reply.retry_after, pause * self._random.uniform(0.5, 1))
            await asyncio.sleep(min(rest, deadline - now))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        return self._answer(batch, reply)

    async def _post(self, body: bytes) -> bytes | _Busy:
        request = self._session.post(self._url + self._path, data=body, headers=self._headers, allow_redirects=False)
        try:
            async with request as response:
                text = await response.read()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise Misconfigured(f"--url {self._url} is no web address: write it as http://host:port") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Busy(str(error) or type(error).__name__, 0)
        status = response.status
        if status == _OK:
            return text
        reason = f"{status} {detail_of(text, response.reason)}"
        if status == _TOO_MANY_REQUESTS or status in _SERVER_ERRORS:
            return _Busy(reason, _seconds(response.headers.get("Retry-After", "")))
        if status in _CALLER_ERRORS and status not in _WRONG_ADDRESS:
            raise CallerError(f"{self._url} refuses the events: {reason}{KEY_HINT if status in ABOUT_KEYS else ''}")
        raise Misconfigured(f"--url {self._url} is no Metronome: POST {self._url}{self._path} answers {reason}")

    def _answer(self, batch: B, text: bytes) -> Answer[B]:
        try:
            reply = orjson.loads(text)
            rejected = [(batch.place(one["index"]), str(one["error"])) for one in reply["rejected"]]
            return Answer(batch, int(reply["accepted"]), rejected, int(reply.get("known", 0)))
        except (ValueError, TypeError, LookupError):
            raise Misconfigured(f"--url {self._url} is no Metronome: its answer cannot be read") from None

    async def _close(self) -> None:
        flights = asyncio.all_tasks() - {asyncio.current_task()}
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._session.close()


async def _open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS))


def checked_key(key: str) -> str:
    """Return a key that can be sent.

    Raises:
        Misconfigured: it holds what no header can.

    """
    if not (key.isascii() and key.isprintable()):
        raise Misconfigured("--key is no key: it holds what cannot stand in a header")
    return key


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0


def detail_of(text: bytes, reason: str | None) -> str:
    """Return the sentence of a problem+json answer, or what the status is called."""
    try:
        problem = orjson.loads(text)
        detail = problem.get("detail") or problem["title"]
    except (ValueError, LookupError, AttributeError):
        return reason or ""
    return str(detail)[:_SHOWN]


EXIT_FAILED: Final = 2
JSON: Final = "application/json"

Url = Annotated[str, typer.Option(help="The Metronome server that is asked.")]
Key = Annotated[
    str | None, typer.Option(metavar="KEY", envvar="METRONOME_KEY", help="The key that the server asks for.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="TIME", help="From when on: a day, a time, or -30d, -12h and the like.", show_default="all"
    ),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="TIME", help="Until when; a day is included.", show_default="now")
]
Zone = Annotated[str, typer.Option(metavar="ZONE", help="The time zone that days belong to, as Europe/Zurich.")]
Bots = Annotated[bool, typer.Option("--bots", help="Count bots, too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write the answer as it came, for programs.")]

USUAL_URL: Final = "http://127.0.0.1:8080"

_SECONDS: Final = 120.0
_REDIRECTS: Final = range(300, 400)
_PROBLEM: Final = "application/problem+json"


class Server(NamedTuple):
    """The server that is asked.

    Attributes:
        url: its address.
        key: is shown to it, if it asks for one.

    """

    url: str
    key: str | None = None

    def ask(self, path: str, media: str = JSON) -> bytes:
        """Return what the server answers.

        Args:
            path: with its query, percent-encoded.
            media: the media type that the answer should have.

        Raises:
            ServerAway: it does not answer, or is too busy.
            CallerError: it refuses; the message has its reason.
            Misconfigured: there is no Metronome at this address.

        """
        headers = {"Accept": media} | ({"Authorization": f"Bearer {checked_key(self.key)}"} if self.key else {})
        status, kind, body = asyncio.run(self._get(self.url.rstrip("/") + path, headers))
        if status == HTTPStatus.OK:
            return body
        detail = detail_of(body, HTTPStatus(status).phrase if status in {*HTTPStatus} else "")
        if kind != _PROBLEM or status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            raise self._stranger(f"GET {path.partition('?')[0]} answers {status} {detail}")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServerAway(detail)
        raise CallerError(f"{detail}{KEY_HINT if status in ABOUT_KEYS else ''}")

    def ask_for(self, path: str, *names: str) -> dict[str, Any]:
        """Return what the server answers: an object that has these names; raises as `ask` does."""
        try:
            answer = orjson.loads(self.ask(path))
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not answer.keys() >= {*names}:
            raise self._stranger(f"what GET {path.partition('?')[0]} answers cannot be read")
        return answer

    @contextlib.contextmanager
    def read(self, path: str) -> Iterator[None]:
        """Read an answer to *path* within the block; raises `Misconfigured` where it is not made as it should be."""
        try:
            yield
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError):
            raise self._stranger(f"what GET {path.partition('?')[0]} answers cannot be read") from None

    async def _get(self, address: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session,
                session.get(URL(address, encoded=True), headers=headers, allow_redirects=False) as response,
            ):
                return response.status, response.content_type, await response.read()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError):
            raise Misconfigured(f"--url {self.url} is no web address: write it as http://host:port") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise ServerAway(f"{self.url} does not answer: {reason}; {ServerAway.advice}") from None

    def _stranger(self, reason: str) -> Misconfigured:
        return Misconfigured(f"--url {self.url} is no Metronome that knows this: {reason}")


def encoded(parameters: Iterable[tuple[str, str | None]]) -> list[str]:
    """Write parameters for an address, without those that have no value."""
    return [f"{name}={percent(value)}" for name, value in parameters if value is not None]


def percent(text: str, safe: str = "") -> str:
    """Percent-encode a text.

    Raises:
        Malformed: it is no UTF-8, as a terminal may send anything.

    """
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError:
        raise Malformed(f"{text!r} is no UTF-8: write it in that") from None


def printed(body: bytes) -> None:
    """Write an answer to standard output as it came."""
    typer.echo(body, nl=not body.endswith(b"\n"))
