"""The index template: its mapping rejects no document and makes every field countable.

It is composed of two component templates: ``<prefix>@defaults`` has Metronome's settings and mapping, and
``<prefix>@custom`` what the operator adds or changes. Metronome never changes that one.

The events of each UTC month are one index, ``<prefix>-2015.01``; earlier versions had one for each day. Known fields,
including those of enrichment, have fixed types, so that these do not depend on the first value. Other top-level fields
are keywords; if the month's first value is a number or the text of one, their numbers are in ``<field>.num``. All other
fields are in ``params``, a ``flattened`` field.
"""

from collections.abc import Iterable
from typing import Any, Final

from metronome.fields import FIELDS, VALUE_MAX_CHARACTERS, FieldType

TEMPLATE_VERSION: Final = 4
"""To be raised with each change: a node only replaces older templates."""

TEMPLATE_PRIORITY: Final = 300
"""Elasticsearch rejects a template of the same priority that matches the same indices."""

_META: Final = {"managed_by": "metronome"}

_KEYWORD: Final[dict[str, Any]] = {"type": "keyword", "ignore_above": VALUE_MAX_CHARACTERS}
_STORED_ONLY: Final[dict[str, Any]] = {"type": "keyword", "index": False, "doc_values": False}
_NUMBER: Final[dict[str, Any]] = {**_KEYWORD, "fields": {"num": {"type": "double", "ignore_malformed": True}}}
"""A text in a field of numbers is stored, and no error."""
_IP_ADDRESS: Final[dict[str, Any]] = {**_KEYWORD, "fields": {"ip": {"type": "ip", "ignore_malformed": True}}}

_FIELD_MAPPINGS: Final[dict[FieldType, dict[str, Any]]] = {
    FieldType.TEXT: _KEYWORD,
    FieldType.NUMBER: _NUMBER,
    FieldType.TIMESTAMP: {"type": "date"},
    FieldType.IP_ADDRESS: _IP_ADDRESS,
    FieldType.STORED_ONLY: _STORED_ONLY,
    FieldType.CONSTANT: {"type": "keyword"},
    FieldType.PARAMS: {"type": "flattened", "ignore_above": VALUE_MAX_CHARACTERS},
}

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
    "properties": {field.name: _FIELD_MAPPINGS[field.type] for field in FIELDS if field.type is not None},
}


ESSENTIAL_TYPES: Final = {"@timestamp": "date", "id": "keyword", "event": "keyword"}
"""Fields, with their types, without which an index cannot be queried."""


def overlaps_prefix(prefix: str, patterns: Iterable[str]) -> bool:
    """Return whether index patterns of another template match indices of this prefix, or the reverse."""
    starts = [pattern.partition("*")[0] for pattern in patterns if pattern != index_pattern(prefix)]
    return any(start.startswith(f"{prefix}-") or f"{prefix}-".startswith(start) for start in starts)


def index_pattern(prefix: str) -> str:
    """Return the pattern that matches every index."""
    return f"{prefix}-*"


def defaults_name(prefix: str) -> str:
    """Return the name of the component template with Metronome's settings and mapping."""
    return f"{prefix}@defaults"


def custom_name(prefix: str) -> str:
    """Return the name of the component template that is the operator's."""
    return f"{prefix}@custom"


def defaults_template() -> dict[str, Any]:
    """Return the body of the component template with Metronome's settings and mapping."""
    return {
        "version": TEMPLATE_VERSION,
        "_meta": _META,
        "template": {"settings": {"index": _SETTINGS}, "mappings": _MAPPINGS},
    }


def index_template(prefix: str, composed_of: Iterable[str] = ()) -> dict[str, Any]:
    """Return the body of the index template for the events with that prefix.

    Args:
        prefix: of the names of indices.
        composed_of: the component templates of an earlier version of it, which an operator may have added to.

    """
    added = [name for name in composed_of if name not in (defaults_name(prefix), custom_name(prefix))]
    return {
        "index_patterns": [index_pattern(prefix)],
        "priority": TEMPLATE_PRIORITY,
        "version": TEMPLATE_VERSION,
        "_meta": _META,
        # Of the same setting, the last one holds.
        "composed_of": [defaults_name(prefix), *added, custom_name(prefix)],
        "ignore_missing_component_templates": [custom_name(prefix)],
    }
