"""An aiohttp application with an application in it, streams and WebSockets."""

import sys

from aiohttp import WSMsgType, web

from metronome.middleware import describe_request
from metronome.middleware.aiohttp import report_requests
from tests.middleware.hosts.settings import reporter

REPORTER = reporter()


async def health(_: web.Request) -> web.Response:
    return web.Response(text="well")


async def dataset(request: web.Request) -> web.Response:
    describe_request(id=request.match_info["name"])
    return web.json_response({"name": request.match_info["name"]})


async def file(request: web.Request) -> web.Response:
    describe_request(id=request.match_info["name"], format=request.match_info["form"])
    return web.Response(body=b"1,2\n", content_type="text/csv")


async def fails(_: web.Request) -> web.Response:
    raise RuntimeError("the host's own")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/octet-stream")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    for number in range(100):
        await response.write(b"%d\n" % number)
    await response.write_eof()
    return response


async def server_sent_events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(3):
        await response.write(b"data: %d\n\n" % number)
    await response.write_eof()
    return response


async def websocket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type != WSMsgType.TEXT or message.data == "bye":
            break
        await socket.send_str(f"{request.match_info['room']}: {message.data}")
    await socket.close()
    return socket


async def order(request: web.Request) -> web.Response:
    REPORTER.track("order", goal="0", order=request.match_info["number"], revenue=12.5, id="rivers")
    return web.Response()


async def lake(request: web.Request) -> web.Response:
    return web.Response(text=request.match_info["lake"])


def application() -> web.Application:
    """Return the application."""
    app, inner = web.Application(), web.Application()
    inner.add_routes([web.get(r"/regions/{region}/lakes/{lake:\d+}", lake)])
    app.add_routes(
        [
            web.get("/health", health),
            web.get("/datasets/{name}", dataset),
            web.get("/datasets/{name}/file.{form}", file),
            web.get("/fails", fails),
            web.post("/echo", echo),
            web.get("/stream", stream),
            web.get("/news", server_sent_events),
            web.get("/ws/{room}", websocket),
            web.post("/orders/{number}", order),
        ]
    )
    app.add_subapp("/v1", inner)
    report_requests(app, REPORTER)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
