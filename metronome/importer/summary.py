"""Counts of an import or a replay, and their report at the end."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

MAX_LISTED_LINES: Final = 5
"""How many rejected or unreadable lines are listed with their reasons."""


_EXCERPT_CHARACTERS: Final = 100


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

    """

    lines: int = 0
    skipped: int = 0
    events: Counter[str] = field(default_factory=Counter)
    unreadable: RejectedLines = field(default_factory=RejectedLines)
    accepted: int = 0
    rejected: RejectedLines = field(default_factory=RejectedLines)
    with_item: int = 0
    without_item: list[str] = field(default_factory=list)

    def add_event(self, fields: Mapping[str, Any]) -> None:
        """Count a request."""
        self.events[fields["event"]] += 1
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
            ("  errors", self.events["error"]),
            ("  other requests", self.events["request"]),
            *([("  no requests", self.skipped)] if self.skipped else []),
            ("  unreadable", self.unreadable.count),
            *(responses if sent else []),
        ]
        return [
            *format_counts(rows, self.lines, "lines", seconds),
            *([] if sent else ["dry run: no events were sent"]),
            *self.unreadable.format("could not be read"),
            *self.rejected.format("rejected by the server"),
        ]
