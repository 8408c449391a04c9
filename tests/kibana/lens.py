"""Parse saved objects: dashboards with their panels, panels with their columns."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

Json = dict[str, Any]

LAYER_REFERENCE: Final = "indexpattern-datasource-layer-"


@dataclass(frozen=True)
class Layer:
    """The layer of a panel.

    Attributes:
        name: ID of the layer.
        columns: columns by ID, in the order in which Lens computes them.
        query: KQL query of the panel.

    """

    name: str
    columns: Mapping[str, Json]
    query: str


def of_kind(objects: Iterable[Json], kind: str) -> list[Json]:
    return [one for one in objects if one["type"] == kind]


def by_id(objects: Iterable[Json]) -> dict[str, Json]:
    return {one["id"]: one for one in objects}


def layer_of(panel: Json) -> Layer:
    """Return the only layer of a panel."""
    state = panel["attributes"]["state"]
    ((name, layer),) = state["datasourceStates"]["formBased"]["layers"].items()
    assert not state["filters"]
    assert state["query"]["language"] == "kuery"
    assert {*layer["columnOrder"]} == layer["columns"].keys()
    return Layer(name, {column: layer["columns"][column] for column in layer["columnOrder"]}, state["query"]["query"])


def named_columns(panel: Json) -> set[str]:
    """Return the columns that a panel's visualization shows."""
    state = panel["attributes"]["state"]["visualization"]
    match panel["attributes"]["visualizationType"]:
        case "lnsMetric":
            return {state["metricAccessor"]}
        case "lnsDatatable":
            return {column["columnId"] for column in state["columns"]} | {state["sorting"]["columnId"]}
        case "lnsPie":
            return {name for layer in state["layers"] for name in (*layer["primaryGroups"], *layer["metrics"])}
        case "lnsXY":
            named = {name for layer in state["layers"] for name in (layer["xAccessor"], *layer["accessors"])}
            return named | {layer["splitAccessor"] for layer in state["layers"] if "splitAccessor" in layer}
        case other:
            raise AssertionError(f"unknown visualization {other}")


def shown_layers(panel: Json) -> list[str]:
    """Return the layers that a panel's visualization shows."""
    state = panel["attributes"]["state"]["visualization"]
    return [layer["layerId"] for layer in state.get("layers", [state])]


def panels_on(dashboard: Json) -> list[Json]:
    found: list[Json] = orjson.loads(dashboard["attributes"]["panelsJSON"])
    return found


def controls_on(dashboard: Json) -> dict[str, Json]:
    found: dict[str, Json] = orjson.loads(dashboard["attributes"]["controlGroupInput"]["panelsJSON"])
    return found


def filters_on(dashboard: Json) -> list[Json]:
    found: list[Json] = orjson.loads(dashboard["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])["filter"]
    return found


def referred(one: Json) -> dict[str, tuple[str, str]]:
    """Return types and IDs of an object's references, by name."""
    return {each["name"]: (each["type"], each["id"]) for each in one["references"]}


def texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of all strings in an object that contain JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, name)
    elif name.endswith("JSON") or name in {"fields", "fieldAttrs", "fieldFormatMap", "runtimeFieldMap", "typeMeta"}:
        yield name, value
