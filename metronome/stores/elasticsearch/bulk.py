"""Writing: a batch as the body of a ``_bulk`` request, and what its response says of each document.

Documents are moved, not parsed: one search over the whole batch finds their heads, and of each head an
action line is made that goes before its document.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from metronome.errors import StoreDenied
from metronome.event import HEAD_PATTERN
from metronome.stores.elasticsearch.connection import reason_of
from metronome.stores.store import Batch, Refusal, Verdicts

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
