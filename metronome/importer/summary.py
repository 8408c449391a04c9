"""What an import counts, and how it is told at the end."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_LISTED_LINES: Final = 5
"""How many lines that could not be taken are shown with their reasons."""


class RejectedLine(NamedTuple):
    """Why one line was not taken.

    Attributes:
        log: the name of its log.
        place: where in it the line is: ``line 60``.
        reason: why it was not taken.

    """

    log: str
    location: str
    reason: str


@dataclass(slots=True)
class RejectedLines:
    """How many lines were not taken, the first of them, and the last."""

    count: int = 0
    first: list[RejectedLine] = field(default_factory=list)
    last: RejectedLine | None = None

    def add(self, log: str, location: str, reason: str) -> None:
        """Count one more line that was not taken."""
        self.count += 1
        self.last = RejectedLine(log, location, reason)
        if len(self.first) < MAX_LISTED_LINES:
            self.first.append(self.last)

    def format(self, title: str) -> list[str]:
        """Tell the first lines and their reasons, or nothing if there are none."""
        if not self.count:
            return []
        more = self.count - len(self.first)
        lines = [f"  {note.log}, {note.location}: {sanitize_for_terminal(note.reason)}" for note in self.first]
        return ["", f"{title}:", *lines, *([f"  and {more:,} more"] if more else [])]


@dataclass(slots=True)
class ImportSummary:
    """What an import has read and what the server said to it.

    Attributes:
        lines: how many lines were read; empty ones do not count.
        passed: how many of them are no hits and need not be: directives, and what else a server tells.
        events: how many hits were read, by the name of their event.
        unreadable: lines that are none of the log's format.
        accepted: how many events are on the server's disk.
        rejected: events that the server does not take.

    """

    lines: int = 0
    skipped: int = 0
    events: Counter[str] = field(default_factory=Counter)
    unreadable: RejectedLines = field(default_factory=RejectedLines)
    accepted: int = 0
    rejected: RejectedLines = field(default_factory=RejectedLines)

    @property
    def readable(self) -> int:
        """How many lines could be read."""
        return self.lines - self.unreadable.count

    @property
    def acknowledged(self) -> int:
        """How many lines the server has answered for."""
        return self.accepted + self.rejected.count

    def format(self, seconds: float, *, sent: bool) -> str:
        """Tell everything that was counted, as a small table.

        Args:
            seconds: how long it took.
            sent: whether a server was to have the events.

        """
        answered = [("accepted by the server", self.accepted), ("rejected by the server", self.rejected.count)]
        rows = [
            ("lines read", self.lines),
            ("  views", self.events["view"]),
            ("  downloads", self.events["download"]),
            ("  errors", self.events["error"]),
            ("  other requests", self.events["request"]),
            *([("  no hits", self.skipped)] if self.skipped else []),
            ("  unreadable", self.unreadable.count),
            *(answered if sent else []),
        ]
        rate = self.lines / seconds if seconds > 0 else 0.0
        return "\n".join(
            [
                *(f"{name:<24}{count:>14,}" for name, count in rows),
                f"{'time':<24}{seconds:>12,.1f} s  ({rate:,.0f} lines/s)",
                *([] if sent else ["dry run: nothing was sent"]),
                *self.unreadable.format("could not be read"),
                *self.rejected.format("rejected by the server"),
            ]
        )


def sanitize_for_terminal(text: str) -> str:
    """Replace what could steer a terminal: a log holds whatever strangers asked a web server for."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
