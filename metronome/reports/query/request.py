"""What somebody's own question asks for, in whichever way it was written."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple

from metronome.errors import Unaskable
from metronome.reports.parameters import Parameters, read_parameters, read_switch
from metronome.reports.query.compare import CHANGE, COMPARISONS, earlier
from metronome.stores.query import (
    MAX_GROUPS,
    NO_BOTS,
    TIME_UNITS,
    AllOf,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Kind,
    Metric,
    Not,
    OneOf,
    Order,
    Prefix,
    Question,
    Range,
    read_zone,
)

Leaf = Equals | OneOf | Prefix | Exists | Range
"""A filter that is about a field itself."""

MAX_ROWS: Final = MAX_GROUPS
"""How many rows an answer may have."""
USUAL_ROWS: Final = 1000
MOST_METRICS: Final = 20
MOST_BY: Final = 4
MOST_FILTERS: Final = 100
"""How many filters a question may have, the inner ones included."""
MOST_LEVELS: Final = 8
"""How deep filters may stand in each other."""
MOST_VALUES: Final = 10_000
"""How many values may be compared with, in all filters together."""
NAME_MAX_CHARACTERS: Final = 256
BEGINNING_MAX_BYTES: Final = 500
"""How long a beginning may be that is looked for: no store has to find longer ones."""

PARAMETERS: Final = ("metrics", "by", "from", "to", "tz", "order", "limit", "offset", "compare", "fill", "bots")
"""What a question says beside its filters."""

LISTS: Final = frozenset({"metrics", "by", "order"})
"""Those that are lists; the others are single values."""

NUMERIC: Final = frozenset({Kind.VALUES, Kind.SUM, Kind.AVG, Kind.MIN, Kind.MAX, Kind.PERCENTILE})
"""The metrics that only numbers have."""

_IN_COMMON: Final = frozenset({"from", "to", "tz", "bots"})
_BOTS: Final = frozenset({"bot", "bot_kind"})
_IDENTITY: Final = "event_id"
_DIGITS: Final = 9
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Given:
    """A question as it was written, before it is known whether it can be asked.

    Attributes:
        lists: what was given for each of `LISTS`.
        texts: what was given for each other one of `PARAMETERS`.
        filters: all of them have to hold.

    """

    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    filters: tuple[Filter, ...] = ()


class Before(NamedTuple):
    """The range that is compared with.

    Attributes:
        name: one of `COMPARISONS`.
        start: aware; events from then on.
        end: aware; events before then.

    """

    name: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that can be asked.

    Attributes:
        question: as the answer is to look: with the columns that compare, the order, limit and offset.
        metrics: what is measured, without the columns that compare.
        before: what is compared with; None for nothing.
        fill: whether units of time without an event have rows too.

    """

    question: Question
    metrics: tuple[Metric, ...]
    before: Before | None = None
    fill: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the store's answer is the answer, as it is."""
        return self.before is None and not self.fill

    @property
    def fields(self) -> frozenset[str]:
        """The names of all fields that the question is about."""
        measured = {metric.field for metric in self.metrics if metric.field}
        grouped = {name for name in self.question.by if name not in TIME_UNITS}
        return frozenset(measured | grouped | {one.field for one in leaves(self.question.where)})

    @property
    def numeric(self) -> frozenset[str]:
        """The names of the fields whose numbers the question is about."""
        ranged = {one.field for one in leaves(self.question.where) if isinstance(one, Range)}
        return frozenset(ranged | {metric.field for metric in self.metrics if metric.kind in NUMERIC})

    def questions(self) -> tuple[Question, ...]:
        """Return what the store is to answer: one question, or with the range that is compared with two."""
        if self.is_plain:
            return (self.question,)
        # Rows that are put together of two answers, or put in between, are sorted and cut afterwards.
        now = replace(self.question, metrics=self.metrics, order=(), limit=MAX_ROWS, offset=0)
        return (now,) if self.before is None else (now, replace(now, start=self.before.start, end=self.before.end))


def read_asked(given: Given, now: datetime) -> Asked:
    """Read what was written as a question.

    Args:
        given: as it was written.
        now: what relative times count from, aware.

    Raises:
        Unaskable: a value cannot be; the message says which.

    """
    texts = given.texts
    common = read_parameters({name: texts[name] for name in _IN_COMMON & texts.keys()}, now, _IN_COMMON)
    metrics = tuple(map(Metric.parse, _few("metrics", given.lists.get("metrics") or ("count",), MOST_METRICS)))
    by = _few("by", given.lists.get("by", ()), MOST_BY)
    check_names((*by, *(metric.field for metric in metrics if metric.field)))
    _check_filters(given.filters)
    _check_identity(metrics, by, given.filters)
    fill = read_switch("fill", texts.get("fill"))
    if fill and sum(name in TIME_UNITS for name in by) != 1:
        raise Unaskable(f"fill=1 is for a series of time: group by just one of {', '.join(TIME_UNITS)}")
    before = _before(texts.get("compare", ""), common, now)
    question = Question(
        metrics=metrics if before is None else tuple(_with_comparison(metrics, before.name)),
        by=by,
        where=_where(given.filters, metrics, by, bots=common.bots),
        start=common.start,
        end=now if before is not None and common.end is None else common.end,
        tz=common.tz,
        order=tuple(map(Order.parse, given.lists.get("order", ()))),
        limit=_limit(texts.get("limit")),
        offset=_whole("offset", texts.get("offset"), 0),
    )
    return Asked(question, metrics, before, fill)


def check_names(names: Iterable[str]) -> None:
    """See that each can be a field's name.

    Raises:
        Unaskable: one is empty or too long.

    """
    for name in names:
        if not 0 < len(name) <= NAME_MAX_CHARACTERS:
            shown = f"{name[:_SHOWN]}…" if name else repr(name)
            raise Unaskable(f"{shown} is no field's name: it has 1 to {NAME_MAX_CHARACTERS} characters")


def leaves(where: Filter | None) -> Iterator[Leaf]:
    """Yield the filters that are each about a field."""
    match where:
        case None:
            return
        case Not(inner):
            yield from leaves(inner)
        case AllOf(inners) | AnyOf(inners):
            for inner in inners:
                yield from leaves(inner)
        case _:
            yield where


def _check_filters(filters: tuple[Filter, ...]) -> None:
    found = [*leaves(AllOf(filters))]
    check_names(one.field for one in found)
    for one in found:
        if isinstance(one, Prefix) and len(one.text.encode(errors="replace")) > BEGINNING_MAX_BYTES:
            raise Unaskable(
                f"{one.text[:_SHOWN]}… is too long to be looked for as a beginning: "
                f"shorten it to {BEGINNING_MAX_BYTES} bytes"
            )
    values = sum(len(one.values) for one in found if isinstance(one, OneOf))
    if len(found) > MOST_FILTERS or values > MOST_VALUES:
        raise Unaskable(
            f"the question has {len(found):,} filters with {values:,} values to choose from: "
            f"ask with up to {MOST_FILTERS} filters and {MOST_VALUES:,} values"
        )


def _check_identity(metrics: tuple[Metric, ...], by: tuple[str, ...], filters: tuple[Filter, ...]) -> None:
    """See that no more is asked of an event's identity than every store can tell."""
    if _IDENTITY in {*by, *(metric.field for metric in metrics)}:
        raise Unaskable("each event has an event_id of its own: group by something else, or ask for count")
    if any(one.field == _IDENTITY and isinstance(one, (Prefix, Range)) for one in leaves(AllOf(filters))):
        raise Unaskable("event_id can be looked for only as a whole: ask for event_id=…")


def _where(
    filters: tuple[Filter, ...], metrics: tuple[Metric, ...], by: tuple[str, ...], *, bots: bool
) -> Filter | None:
    named = {*by, *(metric.field for metric in metrics), *(one.field for one in leaves(AllOf(filters)))}
    # Whoever names bots means them.
    together = filters if bots or named & _BOTS else (*filters, NO_BOTS)
    return AllOf(together) if together else None


def _before(name: str, common: Parameters, now: datetime) -> Before | None:
    if not name:
        return None
    if name not in COMPARISONS:
        raise Unaskable(f"compare={name[:_SHOWN]} is not known: choose one of {', '.join(COMPARISONS)}")
    if common.start is None:
        raise Unaskable(f"compare={name} needs a range: say from when on with from, as from=-30d")
    end = common.end or now
    if end <= common.start:
        raise Unaskable(f"compare={name} needs a range, and from lies after to: turn them round")
    return Before(name, *earlier(name, common.start, end, read_zone(common.tz)))


def _with_comparison(metrics: tuple[Metric, ...], name: str) -> Iterator[Metric]:
    for metric in metrics:
        yield metric
        yield replace(metric, name=f"{metric.name}:{name}")
        # A share of the earlier value: as an average, it is none where there is nothing to be a share of.
        yield Metric(Kind.AVG, metric.field, name=f"{metric.name}:{CHANGE}")


def _few(name: str, found: tuple[str, ...], most: int) -> tuple[str, ...]:
    if len(found) > most:
        raise Unaskable(f"{name} has {len(found):,} entries: ask for up to {most} at once")
    return found


def _limit(text: str | None) -> int:
    limit = _whole("limit", text, USUAL_ROWS) or MAX_ROWS
    if limit > MAX_ROWS:
        raise Unaskable(f"limit={limit} is too many: an answer has up to {MAX_ROWS:,} rows, and offset skips some")
    return limit


def _whole(name: str, text: str | None, usual: int) -> int:
    if text is None or text == "":
        return usual
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise Unaskable(f"{name}={text[:_SHOWN]} is no number of rows: write 0, 10 or 1000")
    return int(text)
