"""``_bulk`` requests: their bodies, and what their responses say of each document.

Writing does not parse documents: one search over the whole batch finds their heads, and each head becomes the action
line in front of its document.

Replacing first looks documents up, and overwrites one only if it did not change since. So deleted documents are not
restored, and of two concurrent replacements of the same document, the second looks it up again.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from metronome.errors import StoreAccessDenied, StoreUnavailable
from metronome.event import DOCUMENT_HEAD_PATTERN
from metronome.stores.base import DocumentBatch, RejectedDocument, StoreBusy, WriteResult
from metronome.stores.elasticsearch.connection import (
    BAD_REQUEST_STATUS,
    CONFLICT_STATUS,
    FORBIDDEN_STATUSES,
    NOT_FOUND_STATUS,
    SUCCESS_STATUSES,
    IndexBlocked,
    IndexClosed,
    IndexMissing,
    IndexUnavailable,
    ShardLimitReached,
    UnexpectedResponse,
    format_reason,
    product_name,
    read_key,
)

DocumentHead = tuple[bytes, bytes, bytes, bytes]
"""Year, month, day and ID of a document, as `DOCUMENT_HEAD_PATTERN` finds them."""

MISSING_HEAD: Final = "the document does not begin with @timestamp and event_id"
INDICES_PER_REQUEST: Final = 20
"""How many indices one request names: Elasticsearch accepts a request line of 4,096 bytes."""
LOOKUP_FILTER_PATH: Final = "docs.found,docs._seq_no,docs._primary_term,docs._source,docs.error"

_HEAD_PATTERN: Final = re.compile(DOCUMENT_HEAD_PATTERN)
_TIMESTAMP_PATTERN: Final = re.compile(rb'^\{"@timestamp":"([^"]+)"')
_BLOCK_TYPE: Final = "cluster_block_exception"
_INDEX_ERRORS: Final[dict[str, type[IndexUnavailable]]] = {
    "index_closed_exception": IndexClosed,
    "index_not_found_exception": IndexMissing,
    "unavailable_shards_exception": IndexUnavailable,
    # Elasticsearch only validates that there is room for the shards of a new index.
    "validation_exception": ShardLimitReached,
    _BLOCK_TYPE: IndexBlocked,
}
"""Errors of a document that are its index's, by their type, whatever their status."""
_NO_MASTER_STATUS: Final = 503
"""Of a block that concerns the whole cluster."""
_MISSING_INDEX_TYPES: Final = frozenset({"index_not_found_exception", "index_closed_exception"})


def read_heads(body: bytes) -> list[DocumentHead]:
    """Return the heads of all documents that have one, in their order."""
    return _HEAD_PATTERN.findall(body)


class IndexNames:
    """The names of the indices of documents: one for each UTC month.

    Before, each UTC day had its own. Those that exist are kept for the documents of their days, so that these are still
    compared with the documents in them.

    Args:
        prefix: the beginning of the names.
        existing: the names of existing indices.

    """

    def __init__(self, prefix: str, existing: Iterable[str] = ()) -> None:
        self._prefix = prefix
        pattern = re.compile(re.escape(prefix) + r"-(\d{4})\.(\d\d)\.(\d\d)")
        matches = (match for name in existing if (match := pattern.fullmatch(name)))
        self._daily = {tuple(part.encode() for part in match.groups()): match[0] for match in matches}

    def name(self, head: tuple[bytes, ...]) -> str:
        """Return the name of the index of a document with that head, or of that year, month and day."""
        return self._daily.get(head[:3]) or f"{self._prefix}-{head[0].decode()}.{head[1].decode()}"

    def names(self, heads: Iterable[DocumentHead]) -> set[str]:
        """Return the names of the indices of documents with these heads."""
        return {self.name(day) for day in {head[:3] for head in heads}}


def build_create_body(body: bytes, names: IndexNames, heads: list[DocumentHead] | None = None) -> bytes:
    """Return the ``_bulk`` body that creates each document in its index under its ``event_id``.

    Args:
        body: the documents of a batch, each with its head (see `split_headless_documents`).
        names: the names of the indices.
        heads: those of *body*, if they have been read already.

    """
    heads = read_heads(body) if heads is None else heads
    starts = {
        day: b'{"create":{"_index":"%b","_id":' % names.name(day).encode() for day in {head[:3] for head in heads}
    }
    lines = [b""] * (2 * len(heads) + 1)
    lines[0:-1:2] = [starts[head[:3]] + head[3] + b"}}" for head in heads]
    lines[1::2] = body.split(b"\n")[:-1]
    return b"\n".join(lines)


def split_headless_documents(batch: DocumentBatch) -> tuple[DocumentBatch, tuple[RejectedDocument, ...]]:
    """Return the documents of a batch that have a head, and reject the others: they have no index and no ID."""
    complete, rejected = [], []
    for document in batch.documents():
        if _HEAD_PATTERN.match(document):
            complete.append(document)
        else:
            rejected.append(RejectedDocument(document, MISSING_HEAD))
    return DocumentBatch.from_documents(complete), tuple(rejected)


def split_by_index(
    batch: DocumentBatch, heads: list[DocumentHead], names: IndexNames, selected_names: Collection[str]
) -> tuple[DocumentBatch, DocumentBatch]:
    """Return the documents of a batch that are not in the indices with these names, and those that are."""
    others: list[bytes] = []
    selected: list[bytes] = []
    for document, head in zip(batch.documents(), heads, strict=True):
        (selected if names.name(head) in selected_names else others).append(document)
    return DocumentBatch.from_documents(others), DocumentBatch.from_documents(selected)


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
        UnexpectedResponse: the response does not have the outcome of each document.

    """
    if not read_key(response, "errors", bool):
        return WriteResult(stored=batch.count)
    stored = duplicates = 0
    rejected: list[RejectedDocument] = []
    retry: list[bytes] = []
    waiting: list[bytes] = []
    index_failure: StoreUnavailable | None = None
    busy_failure: StoreUnavailable | None = None
    for document, (status, error) in zip(
        batch.documents(), _iterate_items(response, "write", batch.count), strict=True
    ):
        if status in SUCCESS_STATUSES:
            stored += 1
        elif status == CONFLICT_STATUS:
            duplicates += 1
        elif (index_error := _find_index_error(status, error)) is not None:
            waiting.append(document)
            index_failure = index_failure or index_error
        elif status == BAD_REQUEST_STATUS:
            rejected.append(RejectedDocument(document, format_reason(error)))
        else:
            retry.append(document)
            reason = f"{product_name()} cannot store an event now: {status} {format_reason(error)}"
            busy_failure = busy_failure or StoreBusy(reason)
    return WriteResult(
        stored,
        duplicates,
        tuple(rejected),
        DocumentBatch.from_documents(retry) if retry else None,
        DocumentBatch.from_documents(waiting) if waiting else None,
        index_failure or busy_failure,
    )


def _find_index_error(status: int, error: dict[str, Any]) -> IndexUnavailable | None:
    """Return the error of a document's index; None if the error is the document's, or the whole cluster's."""
    kind = error.get("type", "")
    if kind == _BLOCK_TYPE and status == _NO_MASTER_STATUS:
        return None
    error_class = _INDEX_ERRORS.get(kind) or (IndexMissing if status == NOT_FOUND_STATUS else None)
    if error_class is None:
        return None
    return error_class(f"{product_name()} cannot write to the index of an event: {format_reason(error)}")


def indices_before(names: Iterable[str], prefix: str, before: datetime) -> list[str]:
    """Return the names of the indices whose whole month or day is before a time, oldest first."""
    pattern = re.compile(re.escape(prefix) + r"-(\d{4}\.\d\d(?:\.\d\d)?)")
    first_kept_day = before.astimezone(UTC).strftime("%Y.%m.%d")
    return sorted(
        name
        for name in names
        # A month's label is a part of the day's: it is smaller, unless the day is in that month.
        if (match := pattern.fullmatch(name)) and match[1] < first_kept_day[: len(match[1])]
    )


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
    for status, error in _iterate_items(response, "delete", None):
        if status in SUCCESS_STATUSES:
            deleted += 1
        elif status != NOT_FOUND_STATUS:
            raise StoreUnavailable(f"{product_name()} cannot delete events now: {status} {format_reason(error)}")
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


def build_lookup(batch: DocumentBatch, names: IndexNames) -> list[dict[str, str]]:
    """Return the ``_mget`` items for the documents of a batch."""
    return [{"_index": names.name(head), "_id": orjson.loads(head[3])} for head in read_heads(batch.body)]


def read_stored_documents(batch: DocumentBatch, response: dict[str, Any]) -> list[StoredDocument]:
    """Return those documents of a batch that are in the store with the same time.

    Raises:
        StoreAccessDenied: reading is not allowed.
        StoreUnavailable: a document cannot be looked up now.

    """
    stored = []
    items = read_key(response, "docs", list)
    if len(items) != batch.count:
        raise UnexpectedResponse(f"{product_name()} returned {len(items)} results for {batch.count} events")
    for document, head, item in zip(batch.documents(), read_heads(batch.body), items, strict=True):
        if not ("found" in item or "error" in item):
            raise UnexpectedResponse(f"{product_name()} returned an invalid result of an event: {item}")
        if item.get("found"):
            timestamp = item.get("_source", {}).get("@timestamp", "")
            if _TIMESTAMP_PATTERN.findall(document) == [timestamp.encode()]:
                stored.append(StoredDocument(head, document, item["_seq_no"], item["_primary_term"]))
        elif (error := item.get("error")) and error.get("type") not in _MISSING_INDEX_TYPES:
            if error.get("type") == "security_exception":
                raise StoreAccessDenied(f"{product_name()} does not let Metronome read events: {format_reason(error)}")
            raise StoreUnavailable(f"{product_name()} cannot look up events now: {format_reason(error)}")
    return stored


def build_replace_body(stored: list[StoredDocument], names: IndexNames) -> bytes:
    """Return the ``_bulk`` body that overwrites stored documents."""
    action = b'{"index":{"_index":"%b","_id":%b,"if_seq_no":%d,"if_primary_term":%d}}'
    return b"".join(
        action % (names.name(item.head).encode(), item.head[3], item.seq_no, item.primary_term)
        + b"\n%b\n" % item.document
        for item in stored
    )


def read_replace_result(stored: list[StoredDocument], response: dict[str, Any]) -> tuple[int, DocumentBatch]:
    """Return how many documents were replaced, and those to look up again because they changed meanwhile.

    Documents that Elasticsearch rejects, or whose index was just deleted, are not replaced.

    Raises:
        StoreAccessDenied: replacing is not allowed.
        StoreUnavailable: a document cannot be replaced now.

    """
    replaced, changed = 0, []
    for item, (status, error) in zip(stored, _iterate_items(response, "replace", len(stored)), strict=True):
        if status in SUCCESS_STATUSES:
            replaced += 1
        elif status == CONFLICT_STATUS:
            changed.append(item.document)
        elif status not in (BAD_REQUEST_STATUS, NOT_FOUND_STATUS):
            raise StoreUnavailable(f"{product_name()} cannot replace events now: {status} {format_reason(error)}")
    return replaced, DocumentBatch.from_documents(changed)


def _iterate_items(
    response: dict[str, Any], operation: str, expected_count: int | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    items = read_key(response, "items", list)
    if expected_count not in (None, len(items)):
        raise UnexpectedResponse(f"{product_name()} returned {len(items)} results for {expected_count} events")
    for item in items:
        try:
            (result,) = item.values()
            status, error = result["status"], result.get("error", {})
        except (AttributeError, KeyError, ValueError):
            raise UnexpectedResponse(f"{product_name()} returned an invalid result of an event: {item}") from None
        if status in FORBIDDEN_STATUSES and error.get("type") != _BLOCK_TYPE:
            raise StoreAccessDenied(
                f"{product_name()} does not let Metronome {operation} events: {format_reason(error)}"
            )
        yield status, error
