"""Clicks: the events of a session that count, without double clicks.

The Code of Practice (see `metronome.reports.counter`), section 10.2: of two clicks on the same URL by the same user
within a session with at most 30 seconds between them, the first is removed and the second retained, and "any
additional requests for the same URL within 30 seconds (between clicks)" are treated identically. So of clicks at 0, 20
and 45 seconds, only the one at 45 counts. Section 10.3: a dataset counts once in a *user session*, which is a logged
session ID and the date, or else the user's identity, the date and the hour of the day.
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
"""The event of retrieving a dataset; it is also an investigation (section 6.3)."""

IS_MACHINE: Final = Equals("device", "script")
"""Matches scripts and tools, which are counted separately from people (sections 10.5 and 10.6)."""

_COUNTED_STATUSES: Final = ("200", "304")
"""Successful requests (section 10.1). Events of a script in the page have no status; the page was displayed."""

_PARTIAL_STATUS: Final = "206"
"""Of the parts of a file, only the first is stored as a download (see `metronome.partial_requests`)."""

CLICK_FILTER: Final[Filter] = AllOf(
    (
        Exists("id"),
        OneOf("event", ("view", REQUEST_EVENT)),
        Not(Exists("bot")),
        AnyOf(
            (
                Not(Exists("status")),
                OneOf("status", _COUNTED_STATUSES),
                AllOf((Equals("status", _PARTIAL_STATUS), Equals("event", REQUEST_EVENT))),
            )
        ),
    )
)
"""Matches clicks: views and retrievals of items, without those of robots."""

CLICK_FIELDS: Final = ("id", "event", "format", "url", "device", "country", "visitor")
"""The fields that `parse_clicks` needs."""


class Click(NamedTuple):
    """One click.

    Attributes:
        timestamp_ms: the time, in milliseconds since 1970.
        item: the item ID.
        target: what was requested: two clicks on the same target may be a double click.
        is_request: whether it retrieved the item; else it viewed its description.
        is_machine: whether a script or tool caused it.
        country: of the user, or None.
        month: such as ``2015-01``.
        user_session: distinguishes the user sessions of one event sequence: the number of the day, and the hour of the
            day or None.

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
    """Return the clicks of an event sequence with the values of `CLICK_FIELDS`.

    If the key of the sequence is the visitor, the sender logged no session (enrichment names sessions after their
    visitor), so user sessions are hours of the day; else they are days.

    Args:
        sequence: all clicks of one session or one visitor.
        zone: the time zone that months, days and hours belong to.

    """
    clicks = []
    for timestamp_ms, (item, event, item_format, url, device, country, visitor) in sequence.events:
        local = datetime.fromtimestamp(timestamp_ms / 1000, zone)
        clicks.append(
            Click(
                timestamp_ms=timestamp_ms,
                item=item or "",
                target=(item, event, item_format, None if url is None else url.partition("#")[0]),
                is_request=event == REQUEST_EVENT,
                is_machine=device == IS_MACHINE.value,
                country=country,
                month=f"{local.year:04}-{local.month:02}",
                user_session=(local.toordinal(), local.hour if sequence.key == visitor else None),
            )
        )
    return clicks


def remove_double_clicks(clicks: Sequence[Click]) -> list[Click]:
    """Return clicks without those followed by another on the same target within `DOUBLE_CLICK_MS`.

    Args:
        clicks: those of one user, oldest first.

    """
    next_by_target: dict[tuple[str | None, ...], int] = {}
    remaining = []
    for click in reversed(clicks):
        next_ms = next_by_target.get(click.target)
        next_by_target[click.target] = click.timestamp_ms
        if next_ms is None or next_ms - click.timestamp_ms > DOUBLE_CLICK_MS:
            remaining.append(click)
    remaining.reverse()
    return remaining
