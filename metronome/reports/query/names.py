"""The names that can be asked for, and which are near to one that cannot.

Whoever asks for a field that nothing has is told so, and not answered with zeros. What is known of a name is
remembered, so that good questions cost nothing more.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from itertools import chain, islice
from time import monotonic
from typing import Final, NamedTuple

from metronome.errors import Busy, TooCostly, Unaskable
from metronome.reports.query.request import NUMERIC, PARAMETERS, Asked, Leaf
from metronome.reports.query.series import zero
from metronome.stores.base import Store
from metronome.stores.query import (
    COUNT,
    TIME_UNITS,
    AllOf,
    Answer,
    AnyOf,
    Exists,
    Filter,
    Kind,
    Metric,
    Not,
    Question,
    Range,
)

NAMES: Final = (
    *("id", "event", "event_id", "format", "referer", "referer_url", "url", "title", "message", "error_group"),
    *("user", "session", "visitor", "clientip", "agent", "browser", "browser_version", "os", "os_version", "device"),
    *("bot", "bot_kind", "country", "channel", "referer_group", "method"),
    *("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "enrich_version"),
)
"""Fields that Metronome knows, so that they can be asked for even while no document has them."""

NUMBERS: Final = (
    *("duration", "value", "status", "bytes", "TTFB", "FCP", "LCP", "CLS", "INP"),
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)
"""Likewise, those that hold numbers."""

FRESH_SECONDS: Final = 2.0
"""How old the list of names may be that says of one that nothing has it."""

_KNOWN: Final = frozenset({*NAMES, *NUMBERS})
_TIMES: Final = frozenset({"@timestamp", "timestamp", "ts", "time", "date", *TIME_UNITS})
AT_THE_TOP: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
"""Names that are looked for nowhere but at a document's top level."""
_MOST_REMEMBERED: Final = 10_000
_MOST_COMPARED: Final = 500
"""How many names are looked through for near ones: strangers can have sent any number of them."""
_LONGEST_COMPARED: Final = 40
_SUGGESTED: Final = 3
_SHOWN: Final = 60


class Names:
    """What is known of the names that a store's documents have.

    Args:
        store: is asked for them.
        clock: seconds that only go forward.

    """

    def __init__(self, store: Store, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._clock = clock
        self._at_the_top: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._elsewhere: set[str] = set()
        self._numeric: set[str] = set()

    async def check(self, asked: Asked) -> None:
        """See, before a question is asked, that what can be known at once is right with its names.

        Raises:
            Unaskable: documents have no such field; the message tells near names.

        """
        missing = self._missing(asked)
        if missing and self._clock() - self._read_at >= FRESH_SECONDS:
            self._at_the_top = await self._store.fields()
            self._read_at = self._clock()
            missing = self._missing(asked)
        for name in sorted(missing):
            if AT_THE_TOP.fullmatch(name):
                raise self._no_field(name)

    async def check_answer(self, asked: Asked, answer: Answer) -> None:
        """See, where an answer leaves it open, that fields are there and hold the numbers that were asked for.

        Args:
            asked: what was asked.
            answer: what the store said for the range itself, without columns that compare.

        Raises:
            Unaskable: documents have no such field, or no number in it; the message tells near names.

        """
        fields, numeric = self._missing(asked), asked.numeric - self._numeric - {*NUMBERS}
        if not fields and not numeric:
            return
        shown = _shown_by(asked, answer)
        self._remember(shown.fields & fields, shown.numeric & numeric)
        numeric -= shown.numeric
        for name in sorted((fields - shown.fields) | numeric):
            await self._look_for(name, asked.question, needs_number=name in numeric)

    def _missing(self, asked: Asked) -> frozenset[str]:
        return asked.fields - _KNOWN - self._at_the_top - self._elsewhere

    async def _look_for(self, name: str, question: Question, *, needs_number: bool) -> None:
        """Look in the range that was asked for, and if need be in all that there is."""
        metrics = (COUNT, Metric(Kind.VALUES, name, name="numbers"))
        here = Question(metrics, where=Exists(name), start=question.start, end=question.end)
        count: object = 0
        for each in dict.fromkeys((here, replace(here, start=None, end=None))):
            try:
                (answer,) = await self._store.ask(each)
            except (TooCostly, Busy):
                # Nobody can tell in time, so the answer stands.
                return
            ((count, numbers),) = answer.rows
            if numbers or (count and not needs_number):
                self._remember({name}, {name} if numbers else set())
                return
        if count:
            raise self._no_numbers(name)
        if name not in _KNOWN and name not in self._at_the_top:
            raise self._no_field(name)

    def _remember(self, elsewhere: Iterable[str], numeric: Iterable[str]) -> None:
        for memory, names in ((self._elsewhere, elsewhere), (self._numeric, numeric)):
            if len(memory) > _MOST_REMEMBERED:
                memory.clear()
            memory.update(names)

    def _no_field(self, name: str) -> Unaskable:
        if name in _TIMES:
            return Unaskable(f"no event has a field {name!r}: say from and to for a range, and by=day for a series")
        near = suggestion(name, chain(_KNOWN, PARAMETERS, self._elsewhere, self._at_the_top))
        return Unaskable(f"no event has a field {name[:_SHOWN]!r}{near}")

    def _no_numbers(self, name: str) -> Unaskable:
        numeric = self._numeric | {one for one in NUMBERS if one in self._at_the_top}
        near = suggestion(name, numeric)
        if numeric and not near:
            near = f"; there are some in {', '.join(sorted(numeric)[:_SUGGESTED])}"
        return Unaskable(f"{name[:_SHOWN]} holds no numbers{near}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a question for the known names that are near to one, in brackets; nothing if none is."""
    if len(name) > _LONGEST_COMPARED:
        return ""
    folded: dict[str, str] = {}
    similar = (one for one in known if len(one) <= 2 * len(name) + 2)
    for one in islice(similar, _MOST_COMPARED):
        folded.setdefault(one.casefold(), one)
    near = [folded[one] for one in get_close_matches(name.casefold(), folded, _SUGGESTED)]
    return f" (do you mean {' or '.join(near)}?)" if near else ""


class _Shown(NamedTuple):
    fields: frozenset[str]
    numeric: frozenset[str]


def _shown_by(asked: Asked, answer: Answer) -> _Shown:
    """Return of which fields an answer shows that events have them, and of which that these hold numbers."""
    by = asked.question.by
    fields, numeric = set(by if answer.total else ()), set[str]()
    has_events = bool(by and answer.total)
    for at, metric in enumerate(asked.metrics, start=len(by)):
        found = {row[at] for row in answer.rows} - {None}
        if found and (found != {0} or zero(metric) is None):
            has_events = True
            fields.add(metric.field)
            numeric |= {metric.field} if metric.kind in NUMERIC else set()
    for each in _held(asked.question.where) if has_events else ():
        fields.add(each.field)
        numeric |= {each.field} if isinstance(each, Range) else set()
    return _Shown(frozenset(fields), frozenset(numeric))


def _held(where: Filter | None) -> Iterator[Leaf]:
    """Yield the filters on fields that hold for every event that is let through."""
    if isinstance(where, AllOf):
        for inner in where.inner:
            yield from _held(inner)
    elif where is not None and not isinstance(where, (Not, AnyOf)):
        yield where
