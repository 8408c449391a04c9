"""How a worker hands a request to the main process, and its answer back."""

from types import TracebackType
from typing import Final, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web
from yarl import URL

from metronome.errors import MetronomeError, StoreAway
from metronome.service.bodies import read_body
from metronome.service.problems import problem
from metronome.service.senders import FORWARDED, Senders

_SECONDS: Final = 60.0
_PASSED_IN: Final = (
    "Accept",
    "Accept-Encoding",
    "Content-Type",
    "If-None-Match",
    "Origin",
    "Authorization",
    "Access-Control-Request-Method",
)
_KEPT_BACK: Final = frozenset({"Connection", "Content-Length", "Date", "Keep-Alive", "Server", "Transfer-Encoding"})


class Relay:
    """A line to the main process, open while the block runs.

    Args:
        path: the main process's Unix socket.
        max_bytes: how large a request may be.
        senders: tells where a request came from, which the main process is told.

    """

    def __init__(self, path: str, max_bytes: int, senders: Senders) -> None:
        self._max_bytes = max_bytes
        self._senders = senders
        self._session = ClientSession(
            connector=UnixConnector(path),
            timeout=ClientTimeout(total=_SECONDS),
            auto_decompress=False,
            # Answers are packed for who asked, not for this client.
            skip_auto_headers=("Accept-Encoding",),
        )

    async def __aenter__(self) -> Self:
        """Return this relay."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        await self._session.close()

    async def handle(self, request: web.Request, prefix: str = "") -> web.Response:
        """Answer what the main process answers; *prefix* is put in front of the path that it sees."""
        try:
            body = await read_body(request, self._max_bytes)
            return await self._ask(request, body, prefix)
        except MetronomeError as error:
            return problem(error)

    async def _ask(self, request: web.Request, body: bytes, prefix: str) -> web.Response:
        headers = {name: request.headers[name] for name in _PASSED_IN if name in request.headers}
        headers[FORWARDED] = self._senders.address(request)
        # Not the raw path: that may begin with a scheme and a host.
        url = URL(f"http://main{prefix}{request.rel_url.raw_path_qs}", encoded=True)
        try:
            async with self._session.request(
                request.method, url, data=body or None, headers=headers, allow_redirects=False
            ) as answer:
                content = await answer.read()
        except (ClientError, TimeoutError, OSError) as error:
            raise StoreAway(f"the main process does not answer: {type(error).__name__}") from error
        kept = {name: value for name, value in answer.headers.items() if name.title() not in _KEPT_BACK}
        return web.Response(status=answer.status, body=content, headers=kept)
