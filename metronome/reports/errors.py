"""Errors: when they happened, which ones, in which browsers, and how many sessions they hit."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from metronome.reports.parameters import Parameters
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Answer, Equals, Exists, Filter, Metric, Not, OneOf, Order, Question

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})

_ERROR: Final = Equals("event", "error")
_SESSIONS: Final = Metric.parse("sessions")
_FIRST: Final = Metric.parse("first")
_LAST: Final = Metric.parse("last")
_NO_VERSION: Final = Not(Exists("browser_version"))
_BROWSER: Final = ("browser", "browser_version")
_SHARE_DIGITS: Final = 4


async def errors(store: Store, item: str | None, asked: Parameters) -> dict[str, Any]:
    """Answer which errors there were.

    Args:
        store: what is asked.
        item: the item's id, or None for the errors of all items, and of none.
        asked: the range, the zone of days, and how many messages, browsers and items at most.

    Returns:
        ``days``, newest first, without empty ones; ``messages``, most first, each with its ``count``, the
        ``sessions`` that it hit, and stamps of the ``first`` and ``last``; ``browsers`` likewise, each with its
        ``version``, None where that is not known; and ``session_share``, the share of the sessions with any event
        (of the item) in the range that an error hit, to four digits, None where there are none. Messages are alike
        where they differ in numbers and ids only (``error_group``). Without an item also ``items``, those
        that most errors were about. ``exact: false`` is added where a store could only estimate.

    """
    ask = _Asking(asked, () if item is None else (Equals("id", item),))
    counts = await store.ask(
        replace(ask.count("day"), limit=None),
        ask.count("error_group", more=(_FIRST, _LAST)),
        ask.count(*_BROWSER),
        # A group that lacks a value is in no answer.
        ask.count("browser", only=(_NO_VERSION,)),
        *([ask.count("id")] if item is None else []),
    )
    days, messages, versions, versionless, *items = counts
    browsers = _browsers(versions, versionless)[: asked.limit]
    names, numbers = (_among(name, {each[at] for each in browsers}) for at, name in enumerate(_BROWSER))
    # To count distinct sessions takes memory for each group, so it is done for those only that are told.
    distinct = await store.ask(
        ask.sessions(only=(_ERROR,)),
        ask.sessions(),
        ask.sessions("error_group", only=(_ERROR, _among("error_group", {row[0] for row in messages.rows}))),
        ask.sessions(*_BROWSER, only=(_ERROR, names, numbers)),
        ask.sessions("browser", only=(_ERROR, names, _NO_VERSION)),
    )
    hit, every, by_message, by_version, by_browser = distinct
    of_message = by_message.mapping()
    of_browser = {(*row[:2],): row[2] for row in by_version.rows} | {(row[0], None): row[1] for row in by_browser.rows}
    answer: dict[str, Any] = {
        "days": dict(sorted(days.mapping().items(), reverse=True)),
        "messages": [
            {"message": group, "count": number, "sessions": of_message.get(str(group), 0), "first": first, "last": last}
            for group, number, first, last in messages.rows
        ],
        "browsers": [
            {"browser": name, "version": version, "count": number, "sessions": of_browser.get((name, version), 0)}
            for name, version, number in browsers
        ],
        "session_share": _share(hit, every),
    }
    for found in items:
        answer["items"] = [{"id": one, "count": number} for one, number in found.rows]
    if not all(each.exact for each in (*counts, *distinct)):
        answer["exact"] = False
    return answer


@dataclass(frozen=True, slots=True)
class _Asking:
    """Asks of what happened to an item, or to all.

    Attributes:
        asked: the range, and how many groups at most.
        about: which events.

    """

    asked: Parameters
    about: tuple[Filter, ...]

    def count(self, *by: str, only: tuple[Filter, ...] = (), more: tuple[Metric, ...] = ()) -> Question:
        """Count errors in groups, most first."""
        asked, most = self.asked, Order("count", descending=True)
        where = asked.only(*self.about, _ERROR, *only)
        return Question((COUNT, *more), by, where, asked.start, asked.end, asked.tz, (most,), asked.limit)

    def sessions(self, *by: str, only: tuple[Filter, ...] = ()) -> Question:
        """Count the sessions of events."""
        return Question((_SESSIONS,), by, self.asked.only(*self.about, *only), self.asked.start, self.asked.end)


def _browsers(versions: Answer, versionless: Answer) -> list[tuple[str, str | None, int]]:
    """List browsers with their versions, None where that is not known, and their errors, most first."""
    found: list[tuple[str, str | None, int]] = [
        *((str(name), str(version), int(number or 0)) for name, version, number in versions.rows),
        *((str(name), None, int(number or 0)) for name, number in versionless.rows),
    ]
    return sorted(found, key=lambda each: (-each[2], each[0], each[1] or ""))


def _among(field: str, values: Iterable[object]) -> OneOf:
    return OneOf(field, tuple(sorted(str(value) for value in values if value is not None)))


def _share(hit: Answer, every: Answer) -> float | None:
    (with_error,), (sessions,) = hit.rows[0], every.rows[0]
    # What is estimated may be more than all that there is.
    return round(min(1.0, float(with_error or 0) / float(sessions)), _SHARE_DIGITS) if sessions else None
