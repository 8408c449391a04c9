"""The route that prepares a backup."""

import orjson
from aiohttp import web

from metronome.backup import Backups
from metronome.scopes import Scope
from metronome.web.handlers import QueryContext, handle_errors


def backup_routes(context: QueryContext, backups: Backups) -> list[web.RouteDef]:
    """Return ``POST /backup``, which needs the scope ``admin``."""

    async def post(request: web.Request) -> web.StreamResponse:
        await context.authorize(request, Scope.ADMIN)
        folder = await backups.prepare()
        return web.Response(
            body=orjson.dumps({"folder": str(folder)}),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return [web.post("/backup", handle_errors(context.telemetry, post))]
