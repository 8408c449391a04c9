"""The limit that single ticks are measured beside: a bare aiohttp handler that parses the body and answers 204."""

import asyncio
import sys

import orjson
import uvloop
from aiohttp import web


async def main(port: int) -> None:
    """Serve for ever."""

    async def handle(request: web.Request) -> web.Response:
        orjson.loads(await request.read())
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/tick", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
