"""How long visitors stay on items.

Stays need the order of a session's events (see `metronome.reports.dwell_time`), which takes time for each event. So of
a busy range, a page reads only the newest days or hours that have enough views, and of these the newest sessions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Final

from metronome.page.labels import range_text
from metronome.page.view import Span, View
from metronome.reports.dwell_time import dwell_times, percentiles
from metronome.reports.flow import ItemFlow, item_path
from metronome.reports.parameters import IS_VIEW, IS_VIEW_OR_DOWNLOAD, item_filter
from metronome.reports.query.series import list_time_units
from metronome.reports.sample import SampleLimits, SequenceSample
from metronome.reports.sessions import cut_sessions
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Exists
from metronome.times import from_milliseconds, parse_time_unit

ENOUGH_VIEWS: Final = 1_000
"""The newest time units that together have this many views are read."""
LIMITS: Final = SampleLimits(sequences=300, total_events=10_000)
_FIELDS: Final = ("id", "event", "visitor")
CHART_LIMITS: Final = SampleLimits()
"""A chart has a median for each of its bars, so it needs more sessions."""


@dataclass(frozen=True, slots=True)
class Stays:
    """Stays of known length, and the flow around an item in the same sessions.

    Attributes:
        lengths: their lengths, in milliseconds.
        starts: when the session of each starts, in milliseconds since 1970.
        span: the range that was read.
        is_complete: whether these are all stays of the range that was asked for.
        flow: what precedes and follows the item of the view; None if the view is about all items.

    """

    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    span: Span
    is_complete: bool
    flow: ItemFlow | None = None

    @property
    def median(self) -> float | None:
        """The median length in milliseconds; None without stays."""
        return percentiles(list(self.lengths))["p50"]

    def note(self, view: View) -> str:
        """Return what the median is about, as a sentence."""
        text = "The median time from the view of an item to the next event of another item, or to the last heartbeat."
        if self.is_complete:
            return text
        newest = range_text(self.span.start, self.span.end, view.zone)
        return f"{text} Estimated from the newest sessions of {newest}."

    def medians_by(self, unit: str, view: View) -> dict[str, float]:
        """Return the median length of the stays in the sessions that start in each time unit, by its label."""
        if not self.starts:
            return {}
        labels = list_time_units(unit, self.span.start, self.span.end, view.zone)
        bounds = [parse_time_unit(label, unit, view.zone) for label in labels[1:]]
        lengths: dict[str, list[int]] = {}
        at = 0
        for start, length in sorted(zip(self.starts, self.lengths, strict=True)):
            while at < len(bounds) and from_milliseconds(start) >= bounds[at]:
                at += 1
            lengths.setdefault(labels[at], []).append(length)
        return {label: median(values) for label, values in lengths.items()}


def newest_units(
    view: View, span: Span, unit: str, views: Mapping[str, float | None], enough: int = ENOUGH_VIEWS
) -> Span:
    """Return the end of a range, from the start of a time unit on, that has enough views; else the whole range.

    Args:
        view: has the time zone.
        span: the range.
        unit: the kind of the time units.
        views: the number of views by the units' labels.
        enough: how many views are enough.

    """
    starts = {parse_time_unit(label, unit, view.zone): count or 0 for label, count in views.items()}
    total = 0.0
    for start in sorted(starts, reverse=True):
        if start < span.end:
            total += starts[start]
            if total >= enough:
                return Span(max(span.start, start), span.end)
    return span


async def read_stays(store: Store, view: View, span: Span, newest: Span, limits: SampleLimits = LIMITS) -> Stays:
    """Read the stays of a range.

    Args:
        store: has the sessions.
        view: whose item and filters apply.
        span: the range that was asked for.
        newest: the part of it to read.
        limits: how many sessions to read.

    """
    selecting = IS_VIEW if view.item is None else IS_VIEW_OR_DOWNLOAD
    sample = SequenceSample(
        store,
        "session",
        _FIELDS,
        view.parameters(newest.start, newest.end),
        selecting=AllOf((selecting, item_filter(view.item))),
        included=Exists("event"),
        limits=limits,
    )
    flow = None if view.item is None else ItemFlow(view.item, 1)
    lengths, starts = [], []
    async for sequence in sample:
        for session in cut_sessions(sequence, _FIELDS.index("visitor")):
            for stay in dwell_times(session.events):
                if view.item is None or stay.item == view.item:
                    lengths.append(stay.milliseconds)
                    starts.append(session.events[0].timestamp_ms)
            if flow is not None:
                flow.add(item_path(session))
    is_complete = sample.is_complete and newest == span
    return Stays(tuple(lengths), tuple(starts), newest, is_complete, flow)
