"""A TCP proxy on the loopback interface that injects faults."""

import asyncio
import contextlib
import enum
import re
import threading
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from tests.servers import free_port

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 200 OK\r\n")
_CHUNK_BYTES: Final = 256 * 1024


class Fault(enum.Enum):
    """What the proxy does to connections, new ones and those that are open."""

    NONE = "forward everything"
    REFUSE = "listen no longer, and abort all connections"
    FREEZE = "accept connections and requests, and never respond"
    SLOW = "forward each chunk after a delay"
    RESET = "forward requests, and abort the connection instead of forwarding the response"
    TRUNCATE = "forward half of the first chunk of a response, and close the connection"
    STATUS_503 = "forward requests, and responses with status 503 instead of 200"
    STATUS_429 = "forward requests, and responses with status 429 instead of 200"
    HTML = "forward no request, and respond with an HTML page"
    EMPTY_OBJECT = "forward no request, and respond with an empty JSON object"


_RESPONSES: Final = {
    Fault.HTML: ("text/html", b"<html>A page of a proxy</html>"),
    Fault.EMPTY_OBJECT: ("application/json", b"{}"),
}


class FaultProxy:
    """A TCP proxy to a server with a fault that can be changed at any time.

    Args:
        target: the server's URL, such as ``http://127.0.0.1:9200``.
        delay_seconds: the delay of `Fault.SLOW`.

    """

    def __init__(self, target: str, delay_seconds: float = 0.2) -> None:
        parts = urlsplit(target)
        self._host, self._target_port = parts.hostname, parts.port
        self._delay_seconds = delay_seconds
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._fault = Fault.NONE
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        """Start forwarding."""
        self._thread.start()
        self.set_fault(Fault.NONE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections, and end the thread."""
        self.set_fault(Fault.REFUSE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def set_fault(self, fault: Fault) -> None:
        """Change the fault; connections that are frozen when the fault ends are aborted."""
        asyncio.run_coroutine_threadsafe(self._set_fault(fault), self._loop).result()

    async def _set_fault(self, fault: Fault) -> None:
        previous, self._fault = self._fault, fault
        if fault is Fault.REFUSE or previous is Fault.FREEZE:
            for writer in self._writers:
                writer.transport.abort()
        if fault is Fault.REFUSE:
            if self._server is not None:
                self._server.close()
                self._server = None
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        elif self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        writers = {client_writer}
        self._writers.add(client_writer)
        try:
            server_reader, server_writer = await asyncio.open_connection(self._host, self._target_port)
            writers.add(server_writer)
            self._writers.add(server_writer)
            await asyncio.gather(
                self._copy_requests(client_reader, client_writer, server_writer),
                self._copy_responses(server_reader, client_writer),
            )
        except OSError:
            pass
        finally:
            for writer in writers:
                writer.transport.abort()
            self._writers -= writers

    async def _copy_requests(
        self, source: asyncio.StreamReader, client: asyncio.StreamWriter, target: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(_CHUNK_BYTES):
                if self._fault is Fault.FREEZE:
                    continue
                if self._fault in _RESPONSES:
                    content_type, body = _RESPONSES[self._fault]
                    client.write(
                        b"HTTP/1.1 200 OK\r\nX-Elastic-Product: Elasticsearch\r\nContent-Type: "
                        b"%b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
                        % (content_type.encode(), len(body), body)
                    )
                    await client.drain()
                    break
                await self._delay()
                target.write(chunk)
                await target.drain()
        target.close()

    async def _copy_responses(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(_CHUNK_BYTES):
                await self._delay()
                match self._fault:
                    case Fault.FREEZE:
                        continue
                    case Fault.RESET:
                        target.transport.abort()
                        return
                    case Fault.TRUNCATE:
                        target.write(chunk[: len(chunk) // 2])
                        break
                    case Fault.STATUS_503:
                        chunk = _STATUS_LINE.sub(b"HTTP/1.1 503 Service Unavailable\r\n", chunk)
                    case Fault.STATUS_429:
                        chunk = _STATUS_LINE.sub(b"HTTP/1.1 429 Too Many Requests\r\n", chunk)
                    case _:
                        pass
                target.write(chunk)
                await target.drain()
        target.close()

    async def _delay(self) -> None:
        if self._fault is Fault.SLOW:
            await asyncio.sleep(self._delay_seconds)
