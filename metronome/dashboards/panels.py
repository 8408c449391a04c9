"""Panels: Lens's visualisations, each of a few columns over the events that a query lets through."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from metronome.dashboards.columns import Column
from metronome.dashboards.data_view import data_view_id
from metronome.dashboards.objects import Json, Kind, Reference, saved_object

_LAYER: Final = "layer"
"""Each panel has one layer, so that its name can be the same in all."""

_AXES: Final[Json] = {
    "valueLabels": "hide",
    "fittingFunction": "None",
    "axisTitlesVisibilitySettings": {"x": False, "yLeft": False, "yRight": False},
    "tickLabelsVisibilitySettings": {"x": True, "yLeft": True, "yRight": True},
    "labelsOrientation": {"x": 0, "yLeft": 0, "yRight": 0},
    "gridlinesVisibilitySettings": {"x": False, "yLeft": True, "yRight": True},
}


class Series(StrEnum):
    """How values stand over what they are grouped by, as Lens calls it."""

    BARS = "bar_stacked"
    SHARES = "bar_percentage_stacked"
    ACROSS = "bar_horizontal"
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
    tells: str
    query: str
    columns: tuple[Column, ...]
    form: str
    state: Json

    def saved(self, prefix: str, panel_id: str) -> Json:
        """Return it as a saved object, for the events under an index prefix."""
        parts = {name: part for column in self.columns for name, part in column.parts.items()}
        layer = {
            "columns": {**{column.id: column.state for column in self.columns}, **parts},
            "columnOrder": [*(column.id for column in self.columns), *parts],
            "incompleteColumns": {},
            "sampling": 1,
            "ignoreGlobalFilters": False,
        }
        attributes = {
            "title": self.title,
            "description": self.tells,
            "visualizationType": self.form,
            "state": {
                "visualization": self.state,
                "query": {"query": self.query, "language": "kuery"},
                "filters": [],
                "datasourceStates": {"formBased": {"layers": {_LAYER: layer}}, "textBased": {"layers": {}}},
                "internalReferences": [],
                "adHocDataViews": {},
            },
        }
        source = Reference(Kind.DATA_VIEW, data_view_id(prefix), f"indexpattern-datasource-layer-{_LAYER}")
        return saved_object(Kind.PANEL, panel_id, attributes, [source])


def number(name: str, title: str, tells: str, query: str, metric: Column, *, below: str = "") -> Panel:
    """Show one number, with a remark below it."""
    remark = {"subtitle": below} if below else {}
    state = {"layerId": _LAYER, "layerType": "data", "metricAccessor": metric.id, **remark}
    return Panel(name, title, tells, query, (metric,), "lnsMetric", state)


def chart(  # what a chart is made of
    name: str,
    title: str,
    tells: str,
    query: str,
    series: Series,
    along: Column,
    *metrics: Column,
    by: Column | None = None,
) -> Panel:
    """Show numbers along days or other groups, as bars or lines.

    Args:
        name: as all panels have it.
        title: likewise.
        tells: likewise.
        query: likewise.
        series: bars or lines.
        along: what they stand along.
        metrics: the numbers.
        by: what each is split by.

    """
    layer: Json = {
        "layerId": _LAYER,
        "layerType": "data",
        "seriesType": series.value,
        "position": "top",
        "showGridlines": False,
        "xAccessor": along.id,
        "accessors": [metric.id for metric in metrics],
        **({"splitAccessor": by.id} if by else {}),
    }
    legend = {"isVisible": by is not None or len(metrics) > 1, "position": "right"}
    state = {"legend": legend, **_AXES, "preferredSeriesType": series.value, "layers": [layer]}
    # Lens puts what splits first where groups are values, so that each has its own, and days last.
    groups = (along,) if by is None else (by, along)
    return Panel(name, title, tells, query, (*groups, *metrics), "lnsXY", state)


def donut(name: str, title: str, tells: str, query: str, slices: Column, metric: Column) -> Panel:
    """Show the shares of a whole."""
    layer = {
        "layerId": _LAYER,
        "layerType": "data",
        "primaryGroups": [slices.id],
        "metrics": [metric.id],
        "numberDisplay": "percent",
        "categoryDisplay": "default",
        "legendDisplay": "default",
        "nestedLegend": False,
    }
    return Panel(name, title, tells, query, (slices, metric), "lnsPie", {"shape": "donut", "layers": [layer]})


def table(name: str, title: str, tells: str, query: str, *columns: Column) -> Panel:
    """Show rows, those with the most of the first number first; a click on what they are of filters the dashboard."""
    first = next(column for column in columns if not column.is_group)
    state = {
        "layerId": _LAYER,
        "layerType": "data",
        "columns": [
            {"columnId": column.id, "isTransposed": False, **({"oneClickFilter": True} if column.is_group else {})}
            for column in columns
        ],
        "sorting": {"columnId": first.id, "direction": "desc"},
        "paging": {"enabled": True, "size": 10},
    }
    return Panel(name, title, tells, query, columns, "lnsDatatable", state)
