"""What clients ask an Elasticsearch before they send to it, and what they are told here.

They want to know whether it is one, of which version, and whether what they prepare is there: templates, pipelines,
policies, aliases, data streams. None of these is needed here, where events fit in whatever they hold; so each is there
already, and whoever puts one is told that it is done. Nothing of that is said of documents.

Source: Elasticsearch's documentation of its REST API, and what clients and shippers ask for.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from metronome.protocol import Request

EMULATED_VERSION: Final = "8.19.0"
CLUSTER_NAME: Final = "metronome"

PathParameters = Mapping[str, str]
HandshakeResponse = Callable[[Request, PathParameters], Any]
"""Makes an answer of a request and of what varied in its address: JSON, or plain text."""

_NEVER_EXPIRES_MILLISECONDS: Final = 253402300799999
_CLUSTER_UUID: Final = "bWV0cm9ub21lLWlzLW9uZQ"
_LICENSE: Final = {"status": "active", "uid": "6d657472-6f6e-4f6d-8500-000000000001", "type": "basic"}


def cluster_info(_: Request, __: PathParameters) -> Any:
    """Say what this is; clients look at the version and the tagline."""
    return {
        "name": "metronome",
        "cluster_name": CLUSTER_NAME,
        "cluster_uuid": _CLUSTER_UUID,
        "version": {
            "number": EMULATED_VERSION,
            "build_flavor": "default",
            "build_type": "tar",
            "build_hash": "metronome",
            "build_date": "2025-07-23T22:05:09.000Z",
            "build_snapshot": False,
            "lucene_version": "9.12.2",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0",
        },
        "tagline": "You Know, for Search",
    }


def license_info(_: Request, __: PathParameters) -> Any:
    """Say that nothing has to be paid for."""
    issued = {"issue_date": "2025-01-01T00:00:00.000Z", "issue_date_in_millis": 1735689600000}
    held = {"max_nodes": 1000, "issued_to": CLUSTER_NAME, "issuer": "metronome", "start_date_in_millis": -1}
    return {"license": {**_LICENSE, **issued, **held}}


def xpack_info(_: Request, __: PathParameters) -> Any:
    """Say which paid features there are: none."""
    return {
        "build": {"hash": "metronome", "date": "2025-07-23T22:05:09.000Z"},
        "license": {**_LICENSE, "mode": "basic", "expiry_date_in_millis": _NEVER_EXPIRES_MILLISECONDS},
        "features": {name: {"available": False, "enabled": False} for name in ("ilm", "monitoring", "security")},
        "tagline": "You know, for X",
    }


def cluster_health(_: Request, __: PathParameters) -> Any:
    """Say that events are taken; how Metronome itself fares is told by ``/health/ready``."""
    counts = dict.fromkeys(
        (
            "relocating_shards",
            "initializing_shards",
            "unassigned_shards",
            "delayed_unassigned_shards",
            "number_of_pending_tasks",
            "number_of_in_flight_fetch",
            "task_max_waiting_in_queue_millis",
        ),
        0,
    )
    return {
        "cluster_name": CLUSTER_NAME,
        "status": "green",
        "timed_out": False,
        "number_of_nodes": 1,
        "number_of_data_nodes": 1,
        "active_primary_shards": 1,
        "active_shards": 1,
        **counts,
        "active_shards_percent_as_number": 100.0,
    }


def cat_health(_: Request, __: PathParameters) -> str:
    """Say the same as a line of text, as rsyslog wants to hear it."""
    return "0 00:00:00 metronome green 1 1 1 1 0 0 0 0 - 100.0%\n"


def nodes_info(request: Request, _: PathParameters) -> Any:
    """Name one node, at the address where it was asked, so that who looks for nodes stays here."""
    address = request.headers.get("Host", "")
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        host, address = address, f"{address}:80"
    node = {
        "name": "metronome",
        "host": host,
        "ip": host,
        "transport_address": address,
        "version": EMULATED_VERSION,
        "build_flavor": "default",
        "build_type": "tar",
        "build_hash": "metronome",
        "attributes": {},
        "roles": ["data", "ingest", "master"],
        "http": {"bound_address": [address], "publish_address": address, "max_content_length_in_bytes": 16 * 2**20},
    }
    return {
        "_nodes": {"total": 1, "successful": 1, "failed": 0},
        "cluster_name": CLUSTER_NAME,
        "nodes": {_CLUSTER_UUID: node},
    }


def shards_result(_: Request, __: PathParameters) -> Any:
    """Say that nothing has to be waited for."""
    return {"_shards": {"total": 1, "successful": 1, "failed": 0}}


def acknowledged(_: Request, __: PathParameters) -> Any:
    """Say that it is done."""
    return {"acknowledged": True}


def index_created(_: Request, names: PathParameters) -> Any:
    """Say that an index is there: each is, as soon as something is sent to it."""
    return {"acknowledged": True, "shards_acknowledged": True, "index": names["index"]}


def index_info(_: Request, names: PathParameters) -> Any:
    """Show an index."""
    return {names["index"]: {"aliases": {}, "mappings": {}, "settings": {"index": {"number_of_shards": "1"}}}}


def index_mapping(_: Request, names: PathParameters) -> Any:
    """Show an index's mapping, which takes all."""
    return {names["index"]: {"mappings": {}}}


def cluster_settings(_: Request, __: PathParameters) -> Any:
    """Show the settings of the cluster: all as they come."""
    return {"persistent": {}, "transient": {}}


def index_template(_: Request, names: PathParameters) -> Any:
    """Show a composable template."""
    template = {"index_patterns": [names["name"]], "template": {}, "composed_of": [], "priority": 0}
    return {"index_templates": [{"name": names["name"], "index_template": template}]}


def legacy_template(_: Request, names: PathParameters) -> Any:
    """Show a template of the older kind."""
    empty: dict[str, Any] = {"settings": {}, "mappings": {}, "aliases": {}}
    return {names["name"]: {"order": 0, "index_patterns": [names["name"]], **empty}}


def component_template(_: Request, names: PathParameters) -> Any:
    """Show a part of a template."""
    return {"component_templates": [{"name": names["name"], "component_template": {"template": {}}}]}


def ingest_pipeline(_: Request, names: PathParameters) -> Any:
    """Show a pipeline; lines of access logs are parsed without one."""
    return {names["name"]: {"description": "nothing to do", "processors": []}}


def ilm_policy(_: Request, names: PathParameters) -> Any:
    """Show a policy of how long indices live; here the operator says that."""
    return {names["name"]: {"version": 1, "modified_date": "2025-01-01T00:00:00.000Z", "policy": {"phases": {}}}}


def ilm_status(_: Request, __: PathParameters) -> Any:
    """Say that policies are looked after."""
    return {"operation_mode": "RUNNING"}


def data_stream(_: Request, names: PathParameters) -> Any:
    """Show a data stream."""
    flags = dict.fromkeys(("hidden", "system", "allow_custom_routing", "replicated", "prefer_ilm"), False)
    stream = {"timestamp_field": {"name": "@timestamp"}, "indices": [], "generation": 1, "status": "GREEN"}
    return {"data_streams": [{"name": names["name"], **stream, **flags, "template": names["name"]}]}


def index_alias(_: Request, names: PathParameters) -> Any:
    """Show an alias that is written to."""
    return {names.get("index") or names["name"]: {"aliases": {names["name"]: {"is_write_index": True}}}}
