"""Saved objects: the form in which Kibana keeps data views, panels and dashboards, and imports them."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

Json = dict[str, Any]

CORE_VERSION: Final = "8.8.0"
"""The version of what all saved objects have in common. Without it Kibana takes them for very old ones."""


class Kind(StrEnum):
    """What a saved object is, as Kibana calls it."""

    DATA_VIEW = "index-pattern"
    PANEL = "lens"
    DASHBOARD = "dashboard"


VERSIONS: Final = {Kind.DATA_VIEW: "8.0.0", Kind.PANEL: "8.9.0", Kind.DASHBOARD: "10.2.0"}
"""The form of each kind's attributes: those of Kibana 8.19. Newer Kibanas bring them up to date themselves."""


class Reference(NamedTuple):
    """What one saved object needs of another.

    Attributes:
        kind: what the other is.
        id: the other's id.
        name: where in the object it is needed, as Kibana writes that.

    """

    kind: Kind
    id: str
    name: str


def saved_object(kind: Kind, object_id: str, attributes: Json, references: Iterable[Reference] = ()) -> Json:
    """Return an object as an export of Kibana's has it."""
    return {
        "type": kind.value,
        "id": object_id,
        "attributes": attributes,
        "references": [{"type": one.kind.value, "id": one.id, "name": one.name} for one in references],
        "managed": False,
        "coreMigrationVersion": CORE_VERSION,
        "typeMigrationVersion": VERSIONS[kind],
    }


def json_text(value: Any) -> str:
    """Write what Kibana keeps as JSON within JSON, always in the same order."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def ndjson(objects: Iterable[Json]) -> bytes:
    """Write objects as Kibana imports them: one a line, always in the same order."""
    return b"".join(orjson.dumps(one, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE) for one in objects)
