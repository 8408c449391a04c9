"""The documents of a request, read as events, each with the name that it is answered with."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from metronome.dialects.bulk.actions import Action, Step
from metronome.dialects.dialect import Reading, Request
from metronome.dialects.records import record_event
from metronome.dialects.site import Site
from metronome.errors import Malformed
from metronome.event import REPEATED, TIME_NAMES
from metronome.identities import identities_of, own_identities

_IDENTITY: Final = "event_id"
_OTHER_IDENTITY: Final = "record_event_id"
_TIMES: Final = tuple(f'"{name}":'.encode() for name in TIME_NAMES)
_MILLISECONDS_FROM: Final = 100_000_000_000
"""Numbers from here on are milliseconds (see `metronome.timestamps`)."""


def identities_for(request: Request, steps: list[Step]) -> Iterator[str]:
    """Return the names for documents that bring none.

    A shipper that hears no answer sends the same again. Where the request is surely one that no other is equal to,
    since its documents tell when they happened and there are several of them, or the time of the only one is finer
    than a second, it is named by what it is, so that nothing counts twice. Else each document gets a new name: two
    equal ones are two.
    """
    identities = request.identities or own_identities()
    sources = [source for action, source in steps if source is not None and action.id is None]
    if "Idempotency-Key" in request.headers or not (sources and _all_may_have_times(sources)):
        return identities
    if len(sources) == 1 and not _is_finely_timed(sources[0]):
        return identities
    return identities_of(b"%b\n%b" % (request.path.encode(errors="replace"), request.body))


def read_sources(steps: Iterable[Step], site: Site, identities: Iterator[str], names: list[str]) -> Iterator[Reading]:
    """Read the documents of actions one by one, as they are asked for.

    Args:
        steps: the actions, each with its document.
        site: what the operator says of what they publish.
        identities: for documents that bring none.
        names: here each document's name is put, or nothing where it has none.

    """
    last: Action | None = None
    given: str | None = None
    wrong = ""
    for action, source in steps:
        if action is not last:
            last, given, wrong = action, action.id, action.wrong
        try:
            found = orjson.loads(source or b"")
        except orjson.JSONDecodeError as error:
            found = error
        if wrong or type(found) is not dict:
            names.append(given or "")
            yield _no_event(action, source, found)
            continue
        if source is not None and source.count(b'":') != len(found):
            _mark_repeated(found, source)
        event = record_event(found, site, source)
        # It was read here, so that nobody else has the fields.
        fields: Any = event.fields
        identity = _named(fields, given) if _IDENTITY in fields else given
        if identity is None:
            identity = next(identities)
        fields[_IDENTITY] = identity
        names.append(identity)
        yield event


def _no_event(action: Action, source: bytes | None, found: object) -> Malformed:
    if action.wrong:
        return Malformed(action.wrong)
    if not source:
        return Malformed("the line of its document is missing")
    if isinstance(found, ValueError):
        return Malformed(f"not JSON: {found}; numbers are finite, texts UTF-8 without lone surrogates")
    return Malformed(f"a document is a JSON object, and this is {type(found).__name__}")


def _named(fields: dict[str, Any], given: str | None) -> str | None:
    """Settle the name of an event that names itself: its action's counts, and its own is kept beside that."""
    own = fields.pop(_IDENTITY)
    if given is None:
        return str(own) if type(own) in (str, int) and own != "" else None
    if own not in (None, "", given):
        fields[_OTHER_IDENTITY] = own
    return given


def _mark_repeated(found: dict[str, Any], source: bytes) -> None:
    """List the fields that a document has twice, of which the parser gives the last only.

    A document with objects or lists inside is kept whole anyway, as it came.
    """
    if {dict, list} & set(map(type, found.values())):
        return
    pairs = json.loads(source, object_pairs_hook=list, parse_int=float)
    repeated = sorted(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    if repeated:
        found[REPEATED] = repeated


def _all_may_have_times(sources: list[bytes]) -> bool:
    """Tell whether every document has a time, as far as that shows without reading it.

    It may be one that lies deeper inside: such a document says well enough that it is itself and no other.
    """
    likely = next((name for name in _TIMES if name in sources[0]), None)
    if likely is None:
        return False
    others = [source for source in sources if likely not in source]
    return all(any(name in source for name in _TIMES) for source in others)


def _is_finely_timed(source: bytes) -> bool:
    try:
        found = orjson.loads(source)
    except orjson.JSONDecodeError:
        return False
    if type(found) is not dict:
        return False
    time = next((found[name] for name in TIME_NAMES if found.get(name) is not None), None)
    if isinstance(time, str):
        fraction = time.partition(".")[2].rstrip("Zz").partition("+")[0]
        return fraction.strip("0") != ""
    return isinstance(time, (int, float)) and time % (1000 if time >= _MILLISECONDS_FROM else 1) != 0
