"""Panels: Lens's visualisations, each of a few columns over the events that a query lets through."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from metronome.dashboards.columns import Column
from metronome.dashboards.data_view import data_view_id
from metronome.dashboards.objects import Json, ObjectReference, SavedObjectType, build_saved_object

_LAYER_ID: Final = "layer"
"""Each panel has one layer, so that its name can be the same in all."""

_AXIS_OPTIONS: Final[Json] = {
    "valueLabels": "hide",
    "fittingFunction": "None",
    "axisTitlesVisibilitySettings": {"x": False, "yLeft": False, "yRight": False},
    "tickLabelsVisibilitySettings": {"x": True, "yLeft": True, "yRight": True},
    "labelsOrientation": {"x": 0, "yLeft": 0, "yRight": 0},
    "gridlinesVisibilitySettings": {"x": False, "yLeft": True, "yRight": True},
}


class SeriesType(StrEnum):
    """How values stand over what they are grouped by, as Lens calls it."""

    BARS = "bar_stacked"
    PERCENTAGE_BARS = "bar_percentage_stacked"
    HORIZONTAL_BARS = "bar_horizontal"
    LINES = "line"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        name: what tells it from others of its dashboard.
        title: what stands above it.
        tells: what it tells, as a tool tip.
        query: which events it looks at, in KQL; empty for all.
        columns: what it works out, groups first, from the outermost.
        form: the kind of visualisation, as Lens calls it.
        state: which column stands where in it.

    """

    name: str
    title: str
    description: str
    query: str
    columns: tuple[Column, ...]
    visualization_type: str
    state: Json

    def to_saved_object(self, prefix: str, panel_id: str) -> Json:
        """Return it as a saved object, for the events under an index prefix."""
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
        source = ObjectReference(
            SavedObjectType.DATA_VIEW, data_view_id(prefix), f"indexpattern-datasource-layer-{_LAYER_ID}"
        )
        return build_saved_object(SavedObjectType.PANEL, panel_id, attributes, [source])


def metric_panel(name: str, title: str, description: str, query: str, metric: Column, *, subtitle: str = "") -> Panel:
    """Show one number, with a remark below it."""
    remark = {"subtitle": subtitle} if subtitle else {}
    state = {"layerId": _LAYER_ID, "layerType": "data", "metricAccessor": metric.id, **remark}
    return Panel(name, title, description, query, (metric,), "lnsMetric", state)


def xy_panel(  # what a chart is made of
    name: str,
    title: str,
    description: str,
    query: str,
    series: SeriesType,
    x_axis: Column,
    *metrics: Column,
    breakdown: Column | None = None,
) -> Panel:
    """Show numbers along days or other groups, as bars or lines.

    Args:
        name: as all panels have it.
        title: likewise.
        description: likewise.
        query: likewise.
        series: bars or lines.
        x_axis: what they stand along.
        metrics: the numbers.
        breakdown: what each is split by.

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
    # Lens puts what splits first where groups are values, so that each has its own, and days last.
    groups = (x_axis,) if breakdown is None else (breakdown, x_axis)
    return Panel(name, title, description, query, (*groups, *metrics), "lnsXY", state)


def donut_panel(name: str, title: str, description: str, query: str, slices: Column, metric: Column) -> Panel:
    """Show the shares of a whole."""
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
    """Show rows, those with the most of the first number first; a click on what they are of filters the dashboard."""
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
