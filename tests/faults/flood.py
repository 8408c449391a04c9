"""Request the same address over many connections, again and again, until killed: ``flood.py PORT PATH CONNECTIONS``.

A process of its own, so that reading large responses does not delay what a test measures.
"""

import asyncio
import sys

from aiohttp import ClientError, ClientSession, TCPConnector


async def _request_forever(session: ClientSession, url: str, client: str) -> None:
    while True:
        try:
            async with session.get(url, headers={"X-Forwarded-For": client}) as response:
                async for _ in response.content.iter_chunked(1 << 20):
                    pass
                if response.status >= 400:
                    await asyncio.sleep(0.05)
        except ClientError:
            await asyncio.sleep(0.05)


async def _flood(port: int, path: str, connections: int) -> None:
    url = f"http://127.0.0.1:{port}{path}"
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        await asyncio.gather(
            *(_request_forever(session, url, f"203.0.113.{number % 250 + 1}") for number in range(connections))
        )


if __name__ == "__main__":
    asyncio.run(_flood(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
