"""Counts of an import or a replay, and their report at the end."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from metronome.enrich.user_agents import is_robot
from metronome.importer.storing import Stored

MAX_LISTED_LINES: Final = 5
"""How many rejected or unreadable lines are listed with their reasons."""


_EXCERPT_CHARACTERS: Final = 100
_VISIT_EVENTS: Final = ("view", "download")
_TOP: Final = 10
_MAX_NAMES: Final = 100_000


class RejectedLine(NamedTuple):
    """A line that was not imported.

    Attributes:
        log: name of its log, or path of its archive object.
        location: where in the log the line is, such as ``line 60``.
        reason: why it was not imported.

    """

    log: str
    location: str
    reason: str


@dataclass(slots=True)
class RejectedLines:
    """Lines that were not imported: their number, the first few and the last."""

    count: int = 0
    first: list[RejectedLine] = field(default_factory=list)
    last: RejectedLine | None = None

    def add(self, log: str, location: str, reason: str) -> None:
        """Count a line."""
        self.count += 1
        self.last = RejectedLine(log, location, reason)
        if len(self.first) < MAX_LISTED_LINES:
            self.first.append(self.last)

    def format(self, title: str) -> list[str]:
        """Return the first lines and their reasons below a title; nothing if there are none."""
        if not self.count:
            return []
        more = self.count - len(self.first)
        lines = [f"  {line.log}, {line.location}: {line.reason}" for line in self.first]
        return ["", f"{title}:", *lines, *([f"  and {more:,} more"] if more else [])]


def format_counts(rows: Iterable[tuple[str, int]], total: int, unit: str, seconds: float) -> list[str]:
    """Return counts as a table, with the rate at which *total* of a unit were processed."""
    rate = total / seconds if seconds > 0 else 0.0
    table = [f"{name:<24}{count:>14,}" for name, count in rows]
    return [*table, f"{'time':<24}{seconds:>12,.1f} s  ({rate:,.0f} {unit}/s)"]


@dataclass(slots=True)
class Details:
    """What a dry run shows of the requests, in bounded memory.

    Attributes:
        items: views and downloads by item.
        formats: downloads by format.
        others: requests that are neither, by method, path and status.

    """

    items: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, fields: Mapping[str, Any]) -> None:
        """Count a request."""
        event = fields["event"]
        if event in _VISIT_EVENTS:
            _count(self.items, str(fields.get("id", "")))
            if "format" in fields:
                _count(self.formats, str(fields["format"]))
        else:
            parts = (fields.get("method"), str(fields.get("url", "")).partition("?")[0], fields.get("status"))
            _count(self.others, " ".join(str(part)[:_EXCERPT_CHARACTERS] for part in parts if part))

    def format(self) -> list[str]:
        """Return the most frequent ones as lines."""
        titles = (
            ("items", self.items),
            ("download formats", self.formats),
            ("neither views nor downloads", self.others),
        )
        return [line for title, counts in titles if counts for line in _format_top(title, counts)]


def _count(counts: Counter[str], name: str) -> None:
    if name in counts or len(counts) < _MAX_NAMES:
        counts[name] += 1


def _format_top(title: str, counts: Counter[str]) -> list[str]:
    top = [f"{count:>10,}  {name}" for name, count in counts.most_common(_TOP)]
    more = len(counts) - len(top)
    return ["", f"{title}:", *top, *([f"{'':>10}  and {more:,} more"] if more else [])]


@dataclass(slots=True)
class ImportSummary:
    """What an import has read, and what the server accepted.

    Attributes:
        lines: lines read, without empty ones.
        skipped: lines that are not requests and need not be: directives and other remarks of the web server.
        events: requests read, by the name of their event.
        unreadable: lines that do not have the log's format.
        accepted: events that are on the server's disk.
        rejected: events that the server rejects.
        with_item: requests of an item.
        without_item: targets of the first requests without one.
        by_robots: views and downloads by robots.
        details: None to collect none.
        stored: what the store has of the accepted events; None if that is not known.

    """

    lines: int = 0
    skipped: int = 0
    events: Counter[str] = field(default_factory=Counter)
    unreadable: RejectedLines = field(default_factory=RejectedLines)
    accepted: int = 0
    rejected: RejectedLines = field(default_factory=RejectedLines)
    with_item: int = 0
    without_item: list[str] = field(default_factory=list)
    by_robots: int = 0
    details: Details | None = None
    stored: Stored | None = None

    def add_event(self, fields: Mapping[str, Any]) -> None:
        """Count a request."""
        event = fields["event"]
        self.events[event] += 1
        if event in _VISIT_EVENTS and type(agent := fields.get("agent")) is str and is_robot(agent):
            self.by_robots += 1
        if self.details is not None:
            self.details.add(fields)
        if "id" in fields:
            self.with_item += 1
        elif len(self.without_item) < MAX_LISTED_LINES and type(url := fields.get("url")) is str:
            self.without_item.append(url[:_EXCERPT_CHARACTERS])

    @property
    def unmatched(self) -> str | None:
        """What to say if no request had an item; None if one had."""
        if self.with_item or not self.without_item:
            return None
        return f"the item pattern matched no request: it was searched in {', '.join(self.without_item)}, for instance"

    @property
    def readable(self) -> int:
        """Number of lines that could be read."""
        return self.lines - self.unreadable.count

    @property
    def acknowledged(self) -> int:
        """Number of lines for which the server has responded."""
        return self.accepted + self.rejected.count

    def add_result(self, log: str, accepted: int, rejected: Iterable[tuple[str, str]]) -> None:
        """Count the server's response to a batch of a log.

        Args:
            log: name of the log.
            accepted: number of accepted events.
            rejected: location and reason of each rejected event.

        """
        self.accepted += accepted
        for location, reason in rejected:
            self.rejected.add(log, location, reason)

    def format(self, seconds: float, *, sent: bool) -> list[str]:
        """Return all counts as lines of a table.

        Args:
            seconds: duration of the import.
            sent: whether the events were sent to a server.

        """
        responses = [("accepted by the server", self.accepted), ("rejected by the server", self.rejected.count)]
        rows = [
            ("lines read", self.lines),
            ("  views", self.events["view"]),
            ("  downloads", self.events["download"]),
            *([("    of these by robots", self.by_robots)] if self.by_robots else []),
            ("  errors", self.events["error"]),
            ("  other requests", self.events["request"]),
            *([("  no requests", self.skipped)] if self.skipped else []),
            ("  unreadable", self.unreadable.count),
            *(responses if sent else []),
            *self._stored_rows(),
        ]
        return [
            *format_counts(rows, self.lines, "lines", seconds),
            *self._stored_notes(),
            *([] if sent else ["dry run: no events were sent"]),
            *(self.details.format() if self.details is not None else []),
            *self.unreadable.format("could not be read"),
            *self.rejected.format("rejected by the server"),
        ]

    def _stored_rows(self) -> list[tuple[str, int]]:
        if self.stored is None or not self.stored.is_complete:
            return []
        counters = self.stored.counters
        if counters is None:
            return [("stored", self.accepted)]
        rows = [("stored", counters.new + counters.known), ("  new", counters.new), ("  known before", counters.known)]
        return [*rows, *([("rejected by the store", counters.dead)] if counters.dead else [])]

    def _stored_notes(self) -> list[str]:
        if self.stored is None or self.stored.counters is not None or not self.stored.is_complete:
            return []
        return [f"how many of them the store had before is not known: {self.stored.reason}"]
