"""The index template: a mapping that refuses nothing and counts everything.

Each UTC day's events are one index, ``<prefix>-2015.01.22``, as Logstash names them. Known fields, those that
enrichment adds among them, are typed, so that whichever value comes first does not decide what they are; other
top-level ones are keywords with the value's number, where it is one, as ``<field>.num`` beside it; what is odd
lies in ``params``, one ``flattened`` field. Whether an unknown field has numbers is seen from the day's first value:
a number, or a text that says one.
"""

from typing import Any, Final

TEMPLATE_VERSION: Final = 2
"""To be raised with each change: a node puts its template over an older one only."""

VALUE_MAX_CHARACTERS: Final = 1024
"""Longer values are stored, but neither searched nor counted."""

_KEYWORD: Final[dict[str, Any]] = {"type": "keyword", "ignore_above": VALUE_MAX_CHARACTERS}
_STORED_ONLY: Final[dict[str, Any]] = {"type": "keyword", "index": False, "doc_values": False}
_NUMBER: Final[dict[str, Any]] = {**_KEYWORD, "fields": {"num": {"type": "double", "ignore_malformed": True}}}
_IP_ADDRESS: Final[dict[str, Any]] = {**_KEYWORD, "fields": {"ip": {"type": "ip", "ignore_malformed": True}}}

_KEYWORD_FIELDS: Final = (
    *("id", "event", "format", "referer", "session", "visitor", "bot", "bot_kind", "message", "error_group"),
    *("channel", "referer_group", "country", "browser", "browser_version", "os", "os_version", "device"),
    *("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "method", "user"),
)
_NUMBER_FIELDS: Final = (
    *("duration", "value", "status", "enrich_version", "TTFB", "FCP", "LCP", "CLS", "INP"),
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)
"""Fields that hold numbers: a text in one of these is kept, and no error."""

_SETTINGS: Final[dict[str, Any]] = {
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    "refresh_interval": "5s",
    "codec": "best_compression",
    "sort.field": ["id", "@timestamp"],
    "sort.order": ["asc", "desc"],
    "mapping.total_fields.limit": 350,
    "mapping.total_fields.ignore_dynamic_beyond_limit": True,
    "mapping.ignore_malformed": True,
}

_MAPPINGS: Final[dict[str, Any]] = {
    "subobjects": False,
    "dynamic": True,
    "date_detection": False,
    "numeric_detection": True,
    "dynamic_templates": [
        {"numbers": {"match_mapping_type": ["long", "double"], "mapping": _NUMBER}},
        {"rest": {"match_mapping_type": "*", "mapping": _KEYWORD}},
    ],
    "properties": {
        "@timestamp": {"type": "date"},
        "@version": {"type": "keyword"},
        "event_id": _STORED_ONLY,
        **dict.fromkeys(_KEYWORD_FIELDS, _KEYWORD),
        **dict.fromkeys(_NUMBER_FIELDS, _NUMBER),
        "clientip": _IP_ADDRESS,
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
        "version": TEMPLATE_VERSION,
        "_meta": {"managed_by": "metronome"},
        "template": {"settings": {"index": _SETTINGS}, "mappings": _MAPPINGS},
    }
