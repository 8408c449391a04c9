"""The routes of the operator: those that forget events, and the one that prepares a backup."""

from typing import Any, Final

import orjson
from aiohttp import web

from metronome.auth.client_address import check_same_origin
from metronome.backup import Backups
from metronome.erasures import Erasure, Erasures
from metronome.errors import Malformed, NotFound
from metronome.scopes import Scope
from metronome.stores.selection import SelectionKind, parse_selection
from metronome.web.bodies import read_body
from metronome.web.handlers import QueryContext, handle_errors

_MAX_BODY_BYTES: Final = 65_536
_KEYS: Final = frozenset({*SelectionKind, "dry_run"})


def erasure_routes(context: QueryContext, erasures: Erasures) -> list[web.RouteDef]:
    """Return ``POST /forget``, ``GET /forget.json`` and ``GET /forget/{id}.json``; all need the scope ``admin``."""

    async def post(request: web.Request) -> web.StreamResponse:
        check_same_origin(request)
        await context.authorize(request, Scope.ADMIN)
        fields = _parse_body(await read_body(request, _MAX_BODY_BYTES))
        selection = parse_selection(fields)
        if fields.get("dry_run"):
            pending = await context.wait_for()
            preview = await erasures.preview(selection)
            days = {"from": preview.first, "to": preview.last} if preview.first else {}
            return _respond({"events": preview.events, **days, "pending": pending})
        return _respond(_describe(erasures, await erasures.request(selection)), 202)

    async def get_all(request: web.Request) -> web.StreamResponse:
        await context.authorize(request, Scope.ADMIN)
        return _respond({"requests": [_describe(erasures, erasure) for erasure in await erasures.get_all()]})

    async def get(request: web.Request) -> web.StreamResponse:
        await context.authorize(request, Scope.ADMIN)
        name = request.match_info["id"]
        erasure = await erasures.get(name)
        if erasure is None:
            raise NotFound(f"this server has no request to forget events with the ID {name[:100]}")
        return _respond(_describe(erasures, erasure))

    handlers = [handle_errors(context, handler) for handler in (post, get_all, get)]
    return [
        web.post("/forget", handlers[0]),
        web.get("/forget.json", handlers[1]),
        web.get("/forget/{id}.json", handlers[2]),
    ]


def backup_routes(context: QueryContext, backups: Backups) -> list[web.RouteDef]:
    """Return ``POST /backup``, which needs the scope ``admin``."""

    async def post(request: web.Request) -> web.StreamResponse:
        check_same_origin(request)
        await context.authorize(request, Scope.ADMIN)
        return _respond({"folder": str(await backups.prepare())})

    return [web.post("/backup", handle_errors(context, post))]


def _parse_body(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"invalid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Malformed("expected a JSON object")
    unknown = sorted(fields.keys() - _KEYS)
    if unknown:
        raise Malformed(f"unknown key {unknown[0][:100]!r}: expected {', '.join(sorted(_KEYS))}")
    if not isinstance(fields.get("dry_run", False), bool):
        raise Malformed("invalid dry_run: expected true or false")
    return fields


def _describe(erasures: Erasures, erasure: Erasure) -> dict[str, Any]:
    """Return a request as JSON, without what it names."""
    described: dict[str, Any] = {
        "id": erasure.name,
        "by": erasure.selection.kind,
        "requested": erasure.requested,
        "state": erasure.step,
        "forgotten": dict(erasure.counts),
    }
    if (progress := erasures.progress(erasure)) is not None:
        described["archive"] = dict(zip(("searched", "objects"), progress, strict=True))
    if erasure.damaged:
        described["damaged"] = list(erasure.damaged)
    if problem := erasures.problem(erasure):
        described["error"] = problem
    return described


def _respond(content: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(content),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
