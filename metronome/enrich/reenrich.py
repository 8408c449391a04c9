"""Enrichment once more, of what is stored: what it knows better by now takes the place of what it knew then."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from metronome.enrich.enrichment import KEPT_NAME, MADE, NOTHING, VERSION, VERSION_NAME, Enrichment, with_belonging

_MARKS: Final = (VERSION_NAME, KEPT_NAME)


def enriched_again(document: bytes, enrichment: Enrichment) -> bytes | None:
    """Work out anew what follows from a document.

    What cannot be worked out stays as it is: visitors and sessions, whose salts are gone, and whatever has lost what
    it was made of. So do time, identity and all fields that are the sender's own. Doing it twice is doing it once.

    Args:
        document: as a store yields it.
        enrichment: what is known by now.

    Returns:
        The document that belongs in its place, or None where it can stay.

    """
    doc: dict[str, Any] = orjson.loads(document)
    kept = kept_of(doc)
    fixed = with_belonging(kept)
    found = {name: value for name, value in enrichment.derived(doc).items() if name not in fixed}
    stale = enrichment.workable(doc) - fixed
    changed = {name: value for name, value in doc.items() if name not in stale or value in NOTHING} | found
    if found or VERSION_NAME in doc:
        changed[VERSION_NAME] = VERSION
        if kept:
            changed[KEPT_NAME] = ",".join(sorted(kept))
    return None if changed == doc else orjson.dumps(changed)


def changed_fields(before: bytes, after: bytes) -> Iterable[str]:
    """Return the names of the fields in which two documents differ, but for the marks of enrichment itself."""
    old, new = orjson.loads(before), orjson.loads(after)
    return [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in _MARKS]


def kept_of(doc: Mapping[str, Any]) -> frozenset[str]:
    """Return which fields of a document only look as if enrichment had made them.

    In one that was never enriched all are the sender's; in another those that it lists.
    """
    if VERSION_NAME not in doc:
        return frozenset(name for name in MADE if doc.get(name) not in NOTHING)
    listed = doc.get(KEPT_NAME)
    return MADE.intersection(listed.split(",")) if isinstance(listed, str) else frozenset()
