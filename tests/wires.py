"""A wire between a client and a server that can be cut and connected again: a real TCP proxy on the loopback."""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class TcpProxy:
    """A wire to a server; nobody listens at its end until it is connected.

    Args:
        target: the server's address, as ``http://127.0.0.1:9200``.
        port: where the wire listens, once it is connected.

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
        """Return this wire, not connected yet."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut it for good."""
        self.disconnect()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def connect(self) -> None:
        """Let everything through; idempotent."""
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()

    def disconnect(self) -> None:
        """Drop every connection and take no more; idempotent."""
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
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _forward_connection(self, near: asyncio.StreamReader, near_back: asyncio.StreamWriter) -> None:
        self._writers.add(near_back)
        with contextlib.suppress(OSError):
            far, far_back = await asyncio.open_connection(self._host, self._target_port)
            self._writers.add(far_back)
            await asyncio.gather(self._copy(near, far_back), self._copy(far, near_back))
            self._writers.discard(far_back)
        near_back.close()
        self._writers.discard(near_back)

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(256 * 1024):
                target.write(chunk)
                await target.drain()
        target.close()
