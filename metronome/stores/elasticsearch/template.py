"""The index template: a mapping that refuses nothing and counts everything.

Each UTC day's events are one index, ``<prefix>-2015.01.22``, as Logstash names them. Known fields are
typed, other top-level ones are keywords with the value's number, where it is one, as ``<field>.num``
beside it; what is odd lies in ``params``, one ``flattened`` field.
"""

from typing import Any, Final

VERSION: Final = 1
"""To be raised with each change: a node puts its template over an older one only."""

VALUE_MAX_CHARACTERS: Final = 1024
"""Longer values are stored, but neither searched nor counted."""

_TEXT: Final[dict[str, Any]] = {"type": "keyword", "ignore_above": VALUE_MAX_CHARACTERS}
_STORED_ONLY: Final[dict[str, Any]] = {"type": "keyword", "index": False, "doc_values": False}
_NUMBER: Final[dict[str, Any]] = {**_TEXT, "fields": {"num": {"type": "double", "ignore_malformed": True}}}
_ADDRESS: Final[dict[str, Any]] = {**_TEXT, "fields": {"ip": {"type": "ip", "ignore_malformed": True}}}

_SETTINGS: Final[dict[str, Any]] = {
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    "refresh_interval": "5s",
    "codec": "best_compression",
    "sort.field": ["id", "@timestamp"],
    "sort.order": ["asc", "desc"],
    "mapping.total_fields.limit": 300,
    "mapping.total_fields.ignore_dynamic_beyond_limit": True,
    "mapping.ignore_malformed": True,
}

_MAPPINGS: Final[dict[str, Any]] = {
    "subobjects": False,
    "dynamic": True,
    "date_detection": False,
    "numeric_detection": False,
    "dynamic_templates": [
        {"numbers": {"match_mapping_type": ["long", "double"], "mapping": _NUMBER}},
        {"rest": {"match_mapping_type": "*", "mapping": _TEXT}},
    ],
    "properties": {
        "@timestamp": {"type": "date"},
        "@version": {"type": "keyword"},
        "event_id": _STORED_ONLY,
        "id": _TEXT,
        "event": _TEXT,
        "format": _TEXT,
        "referer": _TEXT,
        "session": _TEXT,
        "visitor": _TEXT,
        "bot": _TEXT,
        "message": _TEXT,
        "clientip": _ADDRESS,
        "duration": _NUMBER,
        "value": _NUMBER,
        "params": {"type": "flattened", "ignore_above": VALUE_MAX_CHARACTERS},
        "event.original": _STORED_ONLY,
    },
}


def index_pattern(prefix: str) -> str:
    """Return the pattern that matches every day's index."""
    return f"{prefix}-*"


def index_template(prefix: str) -> dict[str, Any]:
    """Return the body of the index template for the events under that prefix."""
    return {
        "index_patterns": [index_pattern(prefix)],
        "priority": 300,
        "version": VERSION,
        "_meta": {"managed_by": "metronome"},
        "template": {"settings": {"index": _SETTINGS}, "mappings": _MAPPINGS},
    }
