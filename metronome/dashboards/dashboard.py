"""Dashboards: rows of panels, with the controls above them and what they leave out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from metronome.dashboards.data_view import data_view_id
from metronome.dashboards.objects import Json, ObjectReference, SavedObjectType, build_saved_object, encode_json
from metronome.dashboards.panels import Panel

GRID_WIDTH: Final = 48
"""So many columns Kibana's grid has."""

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
    """Panels that stand beside each other.

    Attributes:
        height: how high they are, of which about 20 fit on a screen.
        cells: each with its width; together `GRID_WIDTH`.

    """

    height: int
    cells: tuple[tuple[int, Panel], ...]


def equal_row(height: int, *panels: Panel) -> PanelRow:
    """Give panels the same width, as far as that goes."""
    width, rest = divmod(GRID_WIDTH, len(panels))
    return PanelRow(height, tuple((width + (at < rest), panel) for at, panel in enumerate(panels)))


def two_panel_row(height: int, width: int, panel: Panel, other: Panel) -> PanelRow:
    """Give one panel a width, and another beside it the rest."""
    return PanelRow(height, ((width, panel), (GRID_WIDTH - width, other)))


class Control(NamedTuple):
    """A list to choose values from, of which alone the dashboard then tells.

    Attributes:
        field: whose values they are.
        title: what it is called.

    """

    field: str
    title: str


ITEM_CONTROL: Final = Control("id", "Item")
EVENT_CONTROL: Final = Control("event", "Event")


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
    description: str
    controls: tuple[Control, ...]
    rows: tuple[PanelRow, ...]
    include_bots: bool = False

    def saved_object_id(self, prefix: str) -> str:
        """Return its id, for the events under an index prefix."""
        return f"{prefix}-{self.name}"

    def iterate_panels(self) -> Iterator[Panel]:
        """Tell its panels, row by row."""
        for row in self.rows:
            for _, panel in row.cells:
                yield panel

    def to_saved_objects(self, prefix: str) -> list[Json]:
        """Return its panels and itself as saved objects, for the events under an index prefix."""
        panels = [panel.to_saved_object(prefix, self._panel_id(prefix, panel)) for panel in self.iterate_panels()]
        source = {
            "query": {"query": "", "language": "kuery"},
            "filter": [] if self.include_bots else [_EXCLUDE_BOTS_FILTER],
        }
        attributes = {
            "title": f"{prefix.capitalize()}: {self.title}",
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
        return [
            *panels,
            build_saved_object(
                SavedObjectType.DASHBOARD, self.saved_object_id(prefix), attributes, self._references(prefix)
            ),
        ]

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

    def _references(self, prefix: str) -> Iterator[ObjectReference]:
        for panel in self.iterate_panels():
            yield ObjectReference(
                SavedObjectType.PANEL, self._panel_id(prefix, panel), f"{panel.name}:panel_{panel.name}"
            )
        for control in self.controls:
            name = f"controlGroup_{_control_id(control)}:optionsListDataView"
            yield ObjectReference(SavedObjectType.DATA_VIEW, data_view_id(prefix), name)
        if not self.include_bots:
            yield ObjectReference(SavedObjectType.DATA_VIEW, data_view_id(prefix), _BOT_FILTER_REFERENCE)

    def _panel_id(self, prefix: str, panel: Panel) -> str:
        return f"{self.saved_object_id(prefix)}-{panel.name}"


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
