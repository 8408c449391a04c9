"""Funnels: how many sessions take each of several steps, one after the other.

A session takes a step with the first event that matches it after the event of the step before; other events may lie
between. An event is one step only.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from metronome.errors import InvalidQuery
from metronome.fields import is_top_level_name
from metronome.reports.parameters import ReportParameters, excerpt, rounded_share
from metronome.reports.query.request import normalize_filter
from metronome.reports.sample import SequenceSample
from metronome.reports.sessions import cut_sessions
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Exists, Filter, Not, OneOf, Prefix, iterate_field_filters
from metronome.stores.sequences import EventSequence

PARAMETERS: Final = frozenset({"from", "to", "tz", "bots", "step", "within"})
MAX_STEPS: Final = 10
MAX_CONDITIONS: Final = 10
"""Maximum number of conditions in one step."""

_CONDITION: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)([!^]?):(.*)", re.DOTALL)
_SEPARATED: Final = re.compile(r"((?:[^\\,]|\\.)*)(,|\Z)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ANY_VALUE: Final = "*"
_PREFIX_MAX_BYTES: Final = 500
_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h|d)", re.ASCII)
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_EXAMPLE: Final = "step=event:view,id:home&step=event:download"


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a funnel.

    Attributes:
        text: as the client wrote it.
        where: the events that take it.

    """

    text: str
    where: Filter

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it is about."""
        return frozenset(each.field for each in iterate_field_filters(self.where))


@dataclass(frozen=True, slots=True)
class FunnelRequest:
    """What a funnel is asked for.

    Attributes:
        steps: at least two.
        within_ms: the last step must follow the first within this time, in milliseconds; None for any time.

    """

    steps: tuple[Step, ...]
    within_ms: int | None = None


def parse_funnel(steps: Sequence[str], within: Sequence[str] = ()) -> FunnelRequest:
    r"""Parse the steps of a funnel.

    Args:
        steps: conditions separated by commas, all of which an event must match: ``field:value`` (repeated for several
            values of a field), ``field!:value``, ``field^:prefix``, ``field:*`` if there is a value. A comma in a
            value is written ``\,`` and a backslash ``\\``.
        within: a time such as ``30m``; none, or an empty one, for any.

    Raises:
        InvalidQuery: there are too few or too many steps, or one or the time is invalid.

    """
    if len(steps) < 2:  # noqa: PLR2004  # one step is a count
        raise InvalidQuery(f"a funnel has at least two steps: repeat step, as in {_EXAMPLE}")
    if len(steps) > MAX_STEPS:
        raise InvalidQuery(f"the funnel has {len(steps)} steps: use at most {MAX_STEPS}")
    if len(within) > 1:
        raise InvalidQuery("within is repeated: it is one time, from the first step to the last")
    return FunnelRequest(tuple(map(_parse_step, steps)), _parse_within(within[0]) if within and within[0] else None)


def _parse_within(text: str) -> int:
    match = _DURATION.fullmatch(text)
    milliseconds = int(match[1]) * _UNIT_MS[match[2]] if match else 0
    if not milliseconds:
        raise InvalidQuery(f"invalid within={excerpt(text)}: expected a time above 0, such as 90s, 30m, 2h or 1d")
    return milliseconds


def _parse_step(text: str) -> Step:
    conditions = list(_split_conditions(text))
    if len(conditions) > MAX_CONDITIONS:
        raise InvalidQuery(f"step={excerpt(text)} has {len(conditions)} conditions: use at most {MAX_CONDITIONS}")
    values: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for condition in conditions:
        match = _CONDITION.fullmatch(condition)
        if match is None or not is_top_level_name(match[1]):
            raise InvalidQuery(
                f"invalid step={excerpt(text)}: expected conditions such as event:view,id:home, with a field before "
                "each colon, and \\, for a comma in a value"
            )
        field, operator, value = match.groups()
        if field == "event_id":
            raise InvalidQuery(f"invalid step={excerpt(text)}: every event has an event_id of its own")
        if operator == "^" and len(value.encode(errors="replace")) > _PREFIX_MAX_BYTES:
            raise InvalidQuery(f"the prefix {excerpt(value)}… is over {_PREFIX_MAX_BYTES} bytes: shorten it")
        values[field, operator].append(_ESCAPED.sub(r"\1", value))
    filters = tuple(
        each for (field, operator), texts in values.items() for each in _build_filters(field, operator, texts)
    )
    return Step(text, filters[0] if len(filters) == 1 else AllOf(filters))


def _split_conditions(text: str) -> Iterator[str]:
    position = 0
    while match := _SEPARATED.match(text, position):
        yield match[1]
        if not match[2]:
            return
        position = match.end()
    yield text[position:]


def _build_filters(field: str, operator: str, values: list[str]) -> Iterator[Filter]:
    texts = [value for value in values if value != _ANY_VALUE]
    if operator == "^":
        yield from (normalize_filter(Prefix(field, value)) for value in values)
    elif operator == "!":
        if texts:
            yield Not(normalize_filter(OneOf(field, tuple(texts))))
        if len(texts) < len(values):
            yield Not(Exists(field))
    elif len(texts) < len(values):
        yield Exists(field)
    else:
        yield normalize_filter(Equals(field, texts[0]) if len(texts) == 1 else OneOf(field, tuple(texts)))


def build_predicate(where: Filter, fields: Sequence[str]) -> Callable[[Sequence[str | None]], bool]:
    """Return a function that evaluates the filter of a step on the values of an event.

    Args:
        where: a filter of `parse_funnel`.
        fields: the field of each value.

    """
    match where:
        case AllOf(filters):
            predicates = [build_predicate(each, fields) for each in filters]
            return lambda values: all(predicate(values) for predicate in predicates)
        case Not(inner):
            negated = build_predicate(inner, fields)
            return lambda values: not negated(values)
        case Equals(field, value):
            return _value_predicate(fields, field, lambda text: text == value)
        case OneOf(field, options):
            return _value_predicate(fields, field, frozenset(options).__contains__)
        case Prefix(field, prefix):
            return _value_predicate(fields, field, lambda text: text.startswith(prefix))
        case Exists(field):
            return _value_predicate(fields, field, lambda _: True)
        case _:
            raise TypeError(f"no filter of a step: {where!r}")


def _value_predicate(
    fields: Sequence[str], field: str, holds: Callable[[str], bool]
) -> Callable[[Sequence[str | None]], bool]:
    at = fields.index(field)
    return lambda values: (text := values[at]) is not None and holds(text)


def take_steps(
    events: Iterable[tuple[int, Sequence[str | None]]],
    predicates: Sequence[Callable[[Sequence[str | None]], bool]],
    within_ms: int | None = None,
) -> tuple[int, ...]:
    """Return when a session takes each step, in milliseconds, as far as it gets.

    Of several ways through the funnel, the one that gets furthest counts; of these, the one that gets there first.

    Args:
        events: the time and the values of each event, oldest first.
        predicates: whether the values of an event take a step, for each step.
        within_ms: see `FunnelRequest`.

    """
    # For each step, the way to it that began last: whatever a way can still reach, one that began later can, too.
    latest: list[tuple[int, ...]] = [()] * len(predicates)
    furthest: tuple[int, ...] = ()
    for timestamp, values in events:
        # The last step first: an event that takes a step cannot be the one before as well.
        for at in range(len(predicates) - 1, -1, -1):
            before = latest[at - 1] if at else ()
            if at and (not before or (within_ms is not None and timestamp - before[0] > within_ms)):
                continue
            if not predicates[at](values):
                continue
            way = (*before, timestamp)
            if not latest[at] or way[0] > latest[at][0]:
                latest[at] = way
            if len(way) > len(furthest):
                furthest = way
    return furthest


class Funnel:
    """Counts the sessions that are added.

    Args:
        steps: of the funnel.
        fields: the field of each value of the events; includes ``visitor``.
        within_ms: see `FunnelRequest`.

    """

    def __init__(self, steps: Sequence[Step], fields: Sequence[str], within_ms: int | None) -> None:
        self._steps = steps
        self._predicates = [build_predicate(step.where, fields) for step in steps]
        self._visitor_index = fields.index("visitor")
        self._within_ms = within_ms
        self._sessions = [0] * len(steps)
        self._visitors: list[set[str]] = [set() for _ in steps]
        self._intervals: list[list[int]] = [[] for _ in steps]

    def add(self, session: EventSequence) -> None:
        """Count one session."""
        times = take_steps(session.events, self._predicates, self._within_ms)
        if not times:
            return
        visitors = {text for event in session.events if (text := event.values[self._visitor_index]) is not None}
        for at, timestamp in enumerate(times):
            self._sessions[at] += 1
            self._visitors[at] |= visitors
            if at:
                self._intervals[at].append(timestamp - times[at - 1])

    def report(self) -> list[dict[str, Any]]:
        """Return the numbers of each step."""
        first = self._sessions[0]
        return [
            {
                "step": step.text,
                "sessions": self._sessions[at],
                "visitors": len(self._visitors[at]),
                "share": rounded_share(self._sessions[at], self._sessions[at - 1]) if at else None,
                "share_of_first": rounded_share(self._sessions[at], first),
                "median_ms": float(median(self._intervals[at])) if self._intervals[at] else None,
            }
            for at, step in enumerate(self._steps)
        ]


async def funnel_report(store: Store, request: FunnelRequest, parameters: ReportParameters) -> dict[str, Any]:
    """Return how many sessions take each step of a funnel.

    Of a session, only the part in the range counts. Of many sessions with the first step, it uses the newest (see
    `SequenceSample`).

    Args:
        store: runs the queries.
        request: the steps.
        parameters: the range.

    Returns:
        ``steps``: for each, its text as ``step``, how many ``sessions`` took it and how many ``visitors`` they are of,
        the ``share`` of the sessions of the step before and the ``share_of_first``, from 0 to 1 (None of nothing), and
        ``median_ms``, the median time since the step before. For an incomplete sample, ``exact: false`` and
        ``sessions_looked_at`` are added.

    """
    fields = tuple(sorted(frozenset({"visitor"}).union(*(step.fields for step in request.steps))))
    # All events of a session are read: those of no step show that it goes on.
    sample = SequenceSample(
        store, "session", fields, parameters, selecting=request.steps[0].where, included=Exists("session")
    )
    funnel = Funnel(request.steps, fields, request.within_ms)
    visitor_index = fields.index("visitor")
    async for sequence in sample:
        for session in cut_sessions(sequence, visitor_index):
            funnel.add(session)
    return {"steps": funnel.report(), **sample.completeness_fields()}
