"""Translate a panel's columns to an Elasticsearch search as Lens does, and the response to rows.

Follows Kibana's ``form_based`` data source. An unknown operation or parameter fails an assertion. Rows that Lens shows
as 'Other' are omitted.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kibana.lens import RECORDS_FIELD
from tests.kibana.kql import Query, elasticsearch_query
from tests.kibana.lens import Json, Layer

Row = dict[str, Any]

_TERMS_PARAMETERS: Final = {
    *("size", "accuracyMode", "orderBy", "orderDirection", "otherBucket", "missingBucket", "parentFormat"),
    *("include", "exclude", "includeIsRegex", "excludeIsRegex"),
}
_KEYS: Final = {
    *("label", "customLabel", "operationType", "sourceField", "params", "filter", "references"),
    *("dataType", "scale", "isBucketed"),
}
_WORKED_OUT: Final = {"formula", "math"}


def search_body(layer: Layer, filters: Sequence[Query] = ()) -> Json:
    """Return the search for a panel's layer, with the filters of its dashboard and its controls."""
    assert {key for column in layer.columns.values() for key in column} <= _KEYS
    groups = {name: column for name, column in layer.columns.items() if column["isBucketed"]}
    metrics = {name: column for name, column in layer.columns.items() if not column["isBucketed"]}
    inner: Json = {name: each for name, column in metrics.items() if (each := _metric(column))}
    for name, column in reversed(groups.items()):
        inner = {name: {**_group(column, metrics), **({"aggs": inner} if inner else {})}}
    query = {"bool": {"filter": [elasticsearch_query(layer.query), *filters]}}
    return {"size": 0, "track_total_hits": True, "query": query, "aggs": inner}


def rows_of(layer: Layer, answer: Json) -> list[Row]:
    """Return the rows that an answer to `search_body` means: columns' values by their labels."""
    whole = {**answer.get("aggregations", {}), "doc_count": answer["hits"]["total"]["value"]}
    names = [name for name, column in layer.columns.items() if column["isBucketed"]]
    return [
        {layer.columns[name]["label"]: value for name, value in row.items() if not _is_part(name, layer)}
        for row in _rows(whole, names, layer, {})
    ]


def _rows(bucket: Json, groups: list[str], layer: Layer, known: Row) -> Iterator[Row]:
    if not groups:
        yield known | _values(bucket, layer)
        return
    name, *inner = groups
    for key, each in _buckets(bucket[name]["buckets"]):
        yield from _rows(each, inner, layer, known | {name: key})


def _buckets(found: Any) -> Iterator[tuple[str, Json]]:
    if isinstance(found, Mapping):
        yield from found.items()
    else:
        for bucket in found:
            yield bucket.get("key_as_string", bucket["key"]), bucket


def _values(bucket: Json, layer: Layer) -> Row:
    return {name: _value(bucket, name, layer) for name, column in layer.columns.items() if not column["isBucketed"]}


def _value(bucket: Json, name: str, layer: Layer) -> Any:
    column = layer.columns[name]
    match column["operationType"]:
        case "formula":
            (reference,) = column["references"]
            return _value(bucket, reference, layer)
        case "math":
            tree = column["params"]["tinymathAst"]
            assert tree["name"] == "divide", f"no test knows {tree['name']}"
            assert tree["args"] == column["references"]
            part, whole = (_value(bucket, reference, layer) for reference in tree["args"])
            return part / whole if whole else None
        case "count" if column["sourceField"] == RECORDS_FIELD:
            return bucket[name]["doc_count"] if "filter" in column else bucket["doc_count"]
        case "percentile":
            (value,) = bucket[name]["values"].values()
            return value
        case "max":
            return bucket[name].get("value_as_string")
        case _:
            return bucket[name]["value"]


def _group(column: Json, metrics: Mapping[str, Json]) -> Json:
    params = column["params"]
    match column["operationType"]:
        case "date_histogram":
            assert params == {"interval": "1d", "includeEmptyRows": True, "dropPartials": False}
            field = column["sourceField"]
            return {"date_histogram": {"field": field, "calendar_interval": "1d", "format": "yyyy-MM-dd"}}
        case "filters":
            queries = {each["label"]: _query(each["input"]) for each in params["filters"]}
            return {"filters": {"filters": queries}}
        case "terms":
            assert params.keys() <= _TERMS_PARAMETERS
            assert not any(params[name] for name in ("missingBucket", "include", "exclude"))
            assert params["accuracyMode"] is True
            assert params["orderBy"]["type"] == "column"
            name = params["orderBy"]["columnId"]
            return {
                "terms": {
                    "field": column["sourceField"],
                    "size": params["size"],
                    "shard_size": max(1000, int(params["size"] * 1.5 + 10)),
                    "order": {_order(name, metrics[name]): params["orderDirection"]},
                }
            }
        case other:
            raise AssertionError(f"no test knows {other}")


def _order(name: str, column: Json) -> str:
    if column["operationType"] == "percentile":
        return f"{name}.{column['params']['percentile']}"
    is_plain_count = (
        column["operationType"] == "count" and column["sourceField"] == RECORDS_FIELD and "filter" not in column
    )
    return "_count" if is_plain_count else name


def _metric(column: Json) -> Json | None:
    operation, params, field = column["operationType"], column["params"], column.get("sourceField")
    if operation in _WORKED_OUT:
        return None
    assert params.keys() <= {"emptyAsNull", "percentile"}
    if operation == "count" and field == RECORDS_FIELD:
        return {"filter": _query(column["filter"])} if "filter" in column else None
    assert "filter" not in column, "no test knows a filtered measure"
    match operation:
        case "count":
            return {"value_count": {"field": field}}
        case "unique_count":
            return {"cardinality": {"field": field}}
        case "percentile":
            return {"percentiles": {"field": field, "percents": [params["percentile"]]}}
        case "max":
            return {"max": {"field": field}}
        case other:
            raise AssertionError(f"no test knows {other}")


def _query(asked: Json) -> Query:
    assert asked["language"] == "kuery"
    return elasticsearch_query(asked["query"])


def _is_part(name: str, layer: Layer) -> bool:
    return any(name in column.get("references", ()) for column in layer.columns.values())
