"""A Starlette application with mounts and streams."""

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from metronome.middleware import describe_request
from metronome.middleware.asgi import ASGIMiddleware
from tests.middleware.hosts.settings import reporter

REPORTER = reporter()


async def health(_: Request) -> Response:
    return PlainTextResponse("well")


async def dataset(request: Request) -> Response:
    describe_request(id=request.path_params["name"])
    return JSONResponse({"name": request.path_params["name"]})


async def file(request: Request) -> Response:
    describe_request(id=request.path_params["name"], format=request.path_params["form"])
    return Response(b"1,2\n", media_type="text/csv")


async def fails(_: Request) -> Response:
    raise RuntimeError("the host's own")


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


async def parts() -> AsyncIterator[bytes]:
    for number in range(100):
        yield b"%d\n" % number


async def stream(_: Request) -> Response:
    return StreamingResponse(parts(), media_type="text/plain")


async def news() -> AsyncIterator[str]:
    for number in range(3):
        yield f"data: {number}\n\n"


async def server_sent_events(_: Request) -> Response:
    return StreamingResponse(news(), media_type="text/event-stream")


async def order(request: Request) -> Response:
    REPORTER.track("order", goal="0", order=request.path_params["number"], revenue=12.5, id="rivers")
    return Response()


async def lake(request: Request) -> Response:
    return PlainTextResponse(str(request.path_params["lake"]))


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/datasets/{name}", dataset),
        Route("/datasets/{name}/file.{form}", file),
        Route("/fails", fails),
        Route("/echo", echo, methods=["POST"]),
        Route("/stream", stream),
        Route("/news", server_sent_events),
        Route("/orders/{number}", order, methods=["POST"]),
        Mount("/v1", routes=[Mount("/regions/{region}", routes=[Route("/lakes/{lake:int}", lake)])]),
    ],
    middleware=[Middleware(ASGIMiddleware, reporter=REPORTER)],
)
