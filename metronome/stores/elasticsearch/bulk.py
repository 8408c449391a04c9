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

from metronome.errors import StoreAccessDenied, StoreUnavailable
from metronome.event import DOCUMENT_HEAD_PATTERN
from metronome.stores.base import DocumentBatch, RejectedDocument, WriteResult
from metronome.stores.elasticsearch.connection import IndexMissing, format_reason

DocumentHead = tuple[bytes, bytes, bytes, bytes]
"""Year, month, day and identity of a document, as `DOCUMENT_HEAD_PATTERN` finds them."""

_HEAD_PATTERN: Final = re.compile(DOCUMENT_HEAD_PATTERN)

_SUCCESS_STATUSES = range(200, 300)
_CONFLICT_STATUS = 409
_FORBIDDEN_STATUSES = (401, 403)
_NOT_FOUND_STATUS = 404
_REJECTED_STATUS = 400
_RETRYABLE_ERROR_TYPES = frozenset({"validation_exception"})
"""Errors that Elasticsearch calls the document's but that are the cluster's: no room for one more shard."""

MISSING_HEAD: Final = "it does not begin with @timestamp and event_id"


def read_heads(body: bytes) -> list[DocumentHead]:
    """Return the heads of all documents that have one, in their order."""
    return _HEAD_PATTERN.findall(body)


def build_create_body(body: bytes, prefix: str, heads: list[DocumentHead] | None = None) -> bytes:
    """Return the ``_bulk`` body that creates each document in its day's index under its ``event_id``.

    Args:
        body: a batch's documents, each with its head (see `split_headless_documents`).
        prefix: what the indices' names begin with.
        heads: those of *body*, where they have been read already.

    """
    action = b'{"create":{"_index":"%b-%%b.%%b.%%b","_id":%%b}}' % prefix.encode()
    heads = read_heads(body) if heads is None else heads
    lines = [b""] * (2 * len(heads) + 1)
    lines[0:-1:2] = [action % head for head in heads]
    lines[1::2] = body.split(b"\n")[:-1]
    return b"\n".join(lines)


def split_headless_documents(batch: DocumentBatch) -> tuple[DocumentBatch, tuple[RejectedDocument, ...]]:
    """Take those documents out of a batch whose head names neither an index nor an identity."""
    whole, refused = [], []
    for line in batch.documents():
        if _HEAD_PATTERN.match(line):
            whole.append(line)
        else:
            refused.append(RejectedDocument(line, MISSING_HEAD))
    return DocumentBatch.from_documents(whole), tuple(refused)


def split_batch(batch: DocumentBatch, max_bytes: int) -> Iterator[DocumentBatch]:
    """Yield a batch in parts of about the same length, as many as it has times *max_bytes* bytes."""
    body = batch.body
    parts = -(-len(body) // max_bytes)
    if parts == 1:
        yield batch
        return
    at = 0
    for left in range(parts, 0, -1):
        end = body.find(b"\n", at + (len(body) - at) // left - 1) + 1 if left > 1 else len(body)
        part = body[at:end]
        if part:
            yield DocumentBatch(part, part.count(b"\n"))
        at = end


def split_in_half(batch: DocumentBatch) -> tuple[DocumentBatch, DocumentBatch]:
    """Return the two halves of a batch of at least two documents."""
    lines = batch.documents()
    middle = len(lines) // 2
    return DocumentBatch.from_documents(lines[:middle]), DocumentBatch.from_documents(lines[middle:])


def read_write_result(batch: DocumentBatch, response: dict[str, Any]) -> WriteResult:
    """Read what became of each document.

    Args:
        batch: what was sent.
        response: ``errors``, and of each item its ``status`` and ``error``.

    Raises:
        StoreAccessDenied: a document was not allowed.
        IndexMissing: the index of a document does not exist and was not created, or was just deleted.

    """
    if not response["errors"]:
        return WriteResult(stored=batch.count)
    stored = duplicates = 0
    refused, again = [], []
    for document, item in zip(batch.documents(), response["items"], strict=True):
        (result,) = item.values()
        status, error = result["status"], result.get("error", {})
        if status in _SUCCESS_STATUSES:
            stored += 1
        elif status == _CONFLICT_STATUS:
            duplicates += 1
        elif status in _FORBIDDEN_STATUSES:
            raise StoreAccessDenied(f"Elasticsearch does not let this node write: {format_reason(error)}")
        elif status == _NOT_FOUND_STATUS:
            raise IndexMissing(f"Elasticsearch does not have the index of an event: {format_reason(error)}")
        elif status == _REJECTED_STATUS and error.get("type") not in _RETRYABLE_ERROR_TYPES:
            refused.append(RejectedDocument(document, format_reason(error)))
        else:
            again.append(document)
    return WriteResult(stored, duplicates, tuple(refused), DocumentBatch.from_documents(again) if again else None)


def merge_write_results(results: list[WriteResult]) -> WriteResult:
    """Return what became of a batch, of what became of its parts."""
    again = [each.retry for each in results if each.retry is not None]
    return WriteResult(
        stored=sum(each.stored for each in results),
        duplicates=sum(each.duplicates for each in results),
        rejected=tuple(refusal for each in results for refusal in each.rejected),
        retry=DocumentBatch(b"".join(each.body for each in again), sum(each.count for each in again))
        if again
        else None,
    )


INDICES_PER_REQUEST: Final = 20
"""How many indices one request names: an HTTP line holds 4,096 bytes."""

_SUCCESS_STATUSES = range(200, 300)
_NOT_FOUND_STATUS = 404


def indices_before(names: Iterable[str], prefix: str, before: datetime) -> list[str]:
    """Return the names of the days' indices that lie wholly before a moment, oldest first."""
    day = re.compile(re.escape(prefix) + r"-(\d{4}\.\d\d\.\d\d)")
    first_kept = before.astimezone(UTC).strftime("%Y.%m.%d")
    return sorted(name for name in names if (match := day.fullmatch(name)) and match[1] < first_kept)


def chunk_index_names(names: list[str]) -> Iterator[list[str]]:
    """Yield names in lists short enough for one request."""
    for at in range(0, len(names), INDICES_PER_REQUEST):
        yield names[at : at + INDICES_PER_REQUEST]


def build_delete_body(hits: list[dict[str, Any]]) -> bytes:
    """Return the ``_bulk`` body that deletes the documents that were found."""
    return b"".join(orjson.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) + b"\n" for hit in hits)


def read_delete_count(response: dict[str, Any]) -> int:
    """Read how many documents a ``_bulk`` request deleted; those that were gone already do not count.

    Raises:
        StoreAccessDenied: deleting is not allowed.
        StoreUnavailable: some could not be deleted now.

    """
    deleted = 0
    for item in response["items"]:
        result = item["delete"]
        status = result["status"]
        if status in _SUCCESS_STATUSES:
            deleted += 1
        elif status in _FORBIDDEN_STATUSES:
            raise StoreAccessDenied(
                f"Elasticsearch does not let this node delete: {format_reason(result.get('error'))}"
            )
        elif status != _NOT_FOUND_STATUS:
            raise StoreUnavailable(f"Elasticsearch cannot delete now: {status} {format_reason(result.get('error'))}")
    return deleted


LOOKUP_FILTER_PATH: Final = "docs.found,docs._seq_no,docs._primary_term,docs.error"

_SUCCESS_STATUSES = range(200, 300)
_CONFLICT_STATUS = 409
_MISSING_INDEX_TYPES = frozenset({"index_not_found_exception", "index_closed_exception"})


class StoredDocument(NamedTuple):
    """A document, and which state of it in the store it replaces."""

    head: DocumentHead
    document: bytes
    seq_no: int
    primary_term: int


def deduplicate_batch(batch: DocumentBatch) -> DocumentBatch:
    """Leave out the documents without an identity, and those whose identity came before."""
    whole, _ = split_headless_documents(batch)
    firsts: dict[DocumentHead, bytes] = {}
    for head, document in zip(read_heads(whole.body), whole.documents(), strict=True):
        firsts.setdefault(head, document)
    return DocumentBatch.from_documents(list(firsts.values()))


def build_lookup(batch: DocumentBatch, prefix: str) -> list[dict[str, str]]:
    """Return what to look up of each document in a batch."""
    return [
        {"_index": f"{prefix}-{b'.'.join(day).decode()}", "_id": orjson.loads(name)}
        for *day, name in read_heads(batch.body)
    ]


def read_stored_documents(batch: DocumentBatch, response: dict[str, Any]) -> list[StoredDocument]:
    """Return which documents of a batch are there.

    Raises:
        StoreAccessDenied: looking is not allowed.
        StoreUnavailable: some cannot be looked up now.

    """
    known = []
    for document, head, found in zip(batch.documents(), read_heads(batch.body), response["docs"], strict=True):
        if found.get("found"):
            known.append(StoredDocument(head, document, found["_seq_no"], found["_primary_term"]))
        elif (error := found.get("error")) and error.get("type") not in _MISSING_INDEX_TYPES:
            if error.get("type") == "security_exception":
                raise StoreAccessDenied(f"Elasticsearch does not let this node read: {format_reason(error)}")
            raise StoreUnavailable(f"Elasticsearch cannot look up documents now: {format_reason(error)}")
    return known


def build_replace_body(stored: list[StoredDocument], prefix: str) -> bytes:
    """Return the ``_bulk`` body that writes documents over those that are there."""
    action = b'{"index":{"_index":"%b-%%b.%%b.%%b","_id":%%b,"if_seq_no":%%d,"if_primary_term":%%d}}' % prefix.encode()
    return b"".join(
        b"%b\n%b\n" % (action % (*each.head, each.seq_no, each.primary_term), each.document) for each in stored
    )


def read_replace_result(stored: list[StoredDocument], response: dict[str, Any]) -> tuple[int, DocumentBatch]:
    """Return how many documents were replaced, and those to look up again since they were changed meanwhile.

    Documents that the mapping refuses are left as they were.

    Raises:
        StoreAccessDenied: replacing is not allowed.
        StoreUnavailable: some cannot be replaced now.

    """
    replaced, again = 0, []
    for each, (status, error) in zip(stored, _iterate_item_results(response), strict=True):
        if status in _SUCCESS_STATUSES:
            replaced += 1
        elif status == _CONFLICT_STATUS:
            again.append(each.document)
        elif status in _FORBIDDEN_STATUSES:
            raise StoreAccessDenied(f"Elasticsearch does not let this node replace documents: {format_reason(error)}")
        elif status not in (_NOT_FOUND_STATUS, _REJECTED_STATUS):
            raise StoreUnavailable(f"Elasticsearch cannot replace documents now: {status} {format_reason(error)}")
    return replaced, DocumentBatch.from_documents(again)


def _iterate_item_results(response: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    for item in response["items"]:
        (result,) = item.values()
        yield result["status"], result.get("error")
