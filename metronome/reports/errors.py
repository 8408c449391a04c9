"""Errors: when they happened, which ones, in which browsers, and how many sessions they hit."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Equals, Exists, Filter, Metric, Not, OneOf, Query, QueryResult, SortKey

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})

_ERROR: Final = Equals("event", "error")
_SESSIONS: Final = Metric.parse("sessions")
_FIRST_SEEN: Final = Metric.parse("first")
_LAST_SEEN: Final = Metric.parse("last")
_WITHOUT_VERSION: Final = Not(Exists("browser_version"))
_BROWSER_FIELDS: Final = ("browser", "browser_version")
_SHARE_DIGITS: Final = 4


async def errors_report(store: Store, item: str | None, parameters: ReportParameters) -> dict[str, Any]:
    """Answer which errors there were.

    Args:
        store: what is asked.
        item: the item's id, or None for the errors of all items, and of none.
        parameters: the range, the zone of days, and how many messages, browsers and items at most.

    Returns:
        ``days``, newest first, without empty ones; ``messages``, most first, each with its ``count``, the
        ``sessions`` that it hit, and stamps of the ``first`` and ``last``; ``browsers`` likewise, each with its
        ``version``, None where that is not known; and ``session_share``, the share of the sessions with any event
        (of the item) in the range that an error hit, to four digits, None where there are none. Messages are alike
        where they differ in numbers and ids only (``error_group``). Without an item also ``items``, those
        that most errors were about. ``exact: false`` is added where a store could only estimate.

    """
    ask = _ErrorQueries(parameters, () if item is None else (Equals("id", item),))
    counts = await store.query(
        replace(ask.count_errors("day"), limit=None),
        ask.count_errors("error_group", extra_metrics=(_FIRST_SEEN, _LAST_SEEN)),
        ask.count_errors(*_BROWSER_FIELDS),
        # A group that lacks a value is in no answer.
        ask.count_errors("browser", filters=(_WITHOUT_VERSION,)),
        *([ask.count_errors("id")] if item is None else []),
    )
    days, messages, versions, versionless, *items = counts
    browsers = _rank_browsers(versions, versionless)[: parameters.limit]
    names, numbers = (_in_values(name, {each[at] for each in browsers}) for at, name in enumerate(_BROWSER_FIELDS))
    # To count distinct sessions takes memory for each group, so it is done for those only that are told.
    distinct = await store.query(
        ask.count_sessions(filters=(_ERROR,)),
        ask.count_sessions(),
        ask.count_sessions(
            "error_group", filters=(_ERROR, _in_values("error_group", {row[0] for row in messages.rows}))
        ),
        ask.count_sessions(*_BROWSER_FIELDS, filters=(_ERROR, names, numbers)),
        ask.count_sessions("browser", filters=(_ERROR, names, _WITHOUT_VERSION)),
    )
    hit, every, by_message, by_version, by_browser = distinct
    of_message = by_message.to_dict()
    of_browser = {(*row[:2],): row[2] for row in by_version.rows} | {(row[0], None): row[1] for row in by_browser.rows}
    answer: dict[str, Any] = {
        "days": dict(sorted(days.to_dict().items(), reverse=True)),
        "messages": [
            {"message": group, "count": number, "sessions": of_message.get(str(group), 0), "first": first, "last": last}
            for group, number, first, last in messages.rows
        ],
        "browsers": [
            {"browser": name, "version": version, "count": number, "sessions": of_browser.get((name, version), 0)}
            for name, version, number in browsers
        ],
        "session_share": _session_share(hit, every),
    }
    for found in items:
        answer["items"] = [{"id": one, "count": number} for one, number in found.rows]
    if not all(each.exact for each in (*counts, *distinct)):
        answer["exact"] = False
    return answer


@dataclass(frozen=True, slots=True)
class _ErrorQueries:
    """Asks of what happened to an item, or to all.

    Attributes:
        asked: the range, and how many groups at most.
        about: which events.

    """

    parameters: ReportParameters
    filters: tuple[Filter, ...]

    def count_errors(self, *by: str, filters: tuple[Filter, ...] = (), extra_metrics: tuple[Metric, ...] = ()) -> Query:
        """Count errors in groups, most first."""
        asked, most = self.parameters, SortKey("count", descending=True)
        where = asked.build_filter(*self.filters, _ERROR, *filters)
        return Query((COUNT, *extra_metrics), by, where, asked.start, asked.end, asked.tz, (most,), asked.limit)

    def count_sessions(self, *by: str, filters: tuple[Filter, ...] = ()) -> Query:
        """Count the sessions of events."""
        return Query(
            (_SESSIONS,),
            by,
            self.parameters.build_filter(*self.filters, *filters),
            self.parameters.start,
            self.parameters.end,
        )


def _rank_browsers(versions: QueryResult, without_version: QueryResult) -> list[tuple[str, str | None, int]]:
    """List browsers with their versions, None where that is not known, and their errors, most first."""
    found: list[tuple[str, str | None, int]] = [
        *((str(name), str(version), int(number or 0)) for name, version, number in versions.rows),
        *((str(name), None, int(number or 0)) for name, number in without_version.rows),
    ]
    return sorted(found, key=lambda each: (-each[2], each[0], each[1] or ""))


def _in_values(field: str, values: Iterable[object]) -> OneOf:
    return OneOf(field, tuple(sorted(str(value) for value in values if value is not None)))


def _session_share(with_errors: QueryResult, all_sessions: QueryResult) -> float | None:
    (with_error,), (sessions,) = with_errors.rows[0], all_sessions.rows[0]
    # What is estimated may be more than all that there is.
    return round(min(1.0, float(with_error or 0) / float(sessions)), _SHARE_DIGITS) if sessions else None
