"""What is spoken at ``/matomo.php`` and ``/piwik.php``: the Matomo Tracking API.

Sources: https://developer.matomo.org/api-reference/tracking-api, and what Matomo answers.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import orjson

from metronome.errors import Malformed, MetronomeError, TooLarge
from metronome.event import Event, identities_of
from metronome.protocol import Outcome, Reading, Readings, Reply, Request, headers_of, problem, sentence
from metronome.protocols.matomo.fields import Setting, fields_of
from metronome.protocols.matomo.requests import Found, find, is_bulk, token
from metronome.web.gif import ERROR_HEADER, gif, one_line

_UNCACHED: Final = {"Cache-Control": "no-store"}
_ABOUT: Final = b"Events of Matomo's trackers are taken here: send idsite=1&rec=1&url=...\n"


def key(request: Request) -> str:
    """Return ``token_auth`` from the query, the form or the JSON (see `Dialect.key`)."""
    return token(request)


def read(request: Request) -> Readings:
    """Read what is to be tracked (see `Dialect.read`)."""
    found = find(request)
    if not found.things and not found.bulk and request.method != "GET":
        raise Malformed("the request is empty: send idsite=1&rec=1&url=…")
    return Readings(_events(found, request), batch=found.bulk, notes=found)


def reply(request: Request, readings: Readings, outcome: Outcome) -> Reply:
    """Answer with the picture, with nothing, or with how many of a bulk were taken (see `Dialect.reply`)."""
    found: Found = readings.notes
    if found.bulk:
        return _bulk(request, outcome, silent=found.silent)
    for error in outcome.rejected.values():
        raise error
    if not found.things:
        return Reply(200, _ABOUT, "text/plain", _credentials(request))
    if found.silent:
        return Reply(204, headers={**_UNCACHED, **_credentials(request)})
    return gif(_credentials(request))


def refuse(request: Request, error: MetronomeError, status: int) -> Reply:
    """Describe the error, to a bulk in Matomo's own shape (see `Dialect.refuse`)."""
    if is_bulk(request.body):
        answer = {"status": "error", "tracked": 0, "invalid": 0, "message": sentence(error)}
        return _json(request, answer, status, headers_of(error))
    plain = problem(error, status)
    return replace(plain, headers={**plain.headers, **_credentials(request)})


def _events(found: Found, request: Request) -> Iterator[Reading]:
    headers = request.headers
    setting = Setting(
        request.site.rule,
        request.sender,
        request.arrival,
        request.believed,
        headers.get("User-Agent", ""),
        headers.get("Accept-Language", ""),
        # A page without scripts has the tracker as a picture, which the browser asks for from the page.
        "" if found.bulk or request.method != "GET" else headers.get("Referer", ""),
    )
    names = identities_of(request.body) if _comes_again(found, request) else None
    for thing in found.things:
        own_name = {"event_id": next(names)} if names is not None else {}
        if isinstance(thing, Malformed | TooLarge):
            yield thing
            continue
        try:
            yield Event({**fields_of(thing, setting), **own_name})
        except Malformed as error:
            yield error


def _comes_again(found: Found, request: Request) -> bool:
    """Tell whether a request is known again by its content: a bulk in which everything has its time."""
    return (
        found.bulk
        and len(found.things) > 1
        and "Idempotency-Key" not in request.headers
        and all(isinstance(thing, Malformed | TooLarge) or thing.get("cdt") for thing in found.things)
    )


def _bulk(request: Request, outcome: Outcome, *, silent: bool) -> Reply:
    rejected = sorted(outcome.rejected.items())
    # Matomo says no more than which ones were wrong, and that only to some.
    headers = {ERROR_HEADER: one_line(str(rejected[0][1]))} if rejected else {}
    if silent:
        return Reply(204, headers={**headers, **_credentials(request)})
    answer: dict[str, Any] = {"status": "success", "tracked": outcome.accepted, "invalid": len(rejected)}
    if request.believed and token(request):
        answer["invalid_indices"] = [index for index, _ in rejected]
    return _json(request, answer, 200, headers)


def _json(request: Request, answer: dict[str, Any], status: int, headers: dict[str, str]) -> Reply:
    return Reply(status, orjson.dumps(answer), "application/json", {**headers, **_credentials(request)})


def _credentials(request: Request) -> dict[str, str]:
    """Return what a browser wants to read before a page may see the answer to a request with its cookies."""
    origin = request.headers.get("Origin", "")
    if not (origin and origin.isascii() and origin.isprintable()):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}
