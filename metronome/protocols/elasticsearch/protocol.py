"""Elasticsearch's protocol, as far as events are sent over it: ``_bulk``, single documents, and the handshakes.

Indices are not kept apart: their names are taken from whoever sends, and given back in the answers. A document's
``_id`` is its event's identity. Documents are only added: one of an ``_id`` that is known already is the same one, and
neither ``index``, which is answered as a ``noop``, nor ``create`` changes it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import orjson

from metronome.errors import Malformed, MetronomeError, SpoolFull, WrongMethod
from metronome.protocol import Outcome, Readings, Reply, Request, api_key, bearer, password, sentence
from metronome.protocols.elasticsearch.addresses import BULK, Place, Taking, find, methods_of
from metronome.protocols.elasticsearch.bulk import (
    CREATE,
    UNNAMED_INDEX,
    Failure,
    Items,
    Step,
    action_of,
    answer,
    created,
    identities_for,
    read_steps,
    shown_by,
    single,
    unchanged,
    wrong_identity,
)
from metronome.protocols.elasticsearch.errors import BUSY, busy_cause, described, error_headers, status_for, whole
from metronome.protocols.elasticsearch.known import Known

_PRODUCT: Final = {"X-Elastic-Product": "Elasticsearch"}
_JSON: Final = "application/json"
_TEXT: Final = "text/plain"
_COMPATIBLE: Final = re.compile(r"application/vnd\.elasticsearch\+json\s*;\s*compatible-with\s*=\s*([0-9]{1,2})")
_OPTIONS: Final = "OPTIONS"


class _Refused(NamedTuple):
    """A request that is at no address of this protocol."""

    error: MetronomeError
    status: int


class Elasticsearch:
    """The dialect. All that it keeps between two calls is *known*.

    Args:
        known: which documents are on disk already; it is told of those that get there.

    """

    def __init__(self, known: Known) -> None:
        self._known = known

    def key(self, request: Request) -> str:
        """Return the key: a password, an API key or a token (see `Dialect.key`)."""
        headers = request.headers
        return password(headers) or api_key(headers) or bearer(headers)

    def read(self, request: Request) -> Readings:
        """Read the documents of a request; a handshake has none (see `Dialect.read`)."""
        place = _place(request)
        if isinstance(place, _Refused) or place.taking is None:
            return Readings((), batch=False, notes=place)
        if place.taking is BULK:
            index = place.names.get("index", UNNAMED_INDEX)
            steps = read_steps(request.body, index, request.max_events)
        else:
            steps = [_single_step(request, place.taking, place.names)]
        items = Items(steps, self._known)
        readings = items.readings(request.site, identities_for(request, steps))
        return Readings(readings, batch=place.taking is BULK, notes=items)

    def reply(self, request: Request, readings: Readings, outcome: Outcome) -> Reply:
        """Say what became of each document, or answer a handshake (see `Dialect.reply`)."""
        notes = readings.notes
        if isinstance(notes, _Refused):
            return self.refuse(request, notes.error, notes.status)
        if isinstance(notes, Place):
            return _told(request, notes)
        items: Items = notes
        failures = items.settle(outcome)
        if readings.batch:
            return _reply(request, 200, answer(items, failures, shown_by(request.query)))
        if failures:
            return _reply(request, failures[0].status, _single_failure(items, failures[0]))
        action, identity = items.steps[0][0], items.identities[0]
        if items.noops:
            return _reply(request, 200, orjson.dumps(single(unchanged(action, identity))))
        return _reply(request, 201, orjson.dumps(created(action, identity)))

    def refuse(self, request: Request, error: MetronomeError, status: int) -> Reply:
        """Say why nothing was taken (see `Dialect.refuse`).

        Where there is no room, that is said of each document: shippers keep those, and send them again. A sender that
        looks at the status alone says ``busy=whole`` in its address, and hears 429 for the request.
        """
        if isinstance(error, SpoolFull) and request.body and not _wants_whole(request):
            place = _place(request)
            if isinstance(place, Place) and place.taking is BULK:
                return self._busy(request, place, error)
        status = status_for(error, status)
        headers = error_headers(error)
        if isinstance(error, WrongMethod):
            headers["Allow"] = methods_of(request.path) or _OPTIONS
        return _reply(request, status, orjson.dumps(described(error, status)), headers)

    def _busy(self, request: Request, place: Place, error: SpoolFull) -> Reply:
        steps = read_steps(request.body, place.names.get("index", UNNAMED_INDEX), request.max_events)
        items = Items(steps, self._known)
        items.identities = [action.id or "" for action, _ in steps]
        failure = Failure(BUSY, busy_cause(sentence(error)))
        failures = dict.fromkeys(range(len(steps)), failure)
        return _reply(request, 200, answer(items, failures, shown_by(request.query)))


def _wants_whole(request: Request) -> bool:
    return parse_qs(request.query).get("busy") == ["whole"]


def _place(request: Request) -> Place | _Refused:
    try:
        return find(request.method, request.path)
    except WrongMethod as error:
        return _Refused(error, 405)
    except MetronomeError as error:
        return _Refused(error, 404)


def _single_step(request: Request, taking: Taking, names: Mapping[str, str]) -> Step:
    """Make the one action of a request whose body is one document."""
    operation = taking.operation
    if parse_qs(request.query).get("op_type") == [CREATE]:
        operation = CREATE
    identity = names.get("id")
    wrong = wrong_identity(identity) if identity is not None else ""
    if wrong:
        raise Malformed(wrong)
    return action_of(operation, names["index"], identity), request.body


def _single_failure(items: Items, failure: Failure) -> bytes:
    cause: dict[str, Any] = {**failure.cause, "index": items.steps[0][0].into}
    return orjson.dumps(whole(cause, failure.status))


def _told(request: Request, place: Place) -> Reply:
    said = place.answer(request, place.names)
    if isinstance(said, str):
        return Reply(200, said.encode(), _TEXT, _PRODUCT)
    return _reply(request, 200, orjson.dumps(said))


def _reply(request: Request, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
    """Answer in the media type that was asked for: clients of version 8 and 9 look whether it is theirs."""
    asked = _COMPATIBLE.search(request.headers.get("Accept", ""))
    kind = f"application/vnd.elasticsearch+json;compatible-with={asked[1]}" if asked else _JSON
    return Reply(status, body, kind, {**_PRODUCT, **headers} if headers else _PRODUCT)
