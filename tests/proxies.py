"""A TCP proxy on the loopback interface that tests can disconnect and reconnect."""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class TcpProxy:
    """A TCP proxy to a server; it does not listen until it is connected.

    Args:
        target: the server's URL, such as ``http://127.0.0.1:9200``.
        port: the port to listen on while connected.

    """

    def __init__(self, target: str, port: int) -> None:
        parts = urlsplit(target)
        self.url = f"http://127.0.0.1:{port}"
        self._host, self._target_port = parts.hostname, parts.port
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        """Return the proxy, disconnected."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect, and end the thread."""
        self.disconnect()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def connect(self) -> None:
        """Start listening and forwarding; idempotent."""
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()

    def disconnect(self) -> None:
        """Abort all connections and stop listening; idempotent."""
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()

    async def _connect(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._forward_connection, "127.0.0.1", self._port)

    async def _disconnect(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        other_tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*other_tasks, return_exceptions=True)

    async def _forward_connection(
        self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
    ) -> None:
        self._writers.add(client_writer)
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(self._host, self._target_port)
            self._writers.add(server_writer)
            await asyncio.gather(self._copy(client_reader, server_writer), self._copy(server_reader, client_writer))
            self._writers.discard(server_writer)
        client_writer.close()
        self._writers.discard(client_writer)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(256 * 1024):
                target.write(chunk)
                await target.drain()
        target.close()
