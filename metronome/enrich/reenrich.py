"""Enrich stored documents again, by the current rules."""

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
    """Return a document with its enriched fields computed again; None if nothing changes.

    What cannot be computed again is unchanged: visitors and sessions, whose salts are destroyed, and fields whose
    inputs are gone. So are the timestamp, the ID and all fields that the sender set. The function is idempotent.
    """
    doc: dict[str, Any] = orjson.loads(document)
    sender_fields = get_sender_fields(doc)
    fixed = with_dependent_fields(sender_fields)
    derived = {name: value for name, value in enrichment.derive_fields(doc).items() if name not in fixed}
    stale = enrichment.list_derivable_fields(doc) - fixed
    changed = {name: value for name, value in doc.items() if name not in stale or value in EMPTY_VALUES} | derived
    if derived or ENRICH_VERSION_FIELD in doc:
        changed[ENRICH_VERSION_FIELD] = ENRICH_VERSION
        if sender_fields:
            changed[ENRICH_KEPT_FIELD] = ",".join(sorted(sender_fields))
    return None if changed == doc else orjson.dumps(changed)


def list_changed_fields(before: bytes, after: bytes) -> Iterable[str]:
    """Return the names of the fields in which two documents differ, except those about enrichment itself."""
    old, new = orjson.loads(before), orjson.loads(after)
    return [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in _BOOKKEEPING_FIELDS]


def get_sender_fields(doc: Mapping[str, Any]) -> frozenset[str]:
    """Return those enriched fields of a document that its sender set: all of them if it was never enriched."""
    if ENRICH_VERSION_FIELD not in doc:
        return frozenset(name for name in ENRICHED_FIELDS if doc.get(name) not in EMPTY_VALUES)
    listed = doc.get(ENRICH_KEPT_FIELD)
    return ENRICHED_FIELDS.intersection(listed.split(",")) if isinstance(listed, str) else frozenset()
