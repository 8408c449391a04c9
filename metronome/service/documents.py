"""The route that puts documents back into the store: ``POST /documents``."""

import asyncio
from datetime import timedelta
from typing import Final, NamedTuple

import orjson
from aiohttp import web

from metronome.documents import checked_document
from metronome.errors import Malformed, MetronomeError, StoreAway, TooLarge
from metronome.keys import Scope
from metronome.service.bodies import read_body
from metronome.service.problems import ANY_ORIGIN, problem
from metronome.service.reads import Answering
from metronome.stores.store import Batch, Store, Verdicts
from metronome.timestamps import stamp_of

PATH: Final = "/documents"
_AHEAD: Final = timedelta(days=1)
_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.5


class _Checked(NamedTuple):
    """The lines of a body: what is a document, where each of them stood, and why the others are none."""

    documents: list[bytes]
    places: list[int]
    rejected: dict[int, str]


class _Restored(NamedTuple):
    known: int
    refused: dict[bytes, str]


def document_routes(answering: Answering, max_bytes: int, max_events: int) -> list[web.RouteDef]:
    """List the route, which answers for what is in the store, and not in a spool: documents are archived already.

    Args:
        answering: what it needs.
        max_bytes: how large a request's body may be.
        max_events: how many documents it may hold.

    """
    restorer = _Restorer(answering)

    async def post_documents(request: web.Request) -> web.StreamResponse:
        try:
            await answering.admit(request, Scope.IMPORT)
            body = await read_body(request, max_bytes)
            checked = await asyncio.to_thread(_check, body, stamp_of(answering.now() + _AHEAD), max_events)
            known, refused = await restorer.restore(checked.documents)
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        rejected = checked.rejected | {
            place: refused[document]
            for place, document in zip(checked.places, checked.documents, strict=True)
            if document in refused
        }
        told = {
            "accepted": len(checked.documents) + len(checked.rejected) - len(rejected),
            "known": known,
            "rejected": [{"index": index, "error": rejected[index]} for index in sorted(rejected)],
        }
        return web.Response(body=orjson.dumps(told), content_type="application/json", headers=ANY_ORIGIN)

    return [web.post(PATH, post_documents)]


class _Restorer:
    """Writes documents into the store, and is done once it has them."""

    def __init__(self, answering: Answering) -> None:
        self._store: Store = answering.store
        self._telemetry = answering.telemetry
        self._is_set_up = False

    async def restore(self, documents: list[bytes]) -> _Restored:
        """Write documents.

        Raises:
            StoreAway: it does not answer, or is busy for long.
            StoreDenied: it lets nobody write.

        """
        if not self._is_set_up:
            await self._store.setup()
            self._is_set_up = True
        left: Batch | None = Batch.of(documents) if documents else None
        known, refused = 0, dict[bytes, str]()
        for _ in range(_ATTEMPTS):
            if left is None:
                break
            verdicts = await self._store.write(left)
            self._count(verdicts)
            known += verdicts.duplicates
            refused |= {refusal.document: refusal.reason for refusal in verdicts.refused}
            left = verdicts.again
            if left is not None:
                await asyncio.sleep(_PAUSE_SECONDS)
        if left is not None:
            raise StoreAway(f"the store is too busy for {left.count} of {len(documents)} documents")
        return _Restored(known, refused)

    def _count(self, verdicts: Verdicts) -> None:
        self._telemetry.shipped.inc(verdicts.stored)
        self._telemetry.duplicates.inc(verdicts.duplicates)


def _check(body: bytes, latest: str, max_events: int) -> _Checked:
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > max_events:
        raise TooLarge(f"the body holds over batch_max_events ({max_events}) documents: send fewer at once")
    documents, places, rejected = [], [], {}
    for index, line in enumerate(lines):
        try:
            documents.append(checked_document(line, latest))
            places.append(index)
        except Malformed as error:
            rejected[index] = str(error)
    return _Checked(documents, places, rejected)
