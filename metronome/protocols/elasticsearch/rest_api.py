"""The part of Elasticsearch's REST API that Metronome answers under ``/es``: paths, methods and handshake replies.

Clients and shippers check before they send: is this Elasticsearch, which version, and do the templates, pipelines,
policies, aliases and data streams they need exist? Metronome needs none of these, so each exists already, and creating
one is acknowledged without effect. Searches and changes of documents are rejected rather than answered as empty.

Source: Elasticsearch's documentation of its REST API, and the requests of real clients and shippers.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from metronome.errors import MethodNotAllowed, NotFound
from metronome.fields import decode_percent
from metronome.protocol import Request

EMULATED_VERSION: Final = "8.19.0"

PathParameters = Mapping[str, str]
"""The decoded values of the variable parts of a path, by name."""
HandshakeResult = str | Mapping[str, Any] | list[Mapping[str, Any]]
HandshakeBody = HandshakeResult | Callable[[Request, PathParameters], HandshakeResult]
"""The body of a handshake's reply, or the function that builds it: text if it is a string, else JSON."""

_CLUSTER_NAME: Final = "metronome"
_CLUSTER_UUID: Final = "bWV0cm9ub21lLWlzLW9uZQ"
_BUILD_DATE: Final = "2025-07-23T22:05:09.000Z"
_NEVER_EXPIRES_MILLISECONDS: Final = 253402300799999
_LICENSE: Final = {"status": "active", "uid": "6d657472-6f6e-4f6d-8500-000000000001", "type": "basic"}


class WriteEndpoint(NamedTuple):
    """A path that accepts documents.

    Attributes:
        operation: what to do with the single document in the body; empty for ``_bulk``, where each has an action.

    """

    operation: str = ""


BULK_ENDPOINT: Final = WriteEndpoint()

_CLUSTER_INFO: Final = {
    "name": "metronome",
    "cluster_name": _CLUSTER_NAME,
    "cluster_uuid": _CLUSTER_UUID,
    "version": {
        "number": EMULATED_VERSION,
        "build_flavor": "default",
        "build_type": "tar",
        "build_hash": "metronome",
        "build_date": _BUILD_DATE,
        "build_snapshot": False,
        "lucene_version": "9.12.2",
        "minimum_wire_compatibility_version": "7.17.0",
        "minimum_index_compatibility_version": "7.0.0",
    },
    "tagline": "You Know, for Search",
}

_LICENSE_INFO: Final = {
    "license": {
        **_LICENSE,
        "issue_date": "2025-01-01T00:00:00.000Z",
        "issue_date_in_millis": 1735689600000,
        "max_nodes": 1000,
        "issued_to": _CLUSTER_NAME,
        "issuer": "metronome",
        "start_date_in_millis": -1,
    }
}

_XPACK_FEATURES: Final = (
    *("aggregate_metric", "analytics", "archive", "ccr", "data_streams", "data_tiers", "enrich", "enterprise_search"),
    *("eql", "esql", "frozen_indices", "graph", "ilm", "logsdb", "logstash", "ml", "monitoring", "rollup"),
    *("runtime_fields", "searchable_snapshots", "security", "slm", "spatial", "sql", "transform"),
    *("universal_profiling", "voting_only", "watcher"),
)
"""Clients reject a list that lacks one of them."""

_XPACK_INFO: Final = {
    "build": {"hash": "metronome", "date": _BUILD_DATE},
    "license": {**_LICENSE, "mode": "basic", "expiry_date_in_millis": _NEVER_EXPIRES_MILLISECONDS},
    "features": {name: {"available": False, "enabled": False} for name in _XPACK_FEATURES},
    "tagline": "You know, for X",
}

_CLUSTER_HEALTH: Final = {
    "cluster_name": _CLUSTER_NAME,
    "status": "green",
    "timed_out": False,
    "number_of_nodes": 1,
    "number_of_data_nodes": 1,
    "active_primary_shards": 1,
    "active_shards": 1,
    "relocating_shards": 0,
    "initializing_shards": 0,
    "unassigned_shards": 0,
    "unassigned_primary_shards": 0,
    "delayed_unassigned_shards": 0,
    "number_of_pending_tasks": 0,
    "number_of_in_flight_fetch": 0,
    "task_max_waiting_in_queue_millis": 0,
    "active_shards_percent_as_number": 100.0,
}
"""That events are accepted; ``/health/ready`` has the state of Metronome itself."""

_CAT_HEALTH_COLUMNS: Final = {
    "epoch": "0",
    "timestamp": "00:00:00",
    "cluster": _CLUSTER_NAME,
    "status": "green",
    "node.total": "1",
    "node.data": "1",
    "shards": "1",
    "pri": "1",
    "relo": "0",
    "init": "0",
    "unassign": "0",
    "pending_tasks": "0",
    "max_task_wait_time": "-",
    "active_shards_percent": "100.0%",
}

_CLUSTER_SETTINGS: Final[Mapping[str, Any]] = {"persistent": {}, "transient": {}}
_SHARDS: Final = {"_shards": {"total": 1, "successful": 1, "failed": 0}}
_ACKNOWLEDGED: Final = {"acknowledged": True}
_ILM_STATUS: Final = {"operation_mode": "RUNNING"}


def _cat_health(request: Request, _: PathParameters) -> HandshakeResult:
    """Return the cluster's health: as a line of text, for rsyslog, or as JSON if the client asks for it."""
    if "json" in request.headers.get("Accept", "") or "format=json" in request.query:
        return [_CAT_HEALTH_COLUMNS]
    return " ".join(_CAT_HEALTH_COLUMNS.values()) + "\n"


def _nodes_info(request: Request, _: PathParameters) -> Mapping[str, Any]:
    """Name one node at the address that the client connected to, so that a client that looks for nodes stays there."""
    address = _own_address(request)
    node = {
        **_node_identity(address),
        "version": EMULATED_VERSION,
        "build_flavor": "default",
        "build_type": "tar",
        "build_hash": "metronome",
        "component_versions": {},
        "index_version": 8536000,
        "transport_version": 8841061,
        "http": {"bound_address": [address], "publish_address": address, "max_content_length_in_bytes": 16 * 2**20},
    }
    return _nodes_result(node)


def _nodes_stats(request: Request, _: PathParameters) -> Mapping[str, Any]:
    """Return no statistics of the one node: those of Metronome are at ``/metrics``."""
    return _nodes_result(_node_identity(_own_address(request)))


def _own_address(request: Request) -> str:
    address = request.headers.get("Host", "")
    _, colon, port = address.rpartition(":")
    return address if colon and port.isdigit() else f"{address}:80"


def _node_identity(address: str) -> dict[str, Any]:
    host = address.rpartition(":")[0]
    return {
        "name": "metronome",
        "host": host,
        "ip": host,
        "transport_address": address,
        "attributes": {},
        "roles": ["data", "ingest", "master"],
    }


def _nodes_result(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        "_nodes": {"total": 1, "successful": 1, "failed": 0},
        "cluster_name": _CLUSTER_NAME,
        "nodes": {_CLUSTER_UUID: node},
    }


def _index_created(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    return {"acknowledged": True, "shards_acknowledged": True, "index": parameters["index"]}


def _index_info(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    return {parameters["index"]: {"aliases": {}, "mappings": {}, "settings": {"index": {"number_of_shards": "1"}}}}


def _index_mapping(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    return {parameters["index"]: {"mappings": {}}}


def _index_alias(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    name = parameters["name"]
    return {parameters.get("index") or name: {"aliases": {name: {"is_write_index": True}}}}


def _index_template(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    name = parameters["name"]
    template = {"index_patterns": [name], "template": {}, "composed_of": [], "priority": 0}
    return {"index_templates": [{"name": name, "index_template": template}]}


def _legacy_template(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    name = parameters["name"]
    return {name: {"order": 0, "index_patterns": [name], "settings": {}, "mappings": {}, "aliases": {}}}


def _component_template(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    return {"component_templates": [{"name": parameters["name"], "component_template": {"template": {}}}]}


def _ingest_pipeline(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    return {parameters["name"]: {"description": "nothing to do", "processors": []}}


def _ilm_policy(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    policy = {"version": 1, "modified_date": "2025-01-01T00:00:00.000Z", "policy": {"phases": {}}}
    return {parameters["name"]: policy}


def _data_stream(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    name = parameters["name"]
    stream = {
        "name": name,
        "timestamp_field": {"name": "@timestamp"},
        "indices": [],
        "generation": 1,
        "next_generation_managed_by": "Unmanaged",
        "status": "GREEN",
        "hidden": False,
        "system": False,
        "allow_custom_routing": False,
        "replicated": False,
        "prefer_ilm": False,
        "rollover_on_write": False,
        "template": name,
    }
    return {"data_streams": [stream]}


def _data_stream_lifecycle(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    return {"data_streams": [{"name": parameters["name"], "lifecycle": {"enabled": True}}]}


def _index_settings(_: Request, parameters: PathParameters) -> Mapping[str, Any]:
    return {parameters["index"]: {"settings": {"index": {"number_of_shards": "1", "number_of_replicas": "0"}}}}


_ROUTES: Final[tuple[tuple[str, str, WriteEndpoint | HandshakeBody | None], ...]] = (
    ("POST PUT", "/_bulk", BULK_ENDPOINT),
    ("POST PUT", "/{index}/_bulk", BULK_ENDPOINT),
    ("POST PUT", "/{index}/{type}/_bulk", BULK_ENDPOINT),
    ("POST", "/{index}/_doc", WriteEndpoint("index")),
    ("POST PUT", "/{index}/_doc/{id}", WriteEndpoint("index")),
    ("POST PUT", "/{index}/_create/{id}", WriteEndpoint("create")),
    ("POST", "/{index}/_update/{id}", WriteEndpoint("update")),
    ("GET HEAD", "/", _CLUSTER_INFO),
    ("GET HEAD", "/_license", _LICENSE_INFO),
    ("GET HEAD", "/_xpack", _XPACK_INFO),
    ("GET HEAD", "/_cluster/health", _CLUSTER_HEALTH),
    ("GET HEAD", "/_cluster/health/{name}", _CLUSTER_HEALTH),
    ("GET HEAD", "/_cluster/settings", _CLUSTER_SETTINGS),
    ("GET HEAD", "/_cat/health", _cat_health),
    ("GET HEAD", "/_nodes", _nodes_info),
    ("GET HEAD", "/_nodes/stats", _nodes_stats),
    ("GET HEAD", "/_nodes/stats/{part}", _nodes_stats),
    ("GET HEAD", "/_nodes/{name}/stats", _nodes_stats),
    ("GET HEAD", "/_nodes/{name}", _nodes_info),
    ("GET HEAD", "/_nodes/{name}/{part}", _nodes_info),
    ("GET HEAD", "/_index_template/{name}", _index_template),
    ("POST PUT", "/_index_template/{name}", _ACKNOWLEDGED),
    ("GET HEAD", "/_template/{name}", _legacy_template),
    ("POST PUT", "/_template/{name}", _ACKNOWLEDGED),
    ("GET HEAD", "/_component_template/{name}", _component_template),
    ("POST PUT", "/_component_template/{name}", _ACKNOWLEDGED),
    ("GET HEAD", "/_ingest/pipeline/{name}", _ingest_pipeline),
    ("PUT", "/_ingest/pipeline/{name}", _ACKNOWLEDGED),
    ("GET HEAD", "/_ilm/policy/{name}", _ilm_policy),
    ("PUT", "/_ilm/policy/{name}", _ACKNOWLEDGED),
    ("GET HEAD", "/_ilm/status", _ILM_STATUS),
    ("GET HEAD", "/_data_stream", {"data_streams": []}),
    ("GET HEAD", "/_data_stream/{name}", _data_stream),
    ("PUT", "/_data_stream/{name}", _ACKNOWLEDGED),
    ("PUT", "/_data_stream/{name}/_lifecycle", _ACKNOWLEDGED),
    ("GET HEAD", "/_data_stream/{name}/_lifecycle", _data_stream_lifecycle),
    ("GET HEAD", "/_alias/{name}", _index_alias),
    ("POST", "/_aliases", _ACKNOWLEDGED),
    ("GET HEAD", "/{index}/_alias/{name}", _index_alias),
    ("POST PUT", "/{index}/_alias/{name}", _ACKNOWLEDGED),
    ("GET POST", "/_refresh", _SHARDS),
    ("GET POST", "/{index}/_refresh", _SHARDS),
    ("GET POST", "/_flush", _SHARDS),
    ("GET POST", "/{index}/_flush", _SHARDS),
    ("GET HEAD", "/{index}/_mapping", _index_mapping),
    ("POST PUT", "/{index}/_mapping", _ACKNOWLEDGED),
    ("GET HEAD", "/{index}/_settings", _index_settings),
    ("PUT", "/{index}/_settings", _ACKNOWLEDGED),
    # Queries and changes are rejected: an empty result would look like an answer.
    ("", "/{unsupported}", None),
    ("", "/{index}/{unsupported}", None),
    ("", "/{index}/{unsupported}/{id}", None),
    ("GET HEAD", "/{index}", _index_info),
    ("PUT", "/{index}", _index_created),
)
"""Methods, path and what is there; the first row that matches both counts."""

_PATH_PATTERNS: Final = {
    "index": r"(?P<index>[^/_][^/]*)",
    "type": r"(?P<type>_doc|[^/_][^/]*)",
    "id": r"(?P<id>[^/]+)",
    "name": r"(?P<name>[^/]+)",
    "part": r"(?P<part>[^/]+)",
    "unsupported": r"(?P<unsupported>_(?:search|async_search|msearch|count|mget|source|update_by_query"
    r"|delete_by_query|reindex|query|sql|eql|pit|field_caps|explain|validate|rank_eval|knn_search))",
}


class RouteMatch(NamedTuple):
    """What a request's path and method select.

    Attributes:
        target: a place for documents, or the body of a handshake's reply.
        path_parameters: the decoded values of the variable parts of the path.

    """

    target: WriteEndpoint | HandshakeBody
    path_parameters: PathParameters


def _compile_path(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w+)\\\}", lambda match: _PATH_PATTERNS[match[1]], re.escape(path)))


_COMPILED_ROUTES: Final = tuple(
    (frozenset(methods.split()), _compile_path(path), target) for methods, path, target in _ROUTES
)


@lru_cache(maxsize=256)
def match_route(method: str, path: str) -> RouteMatch:
    """Return what is at a path.

    Args:
        method: of HTTP, in capitals.
        path: what follows the protocol's prefix, percent-encoded.

    Raises:
        MethodNotAllowed: the path takes other methods, or is one of Elasticsearch's that Metronome does not support.
        NotFound: there is nothing at the path.

    """
    allowed: set[str] = set()
    for methods, pattern, target in _COMPILED_ROUTES:
        match = pattern.fullmatch(path.rstrip("/") or "/")
        if match is None:
            continue
        if target is None:
            raise MethodNotAllowed(f"{path[:100]} is not supported: Metronome only adds events; query them at /tock")
        if method in methods:
            return RouteMatch(target, {name: decode_percent(value) for name, value in match.groupdict().items()})
        allowed |= methods
    if allowed:
        raise MethodNotAllowed(f"{path[:100]} does not accept {method[:20]}: use {', '.join(sorted(allowed))}")
    raise NotFound(f"{path[:100]} is not supported: send documents to _bulk, _doc or _create")


def allowed_methods(path: str) -> str:
    """List the methods that a path takes, for the header ``Allow``."""
    normalized = path.rstrip("/") or "/"
    return ", ".join(
        sorted({name for methods, pattern, _ in _COMPILED_ROUTES if pattern.fullmatch(normalized) for name in methods})
    )
