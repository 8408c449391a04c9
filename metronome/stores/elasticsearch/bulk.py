"""Writing: a batch as the body of a ``_bulk`` request, and what its response says of each document.

Documents are moved, not parsed: one search over the whole batch finds their heads, and of each head an
action line is made that goes before its document.

Deleting events: whole days as their indices, single events by their identity.

Replacing documents: what is looked up, what is written over it, and what became of it.

A document is written over only if it is still the one that was looked up. So what was deleted meanwhile stays
deleted, and of two that replace the same one at the same time, the second looks again.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import StoreAway, StoreDenied
from metronome.event import HEAD_PATTERN
from metronome.stores.base import Batch, Refusal, Verdicts
from metronome.stores.elasticsearch.connection import reason_of

Head = tuple[bytes, bytes, bytes, bytes]
"""Year, month, day and identity of a document, as `HEAD_PATTERN` finds them."""

_HEAD: Final = re.compile(HEAD_PATTERN)

_STORED = range(200, 300)
_DUPLICATE = 409
_DENIED = (401, 403)
_REFUSED = (400, 404)
_BUSY_TYPES = frozenset({"validation_exception"})
"""Errors that Elasticsearch calls the document's but that are the cluster's: no room for one more shard."""

HEADLESS: Final = "it does not begin with @timestamp and event_id"


def read_heads(body: bytes) -> list[Head]:
    """Return the heads of all documents that have one, in their order."""
    return _HEAD.findall(body)


def bulk_body(body: bytes, prefix: str, heads: list[Head] | None = None) -> bytes:
    """Return the ``_bulk`` body that creates each document in its day's index under its ``event_id``.

    Args:
        body: a batch's documents, each with its head (see `split_headless`).
        prefix: what the indices' names begin with.
        heads: those of *body*, where they have been read already.

    """
    action = b'{"create":{"_index":"%b-%%b.%%b.%%b","_id":%%b}}' % prefix.encode()
    heads = read_heads(body) if heads is None else heads
    lines = [b""] * (2 * len(heads) + 1)
    lines[0:-1:2] = [action % head for head in heads]
    lines[1::2] = body.split(b"\n")[:-1]
    return b"\n".join(lines)


def split_headless(batch: Batch) -> tuple[Batch, tuple[Refusal, ...]]:
    """Take those documents out of a batch whose head names neither an index nor an identity."""
    whole, refused = [], []
    for line in batch.documents():
        if _HEAD.match(line):
            whole.append(line)
        else:
            refused.append(Refusal(line, HEADLESS))
    return Batch.of(whole), tuple(refused)


def split(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield a batch in parts of about the same length, as many as it has times *size* bytes."""
    body = batch.body
    parts = -(-len(body) // size)
    if parts == 1:
        yield batch
        return
    at = 0
    for left in range(parts, 0, -1):
        end = body.find(b"\n", at + (len(body) - at) // left - 1) + 1 if left > 1 else len(body)
        part = body[at:end]
        if part:
            yield Batch(part, part.count(b"\n"))
        at = end


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the two halves of a batch of at least two documents."""
    lines = batch.documents()
    middle = len(lines) // 2
    return Batch.of(lines[:middle]), Batch.of(lines[middle:])


def read_verdicts(batch: Batch, response: dict[str, Any]) -> Verdicts:
    """Read what became of each document.

    Args:
        batch: what was sent.
        response: ``errors``, and of each item its ``status`` and ``error``.

    Raises:
        StoreDenied: a document was not allowed.

    """
    if not response["errors"]:
        return Verdicts(stored=batch.count)
    stored = duplicates = 0
    refused, again = [], []
    for document, item in zip(batch.documents(), response["items"], strict=True):
        (result,) = item.values()
        status, error = result["status"], result.get("error", {})
        if status in _STORED:
            stored += 1
        elif status == _DUPLICATE:
            duplicates += 1
        elif status in _DENIED:
            raise StoreDenied(f"Elasticsearch does not let this node write: {reason_of(error)}")
        elif status in _REFUSED and error.get("type") not in _BUSY_TYPES:
            refused.append(Refusal(document, reason_of(error)))
        else:
            again.append(document)
    return Verdicts(stored, duplicates, tuple(refused), Batch.of(again) if again else None)


def merge(verdicts: list[Verdicts]) -> Verdicts:
    """Return what became of a batch, of what became of its parts."""
    again = [each.again for each in verdicts if each.again is not None]
    return Verdicts(
        stored=sum(each.stored for each in verdicts),
        duplicates=sum(each.duplicates for each in verdicts),
        refused=tuple(refusal for each in verdicts for refusal in each.refused),
        again=Batch(b"".join(each.body for each in again), sum(each.count for each in again)) if again else None,
    )


NAMES_AT_ONCE: Final = 20
"""How many indices one request names: an HTTP line holds 4,096 bytes."""

_DELETED = range(200, 300)
_GONE = 404


def indices_before(names: Iterable[str], prefix: str, before: datetime) -> list[str]:
    """Return the names of the days' indices that lie wholly before a moment, oldest first."""
    day = re.compile(re.escape(prefix) + r"-(\d{4}\.\d\d\.\d\d)")
    first_kept = before.astimezone(UTC).strftime("%Y.%m.%d")
    return sorted(name for name in names if (match := day.fullmatch(name)) and match[1] < first_kept)


def named_at_once(names: list[str]) -> Iterator[list[str]]:
    """Yield names in lists short enough for one request."""
    for at in range(0, len(names), NAMES_AT_ONCE):
        yield names[at : at + NAMES_AT_ONCE]


def delete_body(hits: list[dict[str, Any]]) -> bytes:
    """Return the ``_bulk`` body that deletes the documents that were found."""
    return b"".join(orjson.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) + b"\n" for hit in hits)


def read_deletions(response: dict[str, Any]) -> int:
    """Read how many documents a ``_bulk`` request deleted; those that were gone already do not count.

    Raises:
        StoreDenied: deleting is not allowed.
        StoreAway: some could not be deleted now.

    """
    deleted = 0
    for item in response["items"]:
        result = item["delete"]
        status = result["status"]
        if status in _DELETED:
            deleted += 1
        elif status in _DENIED:
            raise StoreDenied(f"Elasticsearch does not let this node delete: {reason_of(result.get('error'))}")
        elif status != _GONE:
            raise StoreAway(f"Elasticsearch cannot delete now: {status} {reason_of(result.get('error'))}")
    return deleted


FOUND_ONLY: Final = "docs.found,docs._seq_no,docs._primary_term,docs.error"

_REPLACED = range(200, 300)
_CHANGED = 409
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
