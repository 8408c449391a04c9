"""What an import counts, and how it is told at the end."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SHOWN: Final = 5
"""How many lines that could not be taken are shown with their reasons."""


class Note(NamedTuple):
    """Why one line was not taken.

    Attributes:
        log: the name of its log.
        place: where in it the line is: ``line 60``.
        reason: why it was not taken.

    """

    log: str
    place: str
    reason: str


@dataclass(slots=True)
class Notes:
    """How many lines were not taken, the first of them, and the last."""

    count: int = 0
    first: list[Note] = field(default_factory=list)
    last: Note | None = None

    def add(self, log: str, place: str, reason: str) -> None:
        """Count one more line that was not taken."""
        self.count += 1
        self.last = Note(log, place, reason)
        if len(self.first) < SHOWN:
            self.first.append(self.last)

    def told(self, title: str) -> list[str]:
        """Tell the first lines and their reasons, or nothing if there are none."""
        if not self.count:
            return []
        more = self.count - len(self.first)
        lines = [f"  {note.log}, {note.place}: {printable(note.reason)}" for note in self.first]
        return ["", f"{title}:", *lines, *([f"  and {more:,} more"] if more else [])]


@dataclass(slots=True)
class Tally:
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
    passed: int = 0
    events: Counter[str] = field(default_factory=Counter)
    unreadable: Notes = field(default_factory=Notes)
    accepted: int = 0
    rejected: Notes = field(default_factory=Notes)

    @property
    def readable(self) -> int:
        """How many lines could be read."""
        return self.lines - self.unreadable.count

    @property
    def acknowledged(self) -> int:
        """How many lines the server has answered for."""
        return self.accepted + self.rejected.count

    def summary(self, seconds: float, *, sent: bool) -> str:
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
            *([("  no hits", self.passed)] if self.passed else []),
            ("  unreadable", self.unreadable.count),
            *(answered if sent else []),
        ]
        rate = self.lines / seconds if seconds > 0 else 0.0
        return "\n".join(
            [
                *(f"{name:<24}{count:>14,}" for name, count in rows),
                f"{'time':<24}{seconds:>12,.1f} s  ({rate:,.0f} lines/s)",
                *([] if sent else ["dry run: nothing was sent"]),
                *self.unreadable.told("could not be read"),
                *self.rejected.told("rejected by the server"),
            ]
        )


def printable(text: str) -> str:
    """Replace what could steer a terminal: a log holds whatever strangers asked a web server for."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
