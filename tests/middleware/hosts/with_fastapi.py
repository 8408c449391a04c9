"""A FastAPI application with routers, mounts, streams and WebSockets."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Body, FastAPI, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from metronome.middleware import describe_request
from metronome.middleware.asgi import ASGIMiddleware
from tests.middleware.hosts.settings import reporter

REPORTER = reporter()

app = FastAPI()
app.add_middleware(ASGIMiddleware, reporter=REPORTER)


@app.get("/health")
async def health() -> str:
    return "well"


@app.get("/datasets/{name}")
def dataset(name: str) -> dict[str, str]:
    # Not async: runs in a thread.
    describe_request(id=name)
    return {"name": name}


@app.get("/datasets/{name}/file.{form}")
async def file(name: str, form: str) -> Response:
    describe_request(id=name, format=form)
    return Response(b"1,2\n", media_type="text/csv")


@app.get("/fails")
async def fails() -> None:
    raise RuntimeError("the host's own")


@app.post("/echo")
async def echo(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Response:
    return Response(body, media_type="application/octet-stream")


async def parts() -> AsyncIterator[bytes]:
    for number in range(100):
        yield b"%d\n" % number


@app.get("/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse(parts(), media_type="text/plain")


async def news() -> AsyncIterator[str]:
    for number in range(3):
        yield f"data: {number}\n\n"


@app.get("/news")
async def server_sent_events() -> StreamingResponse:
    return StreamingResponse(news(), media_type="text/event-stream")


@app.websocket("/ws/{room}")
async def websocket(socket: WebSocket, room: str) -> None:
    await socket.accept()
    while (text := await socket.receive_text()) != "bye":
        await socket.send_text(f"{room}: {text}")
    await socket.close()


@app.post("/orders/{number}")
async def order(number: str) -> None:
    REPORTER.track("order", goal="0", order=number, revenue=12.5, id="rivers")


inner = APIRouter(prefix="/regions/{region}")


@inner.get("/lakes/{lake}")
async def lake(region: str, lake: str) -> str:
    return region + lake


app.include_router(inner, prefix="/v1")


async def below(request: Request) -> Response:
    return PlainTextResponse(request.path_params["page"])


app.mount("/docs-of/{project}", Mount("/", routes=[Route("/pages/{page:path}", below)]))
