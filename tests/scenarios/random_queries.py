"""Random questions, in both of the ways in which they can be asked."""

from datetime import datetime, time, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo

import orjson
from hypothesis import strategies as st

from tests.scenarios.counting import Document, Question, columns_of, text_of
from tests.scenarios.random_events import DAYS, RUN, moments
from tests.scenarios.random_filters import filters_in_an_address, posted_filters

ZONES: Final = ("UTC", "Europe/Zurich", "America/New_York", "Asia/Kolkata", "Pacific/Auckland")
METRICS: Final = (
    *("count", "first", "last", "visitors", "sessions", "unique:p_lang", "unique:id", "count:p_n", "sum:p_n"),
    *("avg:p_n", "min:p_n", "max:p_n", "sum:duration", "max:LCP", "p50:p_n", "p90:LCP"),
)
GROUPS: Final = (
    *("id", "event", "format", "p_lang", "p_flag", "p.dot", "device", "browser", "country", "channel", "referer"),
    *("error_group", "bot"),
)
UNITS: Final = ("hour", "day", "week", "month")
PERCENT: Final = ("p50:", "p90:")
DISTINCT: Final = ("visitors", "sessions", "unique:")


class Request(NamedTuple):
    """A question, as it is sent and as it is counted.

    Attributes:
        path: what is asked for.
        body: what is posted; None for a question in an address.
        question: the same.

    """

    path: str
    body: bytes | None
    question: Question


class _Range(NamedTuple):
    texts: dict[str, str]
    start: datetime | None
    end: datetime | None


@st.composite
def _any_range(draw: st.DrawFn, tz: str) -> _Range:
    zone = ZoneInfo(tz)
    texts: dict[str, str] = {}
    edges: list[datetime | None] = []
    for name, more in (("from", 0), ("to", 1)):
        kind = draw(st.sampled_from(["none", "none", "none", "day", "time"]))
        if kind == "none":
            edges.append(None)
        elif kind == "day":
            day = draw(st.sampled_from(DAYS))
            texts[name] = day.isoformat()
            edges.append(datetime.combine(day + timedelta(days=more), time(), zone))
        else:
            moment = draw(moments)
            texts[name] = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
            edges.append(moment)
    return _Range(texts, *edges)


@st.composite
def _whole_days(draw: st.DrawFn, tz: str, compare: str) -> _Range:
    # Before the second and the last there were events, too.
    first = draw(st.sampled_from((*DAYS, DAYS[1], DAYS[-1])))
    if compare == "year":
        # Then the year before is that of the events.
        first = first.replace(year=first.year + 1)
    last = first + timedelta(days=draw(st.integers(0, 1)))
    start, end = (datetime.combine(day, time(), ZoneInfo(tz)) for day in (first, last + timedelta(days=1)))
    return _Range({"from": first.isoformat(), "to": last.isoformat()}, start, end)


@st.composite
def requests(draw: st.DrawFn, run: str) -> Request:
    """Draw a question about the events of an example."""
    tz = draw(st.sampled_from(ZONES))
    compare = draw(st.sampled_from(["", "", "", "", "previous", "year"]))
    units = ("day",) if compare else UNITS
    width = draw(st.sampled_from([0, 1, 1, 2]))
    by = tuple(draw(st.lists(st.sampled_from(GROUPS + units * 2), min_size=width, max_size=width, unique=True)))
    fill = sum(name in UNITS for name in by) == 1 and draw(st.booleans())
    bounded = bool(compare) or fill
    within = draw(_whole_days(tz, compare) if bounded else _any_range(tz))
    metrics = tuple(draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True)))
    is_posted = draw(st.booleans())
    filters = draw(posted_filters(run) if is_posted else filters_in_an_address(run))
    bots = draw(st.booleans())
    named = {*by, *(one.partition(":")[2] for one in metrics), *(field for one in filters for field in one.fields)}

    def where(document: Document) -> bool:
        kept = bots or "bot" in named or text_of(document, "bot") is None
        return kept and document.get(RUN) == run and all(one.holds(document) for one in filters)

    whole = Question(metrics, by, where, within.start, within.end, tz, fill=fill, compare=compare)
    # Rows cannot be compared in an order that depends on an estimate.
    sortable = [name for name in columns_of(whole) if not name.startswith((*PERCENT, *DISTINCT))]
    columns = draw(st.lists(st.sampled_from(sortable), max_size=2, unique=True)) if sortable else []
    order = tuple(f"{draw(st.sampled_from(['', '-']))}{column}" for column in columns)
    limit, offset = draw(st.none() | st.integers(1, 5)), draw(st.integers(0, 2))
    question = Question(
        metrics, by, where, within.start, within.end, tz, order, limit, offset, fill=fill, compare=compare
    )
    texts = {"tz": tz, "offset": str(offset), "bots": str(int(bots)), "fill": str(int(fill)), **within.texts}
    texts |= {"compare": compare} if compare else {}
    texts |= {"limit": "0" if limit is None else str(limit)}
    lists = {"metrics": list(metrics), "by": list(by), "order": list(order)}
    if is_posted:
        body = {**{name: value for name, value in lists.items() if value}, **texts}
        return Request(
            "/query", orjson.dumps({**body, "where": {"and": [{RUN: run}, *(one.body for one in filters)]}}), question
        )
    parts = [f"{name}={quote(','.join(value))}" for name, value in lists.items() if value]
    parts += [f"{name}={quote(value)}" for name, value in texts.items()]
    parts += [f"{RUN}={run}", *(str(one.address) for one in filters)]
    return Request(f"/query?{'&'.join(parts)}", None, question)
