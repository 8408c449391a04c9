"""The reports that measure values by time: one series of all, or one for each value of a tag."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from metronome.question import AllOf, Exists, Filter, Metric, Order, Question
from metronome.reports.micrometrics.filters import PERIODS, Asked
from metronome.reports.micrometrics.limits import MAX_ROWS, check_whole, too_much
from metronome.stores.store import Store

Number = int | float

_MEASURES: Final = ("sum", "avg", "max", "min")
_METRICS: Final = tuple(Metric.parse(f"{measure}:value") for measure in _MEASURES)
_LENGTHS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_EXACT_BELOW: Final = 2.0**53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST: Final = timedelta(milliseconds=1)


async def aggregate(store: Store, asked: Asked) -> list[dict[str, Any]]:
    """Answer with the measures of values, for each day, hour or minute (UTC) of the time that is asked for.

    Returns:
        ``dateString`` (a stamp), ``date`` (its milliseconds, as text), ``sum``, ``avg``, ``max`` and ``min``, oldest
        first, zeros where nothing was. Without a beginning, the first is that of the first document; without
        an end, the last is now, or that of the last document.

    Raises:
        Unaskable: there would be too many.

    """
    start = asked.start if asked.start is not None else await _first_day(store, asked)
    if start is None:
        return []
    # The moment that the time asked for ends at is no length of time any more.
    end = asked.now if asked.end is None else asked.end - _LEAST
    length = _LENGTHS[asked.period]
    begin = _floor(start, length)
    if (end - begin) / length > MAX_ROWS:
        raise too_much(f"over {MAX_ROWS} rows for period={asked.period}")
    (answer,) = await store.ask(_question(asked, asked.where, (PERIODS[asked.period],)))
    found = {_moment(row[0]): row[1:] for row in check_whole(answer).rows}
    if asked.start is None and found:
        begin = min(found)
    moments = sorted({*_moments(begin, end, length), *found})
    return [_row(moment, found.get(moment, (None,) * len(_MEASURES))) for moment in moments]


async def groupby(store: Store, asked: Asked, tag: str) -> dict[str, list[dict[str, Any]]]:
    """Answer with the measures of values, for each value of a tag, by days, hours or minutes (UTC).

    Args:
        store: what is asked.
        asked: which documents.
        tag: its name.

    Returns:
        For each value that the tag has in them, as text, what there was, oldest first, each with its time as
        ``_id``: ``day``, ``month``, ``year``, and as the period is shorter ``hour`` and ``minute``.

    Raises:
        Unaskable: there would be too many.

    """
    field = f"tags.{tag}"
    unit = PERIODS[asked.period]
    (answer,) = await store.ask(_question(asked, AllOf((asked.where, Exists(field))), (field, unit)))
    groups: dict[str, list[dict[str, Any]]] = {}
    for value, moment, *measures in check_whole(answer).rows:
        here = {"_id": _identity(_moment(moment), asked.period), **_measures(tuple(measures))}
        groups.setdefault(str(value), []).append(here)
    return groups


async def _first_day(store: Store, asked: Asked) -> datetime | None:
    first = Question(by=("day",), where=asked.where, end=asked.end, order=(Order("day"),), limit=1)
    (answer,) = await store.ask(first)
    return _moment(answer.rows[0][0]) if answer.rows else None


def _question(asked: Asked, where: Filter, by: tuple[str, ...]) -> Question:
    return Question(metrics=_METRICS, by=by, where=where, start=asked.start, end=asked.end, limit=MAX_ROWS)


def _moments(begin: datetime, end: datetime, length: timedelta) -> Iterator[datetime]:
    moment = begin
    while moment < end:
        yield moment
        moment += length


def _row(moment: datetime, measures: tuple[Any, ...]) -> dict[str, Any]:
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"dateString": text, "date": str((moment - _EPOCH) // _LEAST), **_measures(measures)}


def _measures(numbers: tuple[Any, ...]) -> dict[str, Number]:
    return {name: _number(number) for name, number in zip(_MEASURES, numbers, strict=True)}


def _number(number: float | None) -> Number:
    """Write a number as JavaScript does: none has a point for nothing."""
    if number is None:
        return 0
    return int(number) if number == int(number) and abs(number) < _EXACT_BELOW else number


def _identity(moment: datetime, period: str) -> dict[str, int]:
    identity = {"day": moment.day, "month": moment.month, "year": moment.year}
    if period != "d":
        identity["hour"] = moment.hour
    if period == "m":
        identity["minute"] = moment.minute
    return identity


def _floor(moment: datetime, length: timedelta) -> datetime:
    return moment - (moment - _EPOCH) % length


def _moment(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    return found if found.tzinfo else found.replace(tzinfo=UTC)
