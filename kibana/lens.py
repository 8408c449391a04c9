"""Lens panels and the dashboards that they are on: columns, panels, rows of panels, controls."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from kibana.saved_objects import (
    DATA_VIEW_ID,
    PREFIX,
    TIME_FIELD,
    Json,
    ObjectReference,
    SavedObjectType,
    build_saved_object,
    encode_json,
)

RECORDS_FIELD: Final = "___records___"
"""Pseudo-field of Lens for counting events."""

_NUMBER_STATE: Final[Json] = {"dataType": "number", "scale": "ratio", "isBucketed": False}
_NON_ID_CHARACTERS: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a panel: a group, or a metric of each group.

    Attributes:
        id: ID within the panel.
        state: its state in Lens.
        hidden_columns: states of the columns that it is computed from, by ID.

    """

    id: str
    state: Json
    hidden_columns: Mapping[str, Json] = field(default_factory=dict)

    @property
    def is_bucketed(self) -> bool:
        """Whether events are grouped by it."""
        return bool(self.state["isBucketed"])


def date_histogram(label: str = "Day") -> Column:
    """Group by day in Kibana's time zone, including days without events."""
    params = {"interval": "1d", "includeEmptyRows": True, "dropPartials": False}
    return _bucket_column(label, "date", "date_histogram", "interval", TIME_FIELD, params)


def top_values(source_field: str, label: str, size: int, order: Column, *, include_other: bool = False) -> Column:
    """Group by the most frequent values of a field.

    Each month is a shard of its own, so each returns at least 1,000 values (``accuracyMode``): otherwise values that
    are rare in each of many months would be counted wrongly.

    Args:
        source_field: the field.
        label: label of the column.
        size: number of values.
        order: metric by which values are sorted.
        include_other: whether to show all other values as one.

    """
    params = {
        "size": size,
        "accuracyMode": True,
        "orderBy": {"type": "column", "columnId": order.id},
        "orderDirection": "desc",
        "otherBucket": include_other,
        "missingBucket": False,
        "parentFormat": {"id": "terms"},
        "include": [],
        "exclude": [],
        "includeIsRegex": False,
        "excludeIsRegex": False,
    }
    return _bucket_column(label, "string", "terms", "ordinal", source_field, params)


def filter_buckets(label: str, *labelled_queries: tuple[str, str]) -> Column:
    """Group by the queries that events match; *labelled_queries* are labels and queries in KQL."""
    params = {"filters": [{"label": name, "input": _kql_query(query)} for name, query in labelled_queries]}
    return _bucket_column(label, "string", "filters", "ordinal", "", params)


def count_events(label: str, kql: str = "") -> Column:
    """Count events, or those that match a query in KQL."""
    return _metric_column(label, "count", RECORDS_FIELD, {"emptyAsNull": True}, kql)


def count_values(label: str, source_field: str) -> Column:
    """Count the events that have a field."""
    return _metric_column(label, "count", source_field, {"emptyAsNull": True})


def unique_count(label: str, source_field: str, kql: str = "") -> Column:
    """Count the distinct values of a field; above 3,000, Kibana estimates their number."""
    return _metric_column(label, "unique_count", source_field, {"emptyAsNull": True}, kql)


def percentile(label: str, source_field: str, percent: int) -> Column:
    """Compute a percentile of a numeric field."""
    return _metric_column(label, "percentile", source_field, {"percentile": percent})


def last_timestamp(label: str) -> Column:
    """Return the time of the newest event."""
    column = _metric_column(label, "max", TIME_FIELD, {"emptyAsNull": True})
    return Column(column.id, {**column.state, "dataType": "date"})


def ratio(label: str, kql: str) -> Column:
    """Compute the share of events that match a query in KQL.

    The column has a formula, and the columns that Lens derives from it: a count of these events, a count of all, and
    their quotient.
    """
    formula = f"count(kql='{kql}') / count()"
    name = _column_id(label)
    matching, total, quotient = (f"{name}X{index}" for index in range(3))
    tree = {
        "type": "function",
        "name": "divide",
        "args": [matching, total],
        "location": {"min": 0, "max": len(formula)},
        "text": formula,
    }
    part = f"Part of {label}"
    parts = {
        matching: _metric_column(part, "count", RECORDS_FIELD, {"emptyAsNull": False}, kql).state,
        total: _metric_column(part, "count", RECORDS_FIELD, {"emptyAsNull": False}).state,
        quotient: _computed_state(part, "math", {"tinymathAst": tree}, matching, total),
    }
    params = {"formula": formula, "isFormulaBroken": False, "format": {"id": "percent", "params": {"decimals": 1}}}
    return Column(name, _computed_state(label, "formula", params, quotient), parts)


def _bucket_column(label: str, data_type: str, operation: str, scale: str, source: str, params: Json) -> Column:
    state = {"operationType": operation, "dataType": data_type, "scale": scale, "isBucketed": True, "params": params}
    return Column(_column_id(label), {**_label_state(label), **state, **({"sourceField": source} if source else {})})


def _metric_column(label: str, operation: str, source: str, params: Json, only: str = "") -> Column:
    state = {"operationType": operation, "sourceField": source, "params": params, **_NUMBER_STATE}
    return Column(_column_id(label), {**_label_state(label), **state, **({"filter": _kql_query(only)} if only else {})})


def _computed_state(label: str, operation: str, params: Json, *references: str) -> Json:
    state = {"operationType": operation, "params": params, "references": [*references], **_NUMBER_STATE}
    return {**_label_state(label), **state}


def _label_state(label: str) -> Json:
    return {"label": label, "customLabel": True}


def _kql_query(query: str) -> Json:
    return {"query": query, "language": "kuery"}


def _column_id(label: str) -> str:
    return f"c-{_NON_ID_CHARACTERS.sub('-', label.lower()).strip('-')}"


_LAYER_ID: Final = "layer"
"""Each panel has one layer, so its ID can be the same in all."""

_AXIS_OPTIONS: Final[Json] = {
    "valueLabels": "hide",
    "fittingFunction": "None",
    "axisTitlesVisibilitySettings": {"x": False, "yLeft": False, "yRight": False},
    "tickLabelsVisibilitySettings": {"x": True, "yLeft": True, "yRight": True},
    "labelsOrientation": {"x": 0, "yLeft": 0, "yRight": 0},
    "gridlinesVisibilitySettings": {"x": False, "yLeft": True, "yRight": True},
}


class SeriesType(StrEnum):
    """Kibana's names for types of charts."""

    BARS = "bar_stacked"
    PERCENTAGE_BARS = "bar_percentage_stacked"
    HORIZONTAL_BARS = "bar_horizontal"
    LINES = "line"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of a dashboard.

    Attributes:
        name: name within its dashboard.
        title: title above the panel.
        description: tooltip of the title.
        query: events of the panel, in KQL; empty for all.
        columns: groups from the outermost on, then metrics.
        visualization_type: Kibana's name for the type of visualization.
        state: where each column is shown in the visualization.

    """

    name: str
    title: str
    description: str
    query: str
    columns: tuple[Column, ...]
    visualization_type: str
    state: Json

    def to_saved_object(self, panel_id: str) -> Json:
        """Return the panel as a saved object."""
        parts = {name: part for column in self.columns for name, part in column.hidden_columns.items()}
        layer = {
            "columns": {**{column.id: column.state for column in self.columns}, **parts},
            "columnOrder": [*(column.id for column in self.columns), *parts],
            "incompleteColumns": {},
            "sampling": 1,
            "ignoreGlobalFilters": False,
        }
        attributes = {
            "title": self.title,
            "description": self.description,
            "visualizationType": self.visualization_type,
            "state": {
                "visualization": self.state,
                "query": {"query": self.query, "language": "kuery"},
                "filters": [],
                "datasourceStates": {"formBased": {"layers": {_LAYER_ID: layer}}, "textBased": {"layers": {}}},
                "internalReferences": [],
                "adHocDataViews": {},
            },
        }
        source = ObjectReference(SavedObjectType.DATA_VIEW, DATA_VIEW_ID, f"indexpattern-datasource-layer-{_LAYER_ID}")
        return build_saved_object(SavedObjectType.PANEL, panel_id, attributes, [source])


def metric_panel(name: str, title: str, description: str, query: str, metric: Column, *, subtitle: str = "") -> Panel:
    """Return a panel with one number, and a subtitle below it."""
    state = {"layerId": _LAYER_ID, "layerType": "data", "metricAccessor": metric.id}
    if subtitle:
        state["subtitle"] = subtitle
    return Panel(name, title, description, query, (metric,), "lnsMetric", state)


def xy_panel(
    name: str,
    title: str,
    description: str,
    query: str,
    series: SeriesType,
    x_axis: Column,
    *metrics: Column,
    breakdown: Column | None = None,
) -> Panel:
    """Return a panel with a bar or line chart.

    Args:
        name: see `Panel`.
        title: see `Panel`.
        description: see `Panel`.
        query: see `Panel`.
        series: type of the chart.
        x_axis: group along the x axis.
        metrics: metrics along the y axis.
        breakdown: group that each metric is split by.

    """
    layer: Json = {
        "layerId": _LAYER_ID,
        "layerType": "data",
        "seriesType": series.value,
        "position": "top",
        "showGridlines": False,
        "xAccessor": x_axis.id,
        "accessors": [metric.id for metric in metrics],
        **({"splitAccessor": breakdown.id} if breakdown else {}),
    }
    legend = {"isVisible": breakdown is not None or len(metrics) > 1, "position": "right"}
    state = {"legend": legend, **_AXIS_OPTIONS, "preferredSeriesType": series.value, "layers": [layer]}
    # As Lens orders groups: the breakdown first, the x axis last.
    groups = (x_axis,) if breakdown is None else (breakdown, x_axis)
    return Panel(name, title, description, query, (*groups, *metrics), "lnsXY", state)


def donut_panel(name: str, title: str, description: str, query: str, slices: Column, metric: Column) -> Panel:
    """Return a panel with shares of a total."""
    layer = {
        "layerId": _LAYER_ID,
        "layerType": "data",
        "primaryGroups": [slices.id],
        "metrics": [metric.id],
        "numberDisplay": "percent",
        "categoryDisplay": "default",
        "legendDisplay": "default",
        "nestedLegend": False,
    }
    return Panel(name, title, description, query, (slices, metric), "lnsPie", {"shape": "donut", "layers": [layer]})


def table_panel(name: str, title: str, description: str, query: str, *columns: Column) -> Panel:
    """Return a panel with a table, sorted by its first metric; a click on a group filters the dashboard."""
    first = next(column for column in columns if not column.is_bucketed)
    state = {
        "layerId": _LAYER_ID,
        "layerType": "data",
        "columns": [
            {"columnId": column.id, "isTransposed": False, **({"oneClickFilter": True} if column.is_bucketed else {})}
            for column in columns
        ],
        "sorting": {"columnId": first.id, "direction": "desc"},
        "paging": {"enabled": True, "size": 10},
    }
    return Panel(name, title, description, query, columns, "lnsDatatable", state)


GRID_WIDTH: Final = 48
"""Number of columns of Kibana's grid."""

_BOT_FILTER_REFERENCE: Final = "kibanaSavedObjectMeta.searchSourceJSON.filter[0].meta.index"
_DASHBOARD_OPTIONS: Final[Json] = {
    "useMargins": True,
    "syncColors": False,
    "syncCursor": True,
    "syncTooltips": False,
    "hidePanelTitles": False,
}
_CONTROL_SETTINGS: Final[Json] = {
    "ignoreFilters": False,
    "ignoreQuery": False,
    "ignoreTimerange": False,
    "ignoreValidations": False,
}


class PanelRow(NamedTuple):
    """Panels next to each other.

    Attributes:
        height: height in rows of Kibana's grid, about 20 of which fit on a screen.
        cells: width and panel of each cell; the widths add up to `GRID_WIDTH`.

    """

    height: int
    cells: tuple[tuple[int, Panel], ...]


def equal_row(height: int, *panels: Panel) -> PanelRow:
    """Return a row of panels of about the same width."""
    width, rest = divmod(GRID_WIDTH, len(panels))
    return PanelRow(height, tuple((width + (index < rest), panel) for index, panel in enumerate(panels)))


def two_panel_row(height: int, width: int, panel: Panel, other: Panel) -> PanelRow:
    """Return a row of a panel of some width, and another one that takes the rest."""
    return PanelRow(height, ((width, panel), (GRID_WIDTH - width, other)))


class Control(NamedTuple):
    """A list of a field's values above a dashboard, to filter by them.

    Attributes:
        field: the field.
        title: title of the list.

    """

    field: str
    title: str


ITEM_CONTROL: Final = Control("id", "Item")
EVENT_CONTROL: Final = Control("event", "Event")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard.

    Attributes:
        name: the end of its ID.
        title: title after the prefix.
        description: description in the list of dashboards.
        controls: lists above the dashboard, to filter by.
        rows: rows of panels from the top.
        include_bots: whether to include events of bots; otherwise a filter excludes them, which can be disabled.

    """

    name: str
    title: str
    description: str
    controls: tuple[Control, ...]
    rows: tuple[PanelRow, ...]
    include_bots: bool = False

    @property
    def saved_object_id(self) -> str:
        """ID of the dashboard."""
        return f"{PREFIX}-{self.name}"

    def iterate_panels(self) -> Iterator[Panel]:
        """Yield the panels row by row."""
        for row in self.rows:
            for _, panel in row.cells:
                yield panel

    def to_saved_objects(self) -> list[Json]:
        """Return the panels and the dashboard as saved objects."""
        panels = [panel.to_saved_object(self._panel_id(panel)) for panel in self.iterate_panels()]
        source = {
            "query": {"query": "", "language": "kuery"},
            "filter": [] if self.include_bots else [_EXCLUDE_BOTS_FILTER],
        }
        attributes = {
            "title": f"{PREFIX.capitalize()}: {self.title}",
            "description": self.description,
            "timeRestore": True,
            "timeFrom": "now-30d",
            "timeTo": "now",
            "refreshInterval": {"pause": True, "value": 60_000},
            "optionsJSON": encode_json(_DASHBOARD_OPTIONS),
            "panelsJSON": encode_json([*self._panel_layout()]),
            "controlGroupInput": {
                "controlStyle": "oneLine",
                "chainingSystem": "HIERARCHICAL",
                "showApplySelections": False,
                "ignoreParentSettingsJSON": encode_json(_CONTROL_SETTINGS),
                "panelsJSON": encode_json(dict(map(_control_state, range(len(self.controls)), self.controls))),
            },
            "kibanaSavedObjectMeta": {"searchSourceJSON": encode_json(source)},
            "version": 1,
        }
        dashboard = build_saved_object(SavedObjectType.DASHBOARD, self.saved_object_id, attributes, self._references())
        return [*panels, dashboard]

    def _panel_layout(self) -> Iterator[Json]:
        y = 0
        for row in self.rows:
            x = 0
            for width, panel in row.cells:
                yield {
                    "type": SavedObjectType.PANEL.value,
                    "panelIndex": panel.name,
                    "panelRefName": f"panel_{panel.name}",
                    "gridData": {"x": x, "y": y, "w": width, "h": row.height, "i": panel.name},
                    "embeddableConfig": {"enhancements": {}},
                }
                x += width
            y += row.height

    def _references(self) -> Iterator[ObjectReference]:
        for panel in self.iterate_panels():
            yield ObjectReference(SavedObjectType.PANEL, self._panel_id(panel), f"{panel.name}:panel_{panel.name}")
        for control in self.controls:
            name = f"controlGroup_{_control_id(control)}:optionsListDataView"
            yield ObjectReference(SavedObjectType.DATA_VIEW, DATA_VIEW_ID, name)
        if not self.include_bots:
            yield ObjectReference(SavedObjectType.DATA_VIEW, DATA_VIEW_ID, _BOT_FILTER_REFERENCE)

    def _panel_id(self, panel: Panel) -> str:
        return f"{self.saved_object_id}-{panel.name}"


_EXCLUDE_BOTS_FILTER: Final[Json] = {
    "meta": {
        "alias": "bots left out",
        "disabled": False,
        "negate": True,
        "type": "exists",
        "key": "bot",
        "field": "bot",
        "value": "exists",
        "indexRefName": _BOT_FILTER_REFERENCE,
    },
    "query": {"exists": {"field": "bot"}},
    "$state": {"store": "appState"},
}


def _control_state(order: int, control: Control) -> tuple[str, Json]:
    name = _control_id(control)
    explicit_input: Json = {
        "id": name,
        "fieldName": control.field,
        "title": control.title,
        # Users may know any part of an ID.
        "searchTechnique": "wildcard",
        "selectedOptions": [],
        "enhancements": {},
    }
    return name, {
        "type": "optionsListControl",
        "order": order,
        "grow": True,
        "width": "medium",
        "explicitInput": explicit_input,
    }


def _control_id(control: Control) -> str:
    return f"control-{control.field.replace('_', '-')}"
