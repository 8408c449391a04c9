"""The route that answers badges."""

from typing import Final

from aiohttp import web

from metronome.errors import MetronomeError
from metronome.keys import Scope
from metronome.reports.badges import PARAMETERS, badge, read_look
from metronome.reports.parameters import read_parameters
from metronome.service.problems import problem
from metronome.service.reads import Answering, answered, item_of

_PREFIX: Final = "/badge/"
_SUFFIX: Final = ".svg"
_HEADERS: Final = {
    # The proxies through which code hosts show pictures ask again as often as this says.
    "Cache-Control": "max-age=300",
    # A picture that is opened as a page by itself does nothing either.
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}


def badge_routes(answering: Answering) -> list[web.RouteDef]:
    """List the route that answers ``GET /badge/{id}.svg``."""
    took = answering.telemetry.answers.labels("badge")

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await answering.admit(request, Scope.TOCK)
            with took.time():
                item = item_of(request.rel_url.raw_path, _PREFIX, _SUFFIX)
                asked = read_parameters(request.query, answering.now(), PARAMETERS)
                picture = await badge(answering.store, item, asked, read_look(request.query))
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        answer = answered(request, picture.encode(), "image/svg+xml", "utf-8")
        answer.headers.update(_HEADERS)
        return answer

    # Not `.+`: an id may hold line feeds.
    return [web.get(r"/badge/{id:[\s\S]+}.svg", handle)]
