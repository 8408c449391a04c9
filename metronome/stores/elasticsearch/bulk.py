"""``_bulk`` requests: their bodies, and what their responses say of each document.

Writing does not parse documents: one search over the whole batch finds their heads, and each head becomes the action
line in front of its document.

Replacing first looks documents up, and overwrites one only if it did not change since. So deleted documents are not
restored, and of two concurrent replacements of the same document, the second looks it up again.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import StoreAccessDenied, StoreUnavailable
from metronome.event import DOCUMENT_HEAD_PATTERN
from metronome.stores.base import DocumentBatch, RejectedDocument, WriteResult
from metronome.stores.elasticsearch.connection import (
    BAD_REQUEST_STATUS,
    CONFLICT_STATUS,
    FORBIDDEN_STATUSES,
    NOT_FOUND_STATUS,
    SUCCESS_STATUSES,
    IndexMissing,
    format_reason,
)

DocumentHead = tuple[bytes, bytes, bytes, bytes]
"""Year, month, day and ID of a document, as `DOCUMENT_HEAD_PATTERN` finds them."""

MISSING_HEAD: Final = "the document does not begin with @timestamp and event_id"
INDICES_PER_REQUEST: Final = 20
"""How many indices one request names: Elasticsearch accepts a request line of 4,096 bytes."""
LOOKUP_FILTER_PATH: Final = "docs.found,docs._seq_no,docs._primary_term,docs.error"

_HEAD_PATTERN: Final = re.compile(DOCUMENT_HEAD_PATTERN)
_CLUSTER_ERROR_TYPES: Final = frozenset({"validation_exception"})
"""Errors with the status of a bad document that are the cluster's: it has no room for another shard."""
_MISSING_INDEX_TYPES: Final = frozenset({"index_not_found_exception", "index_closed_exception"})


def read_heads(body: bytes) -> list[DocumentHead]:
    """Return the heads of all documents that have one, in their order."""
    return _HEAD_PATTERN.findall(body)


def build_create_body(body: bytes, prefix: str, heads: list[DocumentHead] | None = None) -> bytes:
    """Return the ``_bulk`` body that creates each document in its day's index under its ``event_id``.

    Args:
        body: the documents of a batch, each with its head (see `split_headless_documents`).
        prefix: the beginning of the indices' names.
        heads: those of *body*, if they have been read already.

    """
    action = b'{"create":{"_index":"%b-%%b.%%b.%%b","_id":%%b}}' % prefix.encode()
    heads = read_heads(body) if heads is None else heads
    lines = [b""] * (2 * len(heads) + 1)
    lines[0:-1:2] = [action % head for head in heads]
    lines[1::2] = body.split(b"\n")[:-1]
    return b"\n".join(lines)


def index_names(heads: Iterable[DocumentHead], prefix: str) -> set[str]:
    """Return the names of the indices of documents with these heads."""
    return {f"{prefix}-{b'.'.join(day).decode()}" for day in {head[:3] for head in heads}}


def split_headless_documents(batch: DocumentBatch) -> tuple[DocumentBatch, tuple[RejectedDocument, ...]]:
    """Return the documents of a batch that have a head, and reject the others: they have no index and no ID."""
    complete, rejected = [], []
    for document in batch.documents():
        if _HEAD_PATTERN.match(document):
            complete.append(document)
        else:
            rejected.append(RejectedDocument(document, MISSING_HEAD))
    return DocumentBatch.from_documents(complete), tuple(rejected)


def split_batch(batch: DocumentBatch, max_bytes: int) -> Iterator[DocumentBatch]:
    """Yield a batch in parts of similar length, as few as *max_bytes* allows."""
    body = batch.body
    parts = -(-len(body) // max_bytes)
    if parts == 1:
        yield batch
        return
    start = 0
    for remaining in range(parts, 0, -1):
        end = body.find(b"\n", start + (len(body) - start) // remaining - 1) + 1 if remaining > 1 else len(body)
        part = body[start:end]
        if part:
            yield DocumentBatch(part, part.count(b"\n"))
        start = end


def read_write_result(batch: DocumentBatch, response: dict[str, Any]) -> WriteResult:
    """Return the outcome of writing each document.

    Args:
        batch: the documents, in the order of the request.
        response: ``errors``, and the ``status`` and ``error`` of each item.

    Raises:
        StoreAccessDenied: writing a document is not allowed.
        IndexMissing: the index of a document does not exist and was not created, or was just deleted.

    """
    if not response["errors"]:
        return WriteResult(stored=batch.count)
    stored = duplicates = 0
    rejected, retry = [], []
    for document, (status, error) in zip(batch.documents(), _iterate_items(response, "write"), strict=True):
        if status in SUCCESS_STATUSES:
            stored += 1
        elif status == CONFLICT_STATUS:
            duplicates += 1
        elif status == NOT_FOUND_STATUS:
            raise IndexMissing(f"Elasticsearch does not have the index of an event: {format_reason(error)}")
        elif status == BAD_REQUEST_STATUS and error.get("type") not in _CLUSTER_ERROR_TYPES:
            rejected.append(RejectedDocument(document, format_reason(error)))
        else:
            retry.append(document)
    return WriteResult(stored, duplicates, tuple(rejected), DocumentBatch.from_documents(retry) if retry else None)


def indices_before(names: Iterable[str], prefix: str, before: datetime) -> list[str]:
    """Return the names of the daily indices whose whole day is before a time, oldest first."""
    pattern = re.compile(re.escape(prefix) + r"-(\d{4}\.\d\d\.\d\d)")
    first_kept_day = before.astimezone(UTC).strftime("%Y.%m.%d")
    return sorted(name for name in names if (match := pattern.fullmatch(name)) and match[1] < first_kept_day)


def chunk_index_names(names: list[str]) -> Iterator[list[str]]:
    """Yield lists of names that are short enough for one request."""
    for start in range(0, len(names), INDICES_PER_REQUEST):
        yield names[start : start + INDICES_PER_REQUEST]


def build_delete_body(hits: list[dict[str, Any]]) -> bytes:
    """Return the ``_bulk`` body that deletes the documents of these hits."""
    return b"".join(orjson.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) + b"\n" for hit in hits)


def read_delete_count(response: dict[str, Any]) -> int:
    """Return how many documents were deleted, without those that had been deleted before.

    Raises:
        StoreAccessDenied: deleting is not allowed.
        StoreUnavailable: a document cannot be deleted now.

    """
    deleted = 0
    for status, error in _iterate_items(response, "delete"):
        if status in SUCCESS_STATUSES:
            deleted += 1
        elif status != NOT_FOUND_STATUS:
            raise StoreUnavailable(f"Elasticsearch cannot delete events now: {status} {format_reason(error)}")
    return deleted


class StoredDocument(NamedTuple):
    """A document, and the version of the stored one that it replaces."""

    head: DocumentHead
    document: bytes
    seq_no: int
    primary_term: int


def deduplicate_batch(batch: DocumentBatch) -> DocumentBatch:
    """Return a batch without documents that have no head, or the same head as an earlier one."""
    complete, _ = split_headless_documents(batch)
    documents: dict[DocumentHead, bytes] = {}
    for head, document in zip(read_heads(complete.body), complete.documents(), strict=True):
        documents.setdefault(head, document)
    return DocumentBatch.from_documents(list(documents.values()))


def build_lookup(batch: DocumentBatch, prefix: str) -> list[dict[str, str]]:
    """Return the ``_mget`` items for the documents of a batch."""
    return [
        {"_index": f"{prefix}-{b'.'.join(day).decode()}", "_id": orjson.loads(event_id)}
        for *day, event_id in read_heads(batch.body)
    ]


def read_stored_documents(batch: DocumentBatch, response: dict[str, Any]) -> list[StoredDocument]:
    """Return those documents of a batch that are in the store.

    Raises:
        StoreAccessDenied: reading is not allowed.
        StoreUnavailable: a document cannot be looked up now.

    """
    stored = []
    for document, head, item in zip(batch.documents(), read_heads(batch.body), response["docs"], strict=True):
        if item.get("found"):
            stored.append(StoredDocument(head, document, item["_seq_no"], item["_primary_term"]))
        elif (error := item.get("error")) and error.get("type") not in _MISSING_INDEX_TYPES:
            if error.get("type") == "security_exception":
                raise StoreAccessDenied(f"Elasticsearch does not let Metronome read events: {format_reason(error)}")
            raise StoreUnavailable(f"Elasticsearch cannot look up events now: {format_reason(error)}")
    return stored


def build_replace_body(stored: list[StoredDocument], prefix: str) -> bytes:
    """Return the ``_bulk`` body that overwrites stored documents."""
    action = b'{"index":{"_index":"%b-%%b.%%b.%%b","_id":%%b,"if_seq_no":%%d,"if_primary_term":%%d}}' % prefix.encode()
    return b"".join(
        b"%b\n%b\n" % (action % (*item.head, item.seq_no, item.primary_term), item.document) for item in stored
    )


def read_replace_result(stored: list[StoredDocument], response: dict[str, Any]) -> tuple[int, DocumentBatch]:
    """Return how many documents were replaced, and those to look up again because they changed meanwhile.

    Documents that Elasticsearch rejects, or whose index was just deleted, are not replaced.

    Raises:
        StoreAccessDenied: replacing is not allowed.
        StoreUnavailable: a document cannot be replaced now.

    """
    replaced, changed = 0, []
    for item, (status, error) in zip(stored, _iterate_items(response, "replace"), strict=True):
        if status in SUCCESS_STATUSES:
            replaced += 1
        elif status == CONFLICT_STATUS:
            changed.append(item.document)
        elif status not in (BAD_REQUEST_STATUS, NOT_FOUND_STATUS):
            raise StoreUnavailable(f"Elasticsearch cannot replace events now: {status} {format_reason(error)}")
    return replaced, DocumentBatch.from_documents(changed)


def _iterate_items(response: dict[str, Any], operation: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for item in response["items"]:
        (result,) = item.values()
        status, error = result["status"], result.get("error", {})
        if status in FORBIDDEN_STATUSES:
            raise StoreAccessDenied(f"Elasticsearch does not let Metronome {operation} events: {format_reason(error)}")
        yield status, error
