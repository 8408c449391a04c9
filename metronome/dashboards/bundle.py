"""All that Kibana is given: the data view, the panels, and the dashboards that they stand on."""

from typing import Final

from metronome.dashboards.dashboard import Dashboard
from metronome.dashboards.data_view import build_data_view
from metronome.dashboards.health import HEALTH
from metronome.dashboards.objects import Json
from metronome.dashboards.performance import PERFORMANCE
from metronome.dashboards.usage import USAGE

DASHBOARDS: Final[tuple[Dashboard, ...]] = (USAGE, PERFORMANCE, HEALTH)


def build_saved_objects(prefix: str) -> list[Json]:
    """Return all saved objects for the events under an index prefix.

    Their ids begin with the prefix, so that those of several installations can stand in one Kibana, and are always
    the same, so that an import takes the place of an earlier one.
    """
    return [build_data_view(prefix), *(one for dashboard in DASHBOARDS for one in dashboard.to_saved_objects(prefix))]


def dashboard_ids(prefix: str) -> list[str]:
    """Return the ids of the dashboards, for the events under an index prefix."""
    return [dashboard.saved_object_id(prefix) for dashboard in DASHBOARDS]
