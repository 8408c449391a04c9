"""State in an Elasticsearch index of its own, for any number of machines.

Each record is a document whose ``_id`` is a hash of its kind and name, so that names may be of any length. The record
itself is kept as text: no mapping can refuse it or change it.
"""

from collections.abc import Awaitable
from functools import partial
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from elastic_transport import ApiResponse

from metronome.errors import StoreAway
from metronome.state.base import Record, State, name_bytes, name_of, record_of, text_of
from metronome.stores.elasticsearch.connection import (
    BodyTooLarge,
    ElasticsearchConfig,
    NotUnderstood,
    connect,
    error_of,
    once_there,
    reason_of,
    refusals,
)

REQUEST_SECONDS: Final = 5.0
"""Whoever asks waits for it, and records are small."""
CREATE_SECONDS: Final = 30.0
PAGE_RECORDS: Final = 1_000

_BAD_REQUEST = 400
_NOT_FOUND = 404
_CONFLICT = 409
_NO_INDEX = "index_not_found_exception"
_THERE_ALREADY = "resource_already_exists_exception"
_KEPT_ONLY: Final[dict[str, Any]] = {"type": "keyword", "index": False, "doc_values": False}
_INDEX: Final[dict[str, Any]] = {
    "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
    "mappings": {
        "dynamic": False,
        "properties": {
            "hash": {"type": "keyword"},
            "kind": {"type": "keyword"},
            "name": _KEPT_ONLY,
            "record": _KEPT_ONLY,
        },
    },
}


def state_index(prefix: str) -> str:
    """Return the name of the index that goes with the events' prefix, whose pattern does not match it."""
    return f"state-{prefix}"


class ElasticsearchState(State):
    """State in Elasticsearch; the index is made before the first record is added.

    Args:
        config: where it is, and how the events' indices begin.

    """

    def __init__(self, config: ElasticsearchConfig) -> None:
        self._connection = connect(config)
        self._client = self._connection.options(request_timeout=REQUEST_SECONDS, ignore_status=(_NOT_FOUND, _CONFLICT))
        self._index = state_index(config.prefix)
        self._is_set_up = False

    async def setup(self) -> None:
        """Make the index where there is none (see `State.setup`)."""
        if self._is_set_up:
            return
        # Whether it is there can be seen with the right to read; once it is, no right to make it is needed.
        _, found = await self._read("", "")
        if _has_no_index(found):
            client = self._connection.options(request_timeout=CREATE_SECONDS, ignore_status=_BAD_REQUEST)
            status, body = await _answered(client.indices.create(index=self._index, **_INDEX))
            if status == _BAD_REQUEST and body["error"]["type"] != _THERE_ALREADY:
                raise StoreAway(f"Elasticsearch does not make the index {self._index}: {reason_of(body['error'])}")
        self._is_set_up = True

    async def get(self, kind: str, name: str) -> Record | None:
        """Return a record (see `State.get`)."""
        status, found = await self._read(kind, name)
        return None if status == _NOT_FOUND else record_of(found["_source"]["record"])

    async def all(self, kind: str) -> dict[str, Record]:
        """Return all records of a kind (see `State.all`)."""
        # Searches see what was there at the last refresh.
        status, refreshed = await _answered(self._client.indices.refresh(index=self._index))
        if status == _NOT_FOUND:
            return {}
        if refreshed["_shards"]["failed"]:
            raise StoreAway("Elasticsearch cannot read all of its state now: a shard is missing")
        hits = page = await once_there(partial(self._page, kind, None))
        while len(page) == PAGE_RECORDS:
            page = await once_there(partial(self._page, kind, page[-1]["sort"]))
            hits += page
        sources = [hit["_source"] for hit in hits]
        found = {unquote_to_bytes(source["name"]): source["record"] for source in sources}
        return {name_of(name): record_of(record) for name, record in sorted(found.items())}

    async def add(self, kind: str, name: str, record: Record) -> bool:
        """Add a record (see `State.add`)."""
        await self.setup()
        document = _document(kind, name, record)
        status, _ = await _answered(self._client.create(index=self._index, id=document["hash"], document=document))
        return status != _CONFLICT

    async def swap(self, kind: str, name: str, before: Record, after: Record) -> bool:
        """Replace a record (see `State.swap`)."""
        status, found = await self._read(kind, name)
        if status == _NOT_FOUND or found["_source"]["record"].encode() != text_of(before):
            return False
        document = _document(kind, name, after)
        status, _ = await _answered(
            self._client.index(
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
        status, _ = await _answered(self._client.delete(index=self._index, id=_hash(kind, name)))
        return status != _NOT_FOUND

    async def close(self) -> None:
        """Close the connections (see `State.close`)."""
        await self._connection.close()

    async def _read(self, kind: str, name: str) -> tuple[int, dict[str, Any]]:
        async def read_now() -> tuple[int, dict[str, Any]]:
            return await _answered(self._client.get(index=self._index, id=_hash(kind, name)))

        return await once_there(read_now)

    async def _page(self, kind: str, after: list[str] | None) -> list[dict[str, Any]]:
        """Search for the next records of a kind: by their hashes, so that none is missed while others are written."""
        status, found = await _answered(
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
        return [] if status == _NOT_FOUND else found["hits"]["hits"]


def _document(kind: str, name: str, record: Record) -> dict[str, str]:
    quoted = quote(name_bytes(name), safe=" /:@")
    return {"hash": _hash(kind, name), "kind": kind, "name": quoted, "record": text_of(record).decode()}


def _hash(kind: str, name: str) -> str:
    return sha256(kind.encode() + b"\0" + name_bytes(name)).hexdigest()


async def _answered(asked: Awaitable[ApiResponse[Any]]) -> tuple[int, dict[str, Any]]:
    """Return status and body of an answer.

    Raises:
        StoreAway: it is none of Elasticsearch's; a 404 of whoever else must not pass for a state that is empty.
        StoreDenied: the credentials lack a right.

    """
    try:
        with refusals():
            response = await asked
    except (NotUnderstood, BodyTooLarge) as error:
        raise StoreAway(f"Elasticsearch does not keep its state in this index: {error}") from error
    status, body = response.meta.status, response.body
    if status == _NOT_FOUND and not _says_what_is_missing(body):
        raise error_of(status, body)
    return status, body


def _says_what_is_missing(body: Any) -> bool:
    return isinstance(body, dict) and (
        body.get("found") is False or body.get("result") == "not_found" or _has_no_index(body)
    )


def _has_no_index(body: dict[str, Any]) -> bool:
    error = body.get("error")
    return isinstance(error, dict) and error.get("type") == _NO_INDEX
