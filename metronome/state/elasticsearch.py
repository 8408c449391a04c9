"""State in an Elasticsearch index of its own, for any number of machines.

Each record is a document whose ``_id`` is a hash of its kind and name, so that names may have any length. The record
itself is stored as text, so that no mapping can reject or change it.
"""

from collections.abc import Awaitable
from functools import partial
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from elastic_transport import ApiResponse

from metronome.errors import StoreUnavailable
from metronome.state.base import Record, State, decode_name, decode_record, encode_name, encode_record
from metronome.stores.elasticsearch.connection import (
    ElasticsearchConfig,
    RequestRejected,
    RequestTooLarge,
    build_error,
    create_client,
    format_reason,
    product_name,
    read_key,
    retry_missing_shards,
    translate_errors,
)

REQUEST_SECONDS: Final = 5.0
"""Short, because clients wait for it and records are small."""
CREATE_SECONDS: Final = 30.0
PAGE_RECORDS: Final = 1_000

_BAD_REQUEST = 400
_NOT_FOUND = 404
_CONFLICT = 409
_INDEX_NOT_FOUND = "index_not_found_exception"
_INDEX_EXISTS = "resource_already_exists_exception"
_UNINDEXED_KEYWORD: Final[dict[str, Any]] = {"type": "keyword", "index": False, "doc_values": False}
_INDEX_DEFINITION: Final[dict[str, Any]] = {
    "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
    "mappings": {
        "dynamic": False,
        "properties": {
            "hash": {"type": "keyword"},
            "kind": {"type": "keyword"},
            "name": _UNINDEXED_KEYWORD,
            "record": _UNINDEXED_KEYWORD,
        },
    },
}


def state_index_name(prefix: str) -> str:
    """Return the name of the state's index for an index prefix of events, whose pattern does not match it."""
    return f"state-{prefix}"


class ElasticsearchState(State):
    """State in Elasticsearch. The index is created before the first record is added.

    Args:
        config: the connection, and the index prefix of events.

    """

    def __init__(self, config: ElasticsearchConfig) -> None:
        self._connection = create_client(config)
        self._client = self._connection.options(request_timeout=REQUEST_SECONDS, ignore_status=(_NOT_FOUND, _CONFLICT))
        # A change that was made although its response was lost must not look like that of another process.
        self._writing_client = self._client.options(max_retries=0)
        self._index = state_index_name(config.prefix)
        self._is_set_up = False

    async def setup(self) -> None:
        """Create the index if it does not exist (see `State.setup`)."""
        if self._is_set_up:
            return
        # Reading first: once the index exists, the privilege to create it is not needed.
        _, found = await self._get_document("", "")
        if _is_index_missing(found):
            client = self._connection.options(request_timeout=CREATE_SECONDS, ignore_status=_BAD_REQUEST)
            status, body = await _await_response(client.indices.create(index=self._index, **_INDEX_DEFINITION))
            if status == _BAD_REQUEST and body["error"]["type"] != _INDEX_EXISTS:
                raise StoreUnavailable(
                    f"{product_name()} cannot create the index {self._index}: {format_reason(body['error'])}"
                )
        self._is_set_up = True

    async def get(self, kind: str, name: str) -> Record | None:
        """Return a record (see `State.get`)."""
        status, found = await self._get_document(kind, name)
        return None if status == _NOT_FOUND else decode_record(_read_source(found)["record"])

    async def get_all(self, kind: str) -> dict[str, Record]:
        """Return all records of a kind (see `State.get_all`)."""
        # Searches see the records as of the last refresh.
        status, refreshed = await _await_response(self._client.indices.refresh(index=self._index))
        if status == _NOT_FOUND:
            return {}
        if read_key(refreshed, "_shards", dict)["failed"]:
            raise StoreUnavailable(f"{product_name()} cannot read all of the state: a shard is missing")
        hits = page = await retry_missing_shards(partial(self._search_page, kind, None))
        while len(page) == PAGE_RECORDS:
            page = await retry_missing_shards(partial(self._search_page, kind, page[-1]["sort"]))
            hits += page
        sources = [hit["_source"] for hit in hits]
        found = {unquote_to_bytes(source["name"]): source["record"] for source in sources}
        return {decode_name(name): decode_record(record) for name, record in sorted(found.items())}

    async def add(self, kind: str, name: str, record: Record) -> bool:
        """Add a record (see `State.add`)."""
        await self.setup()
        document = _build_document(kind, name, record)
        status, _ = await _await_response(
            self._writing_client.create(index=self._index, id=document["hash"], document=document)
        )
        return status != _CONFLICT

    async def compare_and_swap(self, kind: str, name: str, expected: Record, replacement: Record) -> bool:
        """Replace a record (see `State.compare_and_swap`)."""
        status, found = await self._get_document(kind, name)
        if status == _NOT_FOUND or _read_source(found)["record"].encode() != encode_record(expected):
            return False
        document = _build_document(kind, name, replacement)
        status, _ = await _await_response(
            self._writing_client.index(
                index=self._index,
                id=document["hash"],
                document=document,
                if_seq_no=found["_seq_no"],
                if_primary_term=found["_primary_term"],
            )
        )
        return status != _CONFLICT

    async def remove(self, kind: str, name: str) -> bool:
        """Remove a record (see `State.remove`)."""
        status, _ = await _await_response(self._writing_client.delete(index=self._index, id=_document_id(kind, name)))
        return status != _NOT_FOUND

    async def close(self) -> None:
        """Close the connections (see `State.close`)."""
        await self._connection.close()

    async def _get_document(self, kind: str, name: str) -> tuple[int, dict[str, Any]]:
        return await retry_missing_shards(
            lambda: _await_response(self._client.get(index=self._index, id=_document_id(kind, name)))
        )

    async def _search_page(self, kind: str, after: list[str] | None) -> list[dict[str, Any]]:
        """Return the next records of a kind, sorted by their hashes so that none is missed while others are written."""
        status, found = await _await_response(
            self._client.search(
                index=self._index,
                query={"term": {"kind": kind}},
                sort=[{"hash": "asc"}],
                search_after=after,
                size=PAGE_RECORDS,
                allow_partial_search_results=False,
                track_total_hits=False,
            )
        )
        if status == _NOT_FOUND:
            return []
        hits: list[dict[str, Any]] = read_key(read_key(found, "hits", dict), "hits", list)
        return hits


def _read_source(found: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = read_key(found, "_source", dict)
    return source


def _build_document(kind: str, name: str, record: Record) -> dict[str, str]:
    quoted = quote(encode_name(name), safe=" /:@")
    return {"hash": _document_id(kind, name), "kind": kind, "name": quoted, "record": encode_record(record).decode()}


def _document_id(kind: str, name: str) -> str:
    return sha256(kind.encode() + b"\0" + encode_name(name)).hexdigest()


async def _await_response(request: Awaitable[ApiResponse[Any]]) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of a response.

    Raises:
        StoreUnavailable: it is not Elasticsearch's. The 404 of another server must not look like an empty state.
        StoreAccessDenied: the credentials lack a privilege.

    """
    try:
        with translate_errors():
            response = await request
    except (RequestRejected, RequestTooLarge) as error:
        raise StoreUnavailable(f"{product_name()} rejects a request for the state: {error}") from error
    status, body = response.meta.status, response.body
    if status == _NOT_FOUND and not _is_elasticsearch_404(body):
        raise build_error(status, body)
    return status, body


def _is_elasticsearch_404(body: Any) -> bool:
    return isinstance(body, dict) and (
        body.get("found") is False or body.get("result") == "not_found" or _is_index_missing(body)
    )


def _is_index_missing(body: dict[str, Any]) -> bool:
    error = body.get("error")
    return isinstance(error, dict) and error.get("type") == _INDEX_NOT_FOUND
