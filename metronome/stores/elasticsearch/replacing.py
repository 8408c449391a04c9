"""Replacing documents: what is looked up, what is written over it, and what became of it.

A document is written over only if it is still the one that was looked up. So what was deleted meanwhile stays
deleted, and of two that replace the same one at the same time, the second looks again.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import StoreAway, StoreDenied
from metronome.stores.elasticsearch.bulk import Head, read_heads, split_headless
from metronome.stores.elasticsearch.connection import reason_of
from metronome.stores.store import Batch

FOUND_ONLY: Final = "docs.found,docs._seq_no,docs._primary_term,docs.error"

_REPLACED = range(200, 300)
_CHANGED = 409
_DENIED = (401, 403)
_REFUSED = (400, 404)
_NOT_THERE = frozenset({"index_not_found_exception", "index_closed_exception"})


class Known(NamedTuple):
    """A document, and which state of it in the store it replaces."""

    head: Head
    document: bytes
    number: int
    term: int


def first_of_each(batch: Batch) -> Batch:
    """Leave out the documents without an identity, and those whose identity came before."""
    whole, _ = split_headless(batch)
    firsts: dict[Head, bytes] = {}
    for head, document in zip(read_heads(whole.body), whole.documents(), strict=True):
        firsts.setdefault(head, document)
    return Batch.of(list(firsts.values()))


def look_up(batch: Batch, prefix: str) -> list[dict[str, str]]:
    """Return what to look up of each document in a batch."""
    return [
        {"_index": f"{prefix}-{b'.'.join(day).decode()}", "_id": orjson.loads(name)}
        for *day, name in read_heads(batch.body)
    ]


def read_known(batch: Batch, response: dict[str, Any]) -> list[Known]:
    """Return which documents of a batch are there.

    Raises:
        StoreDenied: looking is not allowed.
        StoreAway: some cannot be looked up now.

    """
    known = []
    for document, head, found in zip(batch.documents(), read_heads(batch.body), response["docs"], strict=True):
        if found.get("found"):
            known.append(Known(head, document, found["_seq_no"], found["_primary_term"]))
        elif (error := found.get("error")) and error.get("type") not in _NOT_THERE:
            if error.get("type") == "security_exception":
                raise StoreDenied(f"Elasticsearch does not let this node read: {reason_of(error)}")
            raise StoreAway(f"Elasticsearch cannot look up documents now: {reason_of(error)}")
    return known


def replace_body(known: list[Known], prefix: str) -> bytes:
    """Return the ``_bulk`` body that writes documents over those that are there."""
    action = b'{"index":{"_index":"%b-%%b.%%b.%%b","_id":%%b,"if_seq_no":%%d,"if_primary_term":%%d}}' % prefix.encode()
    return b"".join(b"%b\n%b\n" % (action % (*each.head, each.number, each.term), each.document) for each in known)


def read_replaced(known: list[Known], response: dict[str, Any]) -> tuple[int, Batch]:
    """Return how many documents were replaced, and those to look up again since they were changed meanwhile.

    Documents that the mapping refuses are left as they were.

    Raises:
        StoreDenied: replacing is not allowed.
        StoreAway: some cannot be replaced now.

    """
    replaced, again = 0, []
    for each, (status, error) in zip(known, _outcomes(response), strict=True):
        if status in _REPLACED:
            replaced += 1
        elif status == _CHANGED:
            again.append(each.document)
        elif status in _DENIED:
            raise StoreDenied(f"Elasticsearch does not let this node replace documents: {reason_of(error)}")
        elif status not in _REFUSED:
            raise StoreAway(f"Elasticsearch cannot replace documents now: {status} {reason_of(error)}")
    return replaced, Batch.of(again)


def _outcomes(response: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    for item in response["items"]:
        (result,) = item.values()
        yield result["status"], result.get("error")
