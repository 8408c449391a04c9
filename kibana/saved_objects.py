"""Saved objects: the format in which Kibana exports and imports data views, panels and dashboards."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

from metronome.fields import FIELDS, Field, Timing, Unit

Json = dict[str, Any]

PREFIX: Final = "metronome"
"""Default index prefix; the IDs of all objects begin with it. ``metronome dashboards`` replaces it by another one."""
DATA_VIEW_ID: Final = f"{PREFIX}-events"
TIME_FIELD: Final = "@timestamp"

CORE_VERSION: Final = "8.8.0"
"""Version of what all saved objects have in common. Without it, Kibana assumes a very old version."""


class SavedObjectType(StrEnum):
    """Kibana's name for a type of saved objects."""

    DATA_VIEW = "index-pattern"
    PANEL = "lens"
    DASHBOARD = "dashboard"


TYPE_VERSIONS: Final = {
    SavedObjectType.DATA_VIEW: "8.0.0",
    SavedObjectType.PANEL: "8.9.0",
    SavedObjectType.DASHBOARD: "10.2.0",
}
"""Versions of the attributes of each type, as of Kibana 8.19. Newer versions of Kibana migrate them."""


class ObjectReference(NamedTuple):
    """A reference from one saved object to another.

    Attributes:
        type: type of the other object.
        id: ID of the other object.
        name: where the reference is used, in Kibana's notation.

    """

    type: SavedObjectType
    id: str
    name: str


def build_saved_object(
    object_type: SavedObjectType, object_id: str, attributes: Json, references: Iterable[ObjectReference] = ()
) -> Json:
    """Return a saved object as Kibana exports it."""
    return {
        "type": object_type.value,
        "id": object_id,
        "attributes": attributes,
        "references": [
            {"type": reference.type.value, "id": reference.id, "name": reference.name} for reference in references
        ],
        "managed": False,
        "coreMigrationVersion": CORE_VERSION,
        "typeMigrationVersion": TYPE_VERSIONS[object_type],
    }


def encode_json(value: Any) -> str:
    """Encode an attribute that Kibana stores as JSON in a string."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def build_data_view() -> Json:
    """Return the data view: the indices of events, and how Kibana shows the values of their fields.

    It can be installed before the first event arrives (``allowNoIndex``).
    """
    formats = {f"{field.name}.num": _FORMATS[field.unit] for field in FIELDS if field.unit is not None}
    labels = {f"{field.name}.num": {"customLabel": _label(field)} for field in FIELDS if field.unit and field.label}
    attributes = {
        "title": f"{PREFIX}-*",
        "name": f"{PREFIX.capitalize()} events",
        "timeFieldName": TIME_FIELD,
        "allowHidden": False,
        "allowNoIndex": True,
        "fields": "[]",
        "fieldAttrs": encode_json(labels),
        "fieldFormatMap": encode_json(formats),
        "runtimeFieldMap": "{}",
        "sourceFilters": "[]",
        "typeMeta": "{}",
    }
    return build_saved_object(SavedObjectType.DATA_VIEW, DATA_VIEW_ID, attributes)


def _label(field: Field) -> str:
    return f"{field.label} (Matomo)" if field.timing is Timing.MATOMO else field.label


_FORMATS: Final[dict[Unit, Json]] = {
    Unit.MILLISECONDS: {
        "id": "duration",
        "params": {
            "inputFormat": "milliseconds",
            "outputFormat": "humanizePrecise",
            "outputPrecision": 2,
            "useShortSuffix": True,
            "includeSpaceWithSuffix": True,
        },
    },
    Unit.SCORE: {"id": "number", "params": {"pattern": "0.000"}},
    Unit.BYTES: {"id": "bytes", "params": {"pattern": "0,0.[0] b"}},
}
