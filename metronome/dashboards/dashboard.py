"""Dashboards: rows of panels, with the controls above them and what they leave out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from metronome.dashboards.data_view import data_view_id
from metronome.dashboards.objects import Json, Kind, Reference, json_text, saved_object
from metronome.dashboards.panels import Panel

WIDTH: Final = 48
"""So many columns Kibana's grid has."""

_FILTER: Final = "kibanaSavedObjectMeta.searchSourceJSON.filter[0].meta.index"
_OPTIONS: Final[Json] = {
    "useMargins": True,
    "syncColors": False,
    "syncCursor": True,
    "syncTooltips": False,
    "hidePanelTitles": False,
}
_OBEYED: Final[Json] = {
    "ignoreFilters": False,
    "ignoreQuery": False,
    "ignoreTimerange": False,
    "ignoreValidations": False,
}


class Row(NamedTuple):
    """Panels that stand beside each other.

    Attributes:
        height: how high they are, of which about 20 fit on a screen.
        cells: each with its width; together `WIDTH`.

    """

    height: int
    cells: tuple[tuple[int, Panel], ...]


def even(height: int, *panels: Panel) -> Row:
    """Give panels the same width, as far as that goes."""
    width, rest = divmod(WIDTH, len(panels))
    return Row(height, tuple((width + (at < rest), panel) for at, panel in enumerate(panels)))


def beside(height: int, width: int, panel: Panel, other: Panel) -> Row:
    """Give one panel a width, and another beside it the rest."""
    return Row(height, ((width, panel), (WIDTH - width, other)))


class Control(NamedTuple):
    """A list to choose values from, of which alone the dashboard then tells.

    Attributes:
        field: whose values they are.
        title: what it is called.

    """

    field: str
    title: str


ITEM: Final = Control("id", "Item")
EVENT: Final = Control("event", "Event")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard.

    Attributes:
        name: what tells it from others.
        title: what it is called.
        tells: what it tells, shown in the list of dashboards.
        controls: what can be chosen above it.
        rows: its panels, from the top.
        bots: whether robots count. If not, a filter that can be switched off leaves them out.

    """

    name: str
    title: str
    tells: str
    controls: tuple[Control, ...]
    rows: tuple[Row, ...]
    bots: bool = False

    def id_of(self, prefix: str) -> str:
        """Return its id, for the events under an index prefix."""
        return f"{prefix}-{self.name}"

    def panels(self) -> Iterator[Panel]:
        """Tell its panels, row by row."""
        for row in self.rows:
            for _, panel in row.cells:
                yield panel

    def saved(self, prefix: str) -> list[Json]:
        """Return its panels and itself as saved objects, for the events under an index prefix."""
        panels = [panel.saved(prefix, self._panel_id(prefix, panel)) for panel in self.panels()]
        source = {"query": {"query": "", "language": "kuery"}, "filter": [] if self.bots else [_NO_BOTS]}
        attributes = {
            "title": f"{prefix.capitalize()}: {self.title}",
            "description": self.tells,
            "timeRestore": True,
            "timeFrom": "now-30d",
            "timeTo": "now",
            "refreshInterval": {"pause": True, "value": 60_000},
            "optionsJSON": json_text(_OPTIONS),
            "panelsJSON": json_text([*self._placed()]),
            "controlGroupInput": {
                "controlStyle": "oneLine",
                "chainingSystem": "HIERARCHICAL",
                "showApplySelections": False,
                "ignoreParentSettingsJSON": json_text(_OBEYED),
                "panelsJSON": json_text(dict(map(_control, range(len(self.controls)), self.controls))),
            },
            "kibanaSavedObjectMeta": {"searchSourceJSON": json_text(source)},
            "version": 1,
        }
        return [*panels, saved_object(Kind.DASHBOARD, self.id_of(prefix), attributes, self._references(prefix))]

    def _placed(self) -> Iterator[Json]:
        y = 0
        for row in self.rows:
            x = 0
            for width, panel in row.cells:
                yield {
                    "type": Kind.PANEL.value,
                    "panelIndex": panel.name,
                    "panelRefName": f"panel_{panel.name}",
                    "gridData": {"x": x, "y": y, "w": width, "h": row.height, "i": panel.name},
                    "embeddableConfig": {"enhancements": {}},
                }
                x += width
            y += row.height

    def _references(self, prefix: str) -> Iterator[Reference]:
        for panel in self.panels():
            yield Reference(Kind.PANEL, self._panel_id(prefix, panel), f"{panel.name}:panel_{panel.name}")
        for control in self.controls:
            name = f"controlGroup_{_control_id(control)}:optionsListDataView"
            yield Reference(Kind.DATA_VIEW, data_view_id(prefix), name)
        if not self.bots:
            yield Reference(Kind.DATA_VIEW, data_view_id(prefix), _FILTER)

    def _panel_id(self, prefix: str, panel: Panel) -> str:
        return f"{self.id_of(prefix)}-{panel.name}"


_NO_BOTS: Final[Json] = {
    "meta": {
        "alias": "bots left out",
        "disabled": False,
        "negate": True,
        "type": "exists",
        "key": "bot",
        "field": "bot",
        "value": "exists",
        "indexRefName": _FILTER,
    },
    "query": {"exists": {"field": "bot"}},
    "$state": {"store": "appState"},
}


def _control(order: int, control: Control) -> tuple[str, Json]:
    name = _control_id(control)
    asked: dict[str, Any] = {
        "id": name,
        "fieldName": control.field,
        "title": control.title,
        # Ids are known by any part of them.
        "searchTechnique": "wildcard",
        "selectedOptions": [],
        "enhancements": {},
    }
    return name, {
        "type": "optionsListControl",
        "order": order,
        "grow": True,
        "width": "medium",
        "explicitInput": asked,
    }


def _control_id(control: Control) -> str:
    return f"control-{control.field.replace('_', '-')}"
