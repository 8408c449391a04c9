"""Asks a Metronome server for a report, once."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import quote

import aiohttp
import orjson
import typer
from yarl import URL

from metronome.cli.sender import ABOUT_KEYS, KEY_HINT, checked_key, detail_of
from metronome.errors import CallerError, Malformed, Misconfigured, ServerAway

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
