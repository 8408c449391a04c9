"""Series as they are drawn: with a place for each unit of time, also for those in which nothing was."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from metronome.errors import TooCostly
from metronome.question import read_zone
from metronome.reports.query.series import begin_of, units

_LEAST: Final = timedelta(microseconds=1)


def whole_series(
    values: Mapping[str, float | None], unit: str, tz: str, nothing: float | None = 0
) -> dict[str, float | None]:
    """Return a series in the order of time, from its first unit to its last, with all that lie between.

    Args:
        values: by the units that have any.
        unit: minute, hour, day, week or month.
        tz: the zone that these are in.
        nothing: the value of the others. Where they are far too many, they are left out.

    """
    zone = read_zone(tz)
    begins = {label: begin_of(label, unit, zone) for label in values}
    if not begins:
        return {}
    try:
        between = units(unit, min(begins.values()), max(begins.values()) + _LEAST, zone)
    except TooCostly:
        between = []
    begins |= {label: begin_of(label, unit, zone) for label in between}
    return {label: values.get(label, nothing) for label in sorted(begins, key=begins.__getitem__)}
