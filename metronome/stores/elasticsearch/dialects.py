"""What differs between Elasticsearch and OpenSearch: documents, searches, points in time, and the mapping.

OpenSearch's `flat_object` can be filtered, but neither grouped nor counted, and confuses ``a=b`` with ``c`` and ``a``
with ``b=c``. Its mapping cannot hold both ``event`` and ``event.original``. So a document with ``params`` is stored
with ``@params``, a list of texts such as ``lang=de``, and with ``@original`` in place of ``event.original``. Searches
and documents are translated, and the rest of the store does not know.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final
from urllib.parse import quote

import orjson
from elasticsearch import AsyncElasticsearch

from metronome.errors import QueryTooExpensive
from metronome.fields import VALUE_MAX_CHARACTERS, is_top_level_name
from metronome.stores.elasticsearch.connection import (
    Product,
    RequestRejected,
    detect_product,
    read_key,
    translate_errors,
)

PAIRS_FIELD: Final = "@params"
ORIGINAL_FIELD: Final = "@original"
MAX_DISTINCT_PAIRS: Final = 20_000
"""How many distinct values of a field in ``params`` OpenSearch counts."""
MAX_PAIR_GROUPS: Final = 65_000
"""How many groups by a field in ``params`` OpenSearch returns: a response has at most 65,535."""
PAIR_MAX_CHARACTERS: Final = 2048
"""More than a name and a value have, and fewer bytes than Lucene's longest term."""

FIELD_LIMIT_REASON: Final = "Limit of total fields"
"""The beginning of why OpenSearch rejects a document with a new field, where Elasticsearch leaves it unmapped."""

_PARAMS_KEY: Final = b',"params":{'
_ORIGINAL_KEY: Final = b',"event.original":"'
"""Quotes in texts are escaped, so that these bytes only are in a document where they are keys."""
_PARAMS_PATH: Final = "params."
_KEYWORD: Final[dict[str, Any]] = {"type": "keyword", "ignore_above": PAIR_MAX_CHARACTERS}
_FIELD_CAPS: Final = "fields.*.*.aggregatable"
_REGEX_SYNTAX: Final = re.compile(r'[.?+*|{}\[\]()"\\#@&<>~^$-]')


class ElasticsearchDialect:
    """What Elasticsearch expects: the store is written for it."""

    leaves_fields_unmapped: ClassVar[bool] = True
    """Whether a document with a new field is stored when the limit of fields is reached, rather than rejected."""
    reads_from_documents: ClassVar[bool] = True
    """Whether a search can read fields from the documents that the mapping lacks."""

    needs_every_component: ClassVar[bool] = False
    """Whether an index template is rejected if one of its component templates does not exist."""

    def adapt_template(self, template: dict[str, Any]) -> dict[str, Any]:
        """Return a component template as the product accepts it."""
        return template

    def encode_documents(self, body: bytes) -> bytes:
        """Return documents as the product stores them, in their order."""
        return body

    def decode_document(self, source: dict[str, Any]) -> bytes:
        """Return a stored document as it was written."""
        return orjson.dumps(source)

    def translate_search(self, search: dict[str, Any]) -> dict[str, Any]:
        """Return a search as the product understands it."""
        return search

    def translate_response(self, search: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
        """Return the response to a search in the form of Elasticsearch's response to the original search."""
        del search
        return response

    async def open_point_in_time(self, client: AsyncElasticsearch, pattern: str, keep_alive: str) -> str:
        """Return the ID of a new snapshot of the indices that match a pattern; empty if there are none."""
        with translate_errors():
            response = await client.open_point_in_time(
                index=pattern, keep_alive=keep_alive, ignore_unavailable=True, allow_partial_search_results=False
            )
        return read_key(response.body, "id", str)

    async def close_point_in_time(self, client: AsyncElasticsearch, pit_id: str) -> None:
        """Drop a snapshot."""
        await client.close_point_in_time(id=pit_id)

    async def list_fields(self, client: AsyncElasticsearch, pattern: str) -> frozenset[str]:
        """Return the mapped fields at the top level that a document has."""
        return await _list_mapped_fields(client, pattern, include_empty_fields=False)


class OpenSearchDialect(ElasticsearchDialect):
    """What OpenSearch expects."""

    leaves_fields_unmapped: ClassVar[bool] = False
    reads_from_documents: ClassVar[bool] = False
    needs_every_component: ClassVar[bool] = True

    def adapt_template(self, template: dict[str, Any]) -> dict[str, Any]:
        """Return a component template without what OpenSearch rejects (see `ElasticsearchDialect.adapt_template`)."""
        body = template["template"]
        index = {key: value for key, value in body["settings"]["index"].items() if not key.endswith("beyond_limit")}
        properties = dict(body["mappings"]["properties"])
        original = properties.pop("event.original")
        properties |= {
            ORIGINAL_FIELD: original,
            "params": {"type": "object", "enabled": False},
            PAIRS_FIELD: _KEYWORD,
            # To page through documents with the same time: OpenSearch has no `_shard_doc`.
            "event_id": {"type": "keyword", "index": False},
        }
        mappings = {
            **body["mappings"],
            "dynamic_templates": list(_split_dynamic_templates(body["mappings"]["dynamic_templates"])),
            "properties": properties,
        }
        del mappings["subobjects"]
        return {
            **template,
            "template": {**body, "settings": {**body["settings"], "index": index}, "mappings": mappings},
        }

    def encode_documents(self, body: bytes) -> bytes:
        """Return documents with ``@params`` and ``@original`` (see `ElasticsearchDialect.encode_documents`)."""
        if _PARAMS_KEY not in body and _ORIGINAL_KEY not in body:
            return body
        return b"\n".join(map(_encode_document, body.split(b"\n")))

    def decode_document(self, source: dict[str, Any]) -> bytes:
        """Return a stored document as it was written (see `ElasticsearchDialect.decode_document`)."""
        renamed = {
            "event.original" if name == ORIGINAL_FIELD else name: value
            for name, value in source.items()
            if name != PAIRS_FIELD
        }
        return orjson.dumps(renamed)

    def translate_search(self, search: dict[str, Any]) -> dict[str, Any]:
        """Return a search that reads ``@params`` (see `ElasticsearchDialect.translate_search`)."""
        translated: dict[str, Any] = _translate(search)
        return translated

    def translate_response(self, search: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
        """Return a response as if the search had read ``params`` (see `ElasticsearchDialect.translate_response`)."""
        if "aggregations" in response:
            _translate_results(search.get("aggs", {}), response["aggregations"])
        return response

    async def open_point_in_time(self, client: AsyncElasticsearch, pattern: str, keep_alive: str) -> str:
        """Return the ID of a new snapshot (see `ElasticsearchDialect.open_point_in_time`)."""
        params = {"keep_alive": keep_alive, "ignore_unavailable": True, "allow_partial_pit_creation": False}
        try:
            with translate_errors():
                response = await client.perform_request("POST", f"/{pattern}/_search/point_in_time", params=params)
        except RequestRejected as error:
            if "invalid id: [null]" in str(error):
                # No index matches.
                return ""
            raise
        return read_key(response.body, "pit_id", str)

    async def close_point_in_time(self, client: AsyncElasticsearch, pit_id: str) -> None:
        """Drop a snapshot (see `ElasticsearchDialect.close_point_in_time`)."""
        if pit_id:
            headers = {"content-type": "application/json", "accept": "application/json"}
            await client.perform_request("DELETE", "/_search/point_in_time", headers=headers, body={"pit_id": [pit_id]})

    async def list_fields(self, client: AsyncElasticsearch, pattern: str) -> frozenset[str]:
        """Return the mapped fields that a document has (see `ElasticsearchDialect.list_fields`)."""
        mapped = await _list_mapped_fields(client, pattern)
        if not mapped:
            return mapped
        with translate_errors():
            response = await client.search(
                index=pattern,
                size=0,
                aggs={"fields": {"filters": {"filters": {name: {"exists": {"field": name}} for name in mapped}}}},
                ignore_unavailable=True,
                allow_no_indices=True,
                allow_partial_search_results=False,
            )
        counts = response.body.get("aggregations", {"fields": {"buckets": {}}})["fields"]["buckets"]
        return frozenset(name for name, bucket in counts.items() if bucket["doc_count"])


async def detect_dialect(client: AsyncElasticsearch) -> ElasticsearchDialect:
    """Return the dialect of the product that a client is connected to.

    Raises:
        StoreUnavailable: it does not respond.

    """
    return OpenSearchDialect() if await detect_product(client) is Product.OPENSEARCH else ElasticsearchDialect()


def param_pair(name: str, value: str) -> str:
    """Return a parameter as ``@params`` holds it: no parameter of another name begins with the name and its ``=``."""
    return name.replace("\\", "\\\\").replace("=", "\\=") + "=" + value


async def stop_mapping(client: AsyncElasticsearch, indices: Iterable[str]) -> None:
    """Let indices store new fields without mapping them."""
    with translate_errors():
        await client.indices.put_mapping(index=sorted(indices), dynamic="false")


async def list_full_indices(client: AsyncElasticsearch, pattern: str) -> set[str]:
    """Return the indices that only store new fields (see `stop_mapping`)."""
    with translate_errors():
        response = await client.indices.get_mapping(
            index=pattern, ignore_unavailable=True, allow_no_indices=True, filter_path="*.mappings.dynamic"
        )
    return {name for name, index in response.body.items() if index["mappings"]["dynamic"] in (False, "false")}


async def request_field_caps(client: AsyncElasticsearch, indices: str, **params: Any) -> Any:
    """Return the response of ``_field_caps`` for existing ones of the indices.

    OpenSearch reads the fields from the URL only, and the client's own method sends them in the body.
    """
    params |= {"ignore_unavailable": True, "allow_no_indices": True}
    return await client.perform_request("GET", f"/{quote(indices, safe='*,')}/_field_caps", params=params)


def _split_dynamic_templates(templates: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield dynamic templates of one type each."""
    for template in templates:
        for name, rule in template.items():
            types = rule["match_mapping_type"]
            for matched in [types] if isinstance(types, str) else types:
                yield {f"{name}_{matched}": {**rule, "match_mapping_type": matched}}


async def _list_mapped_fields(client: AsyncElasticsearch, pattern: str, **options: bool) -> frozenset[str]:
    with translate_errors():
        response = await request_field_caps(client, pattern, fields="*", filter_path=_FIELD_CAPS, **options)
    return frozenset(
        name
        for name, types in response.body.get("fields", {}).items()
        if is_top_level_name(name)
        and name != "event_id"
        and any(capabilities["aggregatable"] for capabilities in types.values())
    )


def _encode_document(line: bytes) -> bytes:
    if _PARAMS_KEY not in line and _ORIGINAL_KEY not in line:
        return line
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line
    if "event.original" in document:
        document[ORIGINAL_FIELD] = document.pop("event.original")
    params = document.get("params")
    if isinstance(params, dict):
        document[PAIRS_FIELD] = list(_iterate_pairs(params))
    return orjson.dumps(document)


def _iterate_pairs(params: dict[str, Any]) -> Iterator[str]:
    for name, value in params.items():
        if isinstance(value, str) and len(value) <= VALUE_MAX_CHARACTERS:
            yield param_pair(name, value)


def _translate(node: Any) -> Any:
    if isinstance(node, list):
        return [_translate(member) for member in node]
    if not isinstance(node, dict):
        return node
    return dict(_translate_clause(key, value) for key, value in node.items())


def _translate_clause(key: str, value: Any) -> tuple[str, Any]:
    if key in ("terms", "prefix") and len(value) == 1:
        ((path, operand),) = value.items()
        if path.startswith(_PARAMS_PATH):
            name = path.removeprefix(_PARAMS_PATH)
            pairs = [param_pair(name, text) for text in operand] if key == "terms" else param_pair(name, operand)
            return key, {PAIRS_FIELD: pairs}
    if key in ("terms", "cardinality") and _is_of_params(value):
        # Pairs cannot be divided into partitions: a partition is never complete, so that the query ends as incomplete.
        size = 1 if "include" in value else MAX_PAIR_GROUPS if key == "terms" else MAX_DISTINCT_PAIRS
        start = param_pair(value["field"].removeprefix(_PARAMS_PATH), "")
        include = _REGEX_SYNTAX.sub(r"\\\g<0>", start) + "(.|\n)*"
        return "terms", {"field": PAIRS_FIELD, "size": size, "shard_size": size, "include": include}
    if key == "sort":
        event_id = {"order": "asc", "unmapped_type": "keyword"}
        return key, [{"event_id": event_id} if "_shard_doc" in member else member for member in value]
    return key, _translate(value)


def _is_of_params(aggregation: Any) -> bool:
    return isinstance(aggregation, dict) and str(aggregation.get("field")).startswith(_PARAMS_PATH)


def _translate_results(aggregations: dict[str, Any], results: dict[str, Any]) -> None:
    for name, aggregation in aggregations.items():
        result = results.get(name)
        if result is None:
            continue
        kind = next(key for key in aggregation if key != "aggs")
        if kind in ("terms", "cardinality") and _is_of_params(aggregation[kind]):
            field = aggregation[kind]["field"].removeprefix(_PARAMS_PATH)
            if kind == "cardinality":
                if result["sum_other_doc_count"]:
                    raise QueryTooExpensive(f"OpenSearch counts up to {MAX_DISTINCT_PAIRS} values of {field}")
                results[name] = {"value": len(result["buckets"])}
                continue
            start = len(param_pair(field, ""))
            for bucket in result["buckets"]:
                bucket["key"] = bucket["key"][start:]
        inner = aggregation.get("aggs", {})
        if inner:
            for members in result.get("buckets", (result,)):
                _translate_results(inner, members)
