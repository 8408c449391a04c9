"""Clicks: what counts of a session's events once double clicks are folded.

The Code of Practice (see `metronome.reports.counter`), section 10.2: of two clicks on the same URL by the same user
within a session with at most 30 seconds between them, the first is removed and the second retained, and "any
additional requests for the same URL within 30 seconds (between clicks)" are treated alike: so of clicks at 0, 20 and 45
seconds only that at 45 stays. Section 10.3: a dataset counts once in a *user session*, which is a logged session id and
the date, else what the user is known by, the date and the hour of the day.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from metronome.stores.query import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf
from metronome.stores.sequences import EventSequence

DOUBLE_CLICK_MS: Final = 30_000
"""The longest time between the two clicks of a double click: "a maximum of 30 seconds" (section 10.2)."""

REQUEST_EVENT: Final = "download"
"""The event that retrieves a dataset; it is an investigation, too (section 6.3)."""

IS_MACHINE: Final = Equals("device", "script")
"""What tells scripts and tools, which count apart, from people (sections 10.5 and 10.6)."""

_COUNTED_STATUSES: Final = ("200", "304")
"""What was answered successfully (section 10.1); where nobody logged a status, a script in the page saw it shown."""

CLICK_FILTER: Final[Filter] = AllOf(
    (
        Exists("id"),
        OneOf("event", ("view", REQUEST_EVENT)),
        Not(Exists("bot")),
        AnyOf((Not(Exists("status")), OneOf("status", _COUNTED_STATUSES))),
    )
)
"""The events that are clicks: what was seen or retrieved of an item, and by no robot."""

CLICK_FIELDS: Final = ("id", "event", "format", "url", "device", "country", "visitor")
"""What clicks are read from (see `parse_clicks`)."""


class Click(NamedTuple):
    """One click.

    Attributes:
        at: when, in milliseconds since 1970.
        item: on what.
        target: what was asked for: two clicks on the same one may be a double click.
        is_request: whether it retrieved the item; else it looked at what is said of it.
        is_machine: whether a script did.
        country: where from, or None.
        month: as ``2015-01``.
        session: tells user sessions of one trail apart: the day's number, and the hour of the day or None.

    """

    timestamp_ms: int
    item: str
    target: tuple[str | None, ...]
    is_request: bool
    is_machine: bool
    country: str | None
    month: str
    user_session: tuple[int, int | None]


def parse_clicks(sequence: EventSequence, zone: ZoneInfo) -> list[Click]:
    """Read the steps of a session's or a visitor's trail, which tell of `CLICK_FIELDS`.

    A trail's key that is the step's visitor was logged by nobody as a session (enrichment names sessions after their
    visitor), so its user sessions are hours of the day; else they are days.

    Args:
        sequence: all clicks of one session, or of one visitor.
        zone: months, days and hours are its.

    """
    clicks = []
    for at, (item, event, form, url, device, country, visitor) in sequence.events:
        local = datetime.fromtimestamp(at / 1000, zone)
        clicks.append(
            Click(
                timestamp_ms=at,
                item=item or "",
                target=(item, event, form, None if url is None else url.partition("#")[0]),
                is_request=event == REQUEST_EVENT,
                is_machine=device == IS_MACHINE.value,
                country=country,
                month=f"{local.year:04}-{local.month:02}",
                user_session=(local.toordinal(), local.hour if sequence.key == visitor else None),
            )
        )
    return clicks


def remove_double_clicks(clicks: Sequence[Click]) -> list[Click]:
    """Remove each click that the next one on the same target follows within `DOUBLE_CLICK_MS`.

    Args:
        clicks: those of one user, oldest first.

    Returns:
        The others, oldest first.

    """
    following: dict[tuple[str | None, ...], int] = {}
    kept = []
    for click in reversed(clicks):
        later = following.get(click.target)
        following[click.target] = click.timestamp_ms
        if later is None or later - click.timestamp_ms > DOUBLE_CLICK_MS:
            kept.append(click)
    kept.reverse()
    return kept
