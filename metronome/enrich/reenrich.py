"""Enrichment once more, of what is stored: what it knows better by now takes the place of what it knew then."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from metronome.enrich.enrichment import (
    EMPTY_VALUES,
    ENRICH_KEPT_FIELD,
    ENRICH_VERSION,
    ENRICH_VERSION_FIELD,
    Enrichment,
    with_dependent_fields,
)
from metronome.fields import ENRICHED_FIELDS

_BOOKKEEPING_FIELDS: Final = (ENRICH_VERSION_FIELD, ENRICH_KEPT_FIELD)


def reenrich_document(document: bytes, enrichment: Enrichment) -> bytes | None:
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
    kept = get_sender_fields(doc)
    fixed = with_dependent_fields(kept)
    found = {name: value for name, value in enrichment.derive_fields(doc).items() if name not in fixed}
    stale = enrichment.list_derivable_fields(doc) - fixed
    changed = {name: value for name, value in doc.items() if name not in stale or value in EMPTY_VALUES} | found
    if found or ENRICH_VERSION_FIELD in doc:
        changed[ENRICH_VERSION_FIELD] = ENRICH_VERSION
        if kept:
            changed[ENRICH_KEPT_FIELD] = ",".join(sorted(kept))
    return None if changed == doc else orjson.dumps(changed)


def list_changed_fields(before: bytes, after: bytes) -> Iterable[str]:
    """Return the names of the fields in which two documents differ, but for the marks of enrichment itself."""
    old, new = orjson.loads(before), orjson.loads(after)
    return [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in _BOOKKEEPING_FIELDS]


def get_sender_fields(doc: Mapping[str, Any]) -> frozenset[str]:
    """Return which fields of a document only look as if enrichment had made them.

    In one that was never enriched all are the sender's; in another those that it lists.
    """
    if ENRICH_VERSION_FIELD not in doc:
        return frozenset(name for name in ENRICHED_FIELDS if doc.get(name) not in EMPTY_VALUES)
    listed = doc.get(ENRICH_KEPT_FIELD)
    return ENRICHED_FIELDS.intersection(listed.split(",")) if isinstance(listed, str) else frozenset()
