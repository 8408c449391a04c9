"""A fake Kibana: its status, its spaces, and its import of saved objects.

It follows the sources of Kibana 8.19: the header that changes need, what unauthenticated clients are told, which
versions of objects are supported, and that a status of 200 does not mean that anything was imported.
"""

import asyncio
import contextlib
import ssl
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Final

import orjson
from aiohttp import BodyPartReader, web

from tests.servers import free_port

Json = dict[str, Any]

KNOWN: Final = {"index-pattern": (8, 0, 0), "lens": (8, 9, 0), "dashboard": (10, 2, 0)}
"""The newest supported version of each type."""
START_SECONDS: Final = 10


@dataclass
class Kibana:
    """State of the fake Kibana.

    Attributes:
        version: its version.
        known: the newest supported version of each type.
        key: required API key; empty if none is required.
        user: required user name and password; empty if none are required.
        may_write: whether authenticated clients may change saved objects.
        spaces: names of the spaces.
        starts: number of requests to reject because it is starting.
        objects: saved objects by space and ID.
        asked: methods and paths of all requests.

    """

    version: str = "8.19.21"
    known: dict[str, tuple[int, ...]] = field(default_factory=lambda: dict(KNOWN))
    key: str = ""
    user: tuple[str, str] = ("", "")
    may_write: bool = True
    spaces: tuple[str, ...] = ("default",)
    starts: int = 0
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/api/status", self._status)
        application.router.add_get("/api/spaces/space/{space}", self._space)
        application.router.add_post("/api/saved_objects/_import", self._import)
        application.router.add_post("/s/{space}/api/saved_objects/_import", self._import)
        return application

    def _knows(self, request: web.Request) -> bool:
        keys = {f"ApiKey {self.key}"} if self.key else set()
        if self.user[0]:
            keys.add(f"Basic {b64encode(':'.join(self.user).encode()).decode()}")
        return not keys or request.headers.get("Authorization") in keys

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        if self.starts > 0:
            self.starts -= 1
            return web.Response(status=503, text="Kibana server is not ready yet")
        if request.method != "GET" and "kbn-xsrf" not in request.headers:
            return problem(400, "Bad Request", "Request must contain a kbn-xsrf header.")
        if request.path != "/api/status" and not self._knows(request):
            return problem(401, "Unauthorized", "[security_exception]: unable to authenticate")
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            return problem(404, "Not Found", "Not Found")
        return answer

    async def _status(self, request: web.Request) -> web.Response:
        status: Json = {"status": {"overall": {"level": "available"}}}
        if self._knows(request):
            status |= {"name": "kibana", "version": {"number": self.version, "build_snapshot": False}}
        return web.json_response(status)

    async def _space(self, request: web.Request) -> web.Response:
        space = request.match_info["space"]
        if space not in self.spaces:
            return problem(404, "Not Found", f"Saved object [space/{space}] not found")
        return web.json_response({"id": space, "name": space.title()})

    async def _import(self, request: web.Request) -> web.Response:
        if not self.may_write:
            return problem(403, "Forbidden", "Unable to bulk_create dashboard,index-pattern,lens")
        part = await (await request.multipart()).next()
        assert isinstance(part, BodyPartReader)
        assert part.name == "file"
        if not (part.filename or "").endswith(".ndjson"):
            return problem(400, "Bad Request", "Invalid file extension")
        objects = [orjson.loads(line) for line in (await part.read()).splitlines()]
        space = request.match_info.get("space", "default")
        overwrite = request.query.get("overwrite") == "true"
        errors = [error for one in objects for error in self._errors(one, objects, space, overwrite=overwrite)]
        wrong = {(error["type"], error["id"]) for error in errors}
        imported = [one for one in objects if (one["type"], one["id"]) not in wrong]
        self.objects |= {(space, one["id"]): one for one in imported}
        result: Json = {"success": not errors, "successCount": len(imported), "warnings": []}
        return web.json_response(result | ({"errors": errors} if errors else {}))

    def _errors(self, one: Json, objects: list[Json], space: str, *, overwrite: bool) -> Iterator[Json]:
        kind, known = one["type"], self.known.get(one["type"])
        head = {"id": one["id"], "type": kind, "meta": {"title": one["attributes"]["title"]}}
        if known is None:
            yield {**head, "error": {"type": "unsupported_type"}}
            return
        written = one["typeMigrationVersion"]
        if tuple(map(int, written.split("."))) > known:
            last = ".".join(map(str, known))
            reason = f"belongs to a more recent version of Kibana [{written}] when the last known version is [{last}]"
            yield {**head, "error": {"type": "unknown", "statusCode": 422, "message": f"Document {reason}"}}
            return
        there = {each["id"] for each in objects} | {name for where, name in self.objects if where == space}
        # Kibana looks for data views only.
        missing = [each for each in one["references"] if each["type"] == "index-pattern" and each["id"] not in there]
        if missing:
            yield {**head, "error": {"type": "missing_references", "references": missing}}
        elif (space, one["id"]) in self.objects and not overwrite:
            yield {**head, "error": {"type": "conflict"}}


def problem(status: int, error: str, message: str) -> web.Response:
    return web.json_response({"statusCode": status, "error": error, "message": message}, status=status)


@contextlib.contextmanager
def serving(application: web.Application, port: int = 0, trust: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve an application in a thread during the context; yields its URL."""
    port = port or free_port()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=trust).start()

    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(START_SECONDS)
        yield f"{'https' if trust else 'http'}://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def answering(status: int, body: str, content_type: str = "text/html", **headers: str) -> Iterator[str]:
    """Serve the same response to every request, as a server that is not Kibana; yields its URL."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, content_type=content_type, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    with serving(application) as url:
        yield url
