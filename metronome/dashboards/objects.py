"""Saved objects: the form in which Kibana keeps data views, panels and dashboards, and imports them."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

Json = dict[str, Any]

CORE_VERSION: Final = "8.8.0"
"""The version of what all saved objects have in common. Without it Kibana takes them for very old ones."""


class SavedObjectType(StrEnum):
    """What a saved object is, as Kibana calls it."""

    DATA_VIEW = "index-pattern"
    PANEL = "lens"
    DASHBOARD = "dashboard"


TYPE_VERSIONS: Final = {
    SavedObjectType.DATA_VIEW: "8.0.0",
    SavedObjectType.PANEL: "8.9.0",
    SavedObjectType.DASHBOARD: "10.2.0",
}
"""The form of each kind's attributes: those of Kibana 8.19. Newer Kibanas bring them up to date themselves."""


class ObjectReference(NamedTuple):
    """What one saved object needs of another.

    Attributes:
        kind: what the other is.
        id: the other's id.
        name: where in the object it is needed, as Kibana writes that.

    """

    type: SavedObjectType
    id: str
    name: str


def build_saved_object(
    object_type: SavedObjectType, object_id: str, attributes: Json, references: Iterable[ObjectReference] = ()
) -> Json:
    """Return an object as an export of Kibana's has it."""
    return {
        "type": object_type.value,
        "id": object_id,
        "attributes": attributes,
        "references": [{"type": one.type.value, "id": one.id, "name": one.name} for one in references],
        "managed": False,
        "coreMigrationVersion": CORE_VERSION,
        "typeMigrationVersion": TYPE_VERSIONS[object_type],
    }


def encode_json(value: Any) -> str:
    """Write what Kibana keeps as JSON within JSON, always in the same order."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def encode_ndjson(objects: Iterable[Json]) -> bytes:
    """Write objects as Kibana imports them: one a line, always in the same order."""
    return b"".join(orjson.dumps(one, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE) for one in objects)
