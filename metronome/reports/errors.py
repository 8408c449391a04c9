"""Errors: when they occurred, their messages and browsers, and how many sessions had one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from metronome.reports.parameters import ReportParameters, exactness_fields, partial_fields, rounded_share
from metronome.stores.base import Store
from metronome.stores.query import COUNT, Equals, Exists, Filter, Metric, Not, OneOf, Query, QueryResult, SortKey

PARAMETERS: Final = frozenset({"from", "to", "tz", "limit", "bots"})

_IS_ERROR: Final = Equals("event", "error")
_SESSIONS: Final = Metric.parse("sessions")
_FIRST_SEEN: Final = Metric.parse("first")
_LAST_SEEN: Final = Metric.parse("last")
_WITHOUT_VERSION: Final = Not(Exists("browser_version"))
_BROWSER_FIELDS: Final = ("browser", "browser_version")


async def errors_report(store: Store, item: str | None, parameters: ReportParameters) -> dict[str, Any]:
    """Return which errors occurred.

    Args:
        store: runs the queries.
        item: the item ID, or None for the errors of all items and those without an item.
        parameters: the range, the time zone of days, and maximum number of messages, browsers and items.

    Returns:
        ``days``, newest first, without empty ones; ``messages``, most frequent first, each with its ``count``, the
        number of ``sessions`` with it, and the times of the ``first`` and ``last``; ``browsers``, also most frequent
        first, each with its ``version``, None if unknown; and ``session_share``, the share of sessions (with the item)
        that had an error, None without sessions. Messages that differ only in numbers and IDs count as one
        (``error_group``). Without an item also ``items``, those with the most errors. ``exact: false`` is added if the
        store estimated.

    """
    queries = _ErrorQueries(parameters, () if item is None else (Equals("id", item),))
    counts = await store.query(
        replace(queries.count_errors("day"), limit=None),
        queries.count_errors("error_group", extra_metrics=(_FIRST_SEEN, _LAST_SEEN)),
        queries.count_errors(*_BROWSER_FIELDS),
        # Queries omit groups that lack a value.
        queries.count_errors("browser", filters=(_WITHOUT_VERSION,)),
        *([queries.count_errors("id")] if item is None else []),
    )
    days, messages, versions, versionless, *items = counts
    browsers = _rank_browsers(versions, versionless)[: parameters.limit]
    is_browser, is_version = (
        _one_of(name, {browser[at] for browser in browsers}) for at, name in enumerate(_BROWSER_FIELDS)
    )
    is_message = _one_of("error_group", {row[0] for row in messages.rows})
    # Counting distinct sessions takes memory for each group, so it is done only for groups in the report.
    session_counts = await store.query(
        queries.count_sessions(filters=(_IS_ERROR,)),
        queries.count_sessions(),
        queries.count_sessions("error_group", filters=(_IS_ERROR, is_message)),
        queries.count_sessions(*_BROWSER_FIELDS, filters=(_IS_ERROR, is_browser, is_version)),
        queries.count_sessions("browser", filters=(_IS_ERROR, is_browser, _WITHOUT_VERSION)),
    )
    with_errors, all_sessions, by_message, by_version, by_browser = session_counts
    message_sessions = by_message.to_dict()
    browser_sessions: dict[tuple[object, ...], Any] = {row[:2]: row[2] for row in by_version.rows}
    browser_sessions |= {(row[0], None): row[1] for row in by_browser.rows}
    report: dict[str, Any] = {
        "days": dict(sorted(days.to_dict().items(), reverse=True)),
        "messages": [
            {
                "message": message,
                "count": count,
                "sessions": message_sessions.get(str(message), 0),
                "first": first,
                "last": last,
            }
            for message, count, first, last in messages.rows
        ],
        "browsers": [
            {
                "browser": name,
                "version": version,
                "count": count,
                "sessions": browser_sessions.get((name, version), 0),
            }
            for name, version, count in browsers
        ],
        "session_share": rounded_share(_single_number(with_errors), _single_number(all_sessions)),
    }
    for result in items:
        report["items"] = [{"id": item_id, "count": count} for item_id, count in result.rows]
    return report | exactness_fields(*counts, *session_counts) | partial_fields(parameters, "day", report["days"])


@dataclass(frozen=True, slots=True)
class _ErrorQueries:
    """Builds queries about the events that *filters* match."""

    parameters: ReportParameters
    filters: tuple[Filter, ...]

    def count_errors(self, *by: str, filters: tuple[Filter, ...] = (), extra_metrics: tuple[Metric, ...] = ()) -> Query:
        """Count errors in groups, most frequent first."""
        return Query(
            metrics=(COUNT, *extra_metrics),
            group_by=by,
            where=self.parameters.build_filter(*self.filters, _IS_ERROR, *filters),
            start=self.parameters.start,
            end=self.parameters.end,
            time_zone=self.parameters.tz,
            sort_keys=(SortKey("count", descending=True),),
            limit=self.parameters.limit,
        )

    def count_sessions(self, *by: str, filters: tuple[Filter, ...] = ()) -> Query:
        """Count the sessions of events in groups."""
        return Query(
            metrics=(_SESSIONS,),
            group_by=by,
            where=self.parameters.build_filter(*self.filters, *filters),
            start=self.parameters.start,
            end=self.parameters.end,
        )


def _rank_browsers(versions: QueryResult, without_version: QueryResult) -> list[tuple[str, str | None, int]]:
    """Return browsers with their versions, None if unknown, and their errors, most frequent first."""
    browsers: list[tuple[str, str | None, int]] = [
        *((str(name), str(version), int(count or 0)) for name, version, count in versions.rows),
        *((str(name), None, int(count or 0)) for name, count in without_version.rows),
    ]
    return sorted(browsers, key=lambda browser: (-browser[2], browser[0], browser[1] or ""))


def _one_of(field: str, values: Iterable[object]) -> OneOf:
    return OneOf(field, tuple(sorted(str(value) for value in values if value is not None)))


def _single_number(result: QueryResult) -> float:
    return float(result.rows[0][0] or 0)
