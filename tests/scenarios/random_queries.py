"""Random queries, in query strings and JSON bodies."""

from datetime import datetime, time, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo

import orjson
from hypothesis import strategies as st

from tests.scenarios.random_events import DAYS, OVERFLOWING, RUN, TEXT_FIRST, moments
from tests.scenarios.random_filters import posted_filters, query_string_filters
from tests.scenarios.reference import Document, Query, columns_of, text_of

ZONES: Final = (
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Auckland",
    "Asia/Kathmandu",
    "America/Vancouver",
)
METRICS: Final = (
    *(
        "count",
        "views",
        "downloads",
        "first",
        "last",
        "visitors",
        "sessions",
        "unique:p_lang",
        "unique:id",
        "count:p_n",
        "sum:p_n",
    ),
    *("avg:p_n", "min:p_n", "max:p_n", "sum:duration", "max:LCP", "p50:p_n", "p90:LCP"),
    *(f"sum:{TEXT_FIRST}", f"count:{TEXT_FIRST}", f"max:{TEXT_FIRST}", f"sum:{OVERFLOWING}", f"min:{OVERFLOWING}"),
)
GROUPS: Final = (
    *("id", "event", "format", "p_lang", "p_flag", "p.dot", "device", "browser", "country", "channel", "referer"),
    *("error_group", "bot", OVERFLOWING),
)
UNITS: Final = ("hour", "day", "week", "month", "quarter", "year", "all")
PERCENT: Final = ("p50:", "p90:")
DISTINCT: Final = ("visitors", "sessions", "unique:")


class Request(NamedTuple):
    """A request to ``/query``, and the same query for the reference implementation.

    Attributes:
        path: the path and query string.
        body: of a POST request; None for a GET request.
        query: what the request means.

    """

    path: str
    body: bytes | None
    query: Query


class _Range(NamedTuple):
    parameters: dict[str, str]
    start: datetime | None
    end: datetime | None


@st.composite
def _any_range(draw: st.DrawFn, tz: str) -> _Range:
    zone = ZoneInfo(tz)
    parameters: dict[str, str] = {}
    edges: list[datetime | None] = []
    for name, extra_days in (("from", 0), ("to", 1)):
        kind = draw(st.sampled_from(["none", "none", "none", "day", "time"]))
        if kind == "none":
            edges.append(None)
        elif kind == "day":
            day = draw(st.sampled_from(DAYS))
            parameters[name] = day.isoformat()
            edges.append(datetime.combine(day + timedelta(days=extra_days), time(), zone))
        else:
            moment = draw(moments)
            parameters[name] = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
            edges.append(moment)
    start, end = edges
    if start is not None and end is not None and start >= end:
        # An empty range is rejected.
        del parameters["to"]
        end = None
    return _Range(parameters, start, end)


@st.composite
def _whole_days(draw: st.DrawFn, tz: str, compare: str) -> _Range:
    # There are events on the days before the second and the last day.
    first = draw(st.sampled_from((*DAYS, DAYS[1], DAYS[-1])))
    if compare == "year":
        # The year before is the year of the events.
        first = first.replace(year=first.year + 1)
    last = first + timedelta(days=draw(st.integers(0, 1)))
    start, end = (datetime.combine(day, time(), ZoneInfo(tz)) for day in (first, last + timedelta(days=1)))
    return _Range({"from": first.isoformat(), "to": last.isoformat()}, start, end)


@st.composite
def requests(draw: st.DrawFn, run: str) -> Request:
    """Draw a query on the events of an example."""
    tz = draw(st.sampled_from(ZONES))
    compare = draw(st.sampled_from(["", "", "", "", "previous", "year"]))
    units = ("day",) if compare else UNITS
    width = draw(st.sampled_from([0, 1, 1, 2]))
    by = tuple(draw(st.lists(st.sampled_from(GROUPS + units * 2), min_size=width, max_size=width, unique=True)))
    fill = sum(name in UNITS for name in by) == 1 and draw(st.booleans())
    bounded = bool(compare) or fill
    time_range = draw(_whole_days(tz, compare) if bounded else _any_range(tz))
    metrics = tuple(draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True)))
    if OVERFLOWING in by:
        # Not exact on Elasticsearch: a field has one type in a search.
        metrics = tuple(metric for metric in metrics if not metric.endswith(OVERFLOWING)) or ("count",)
    is_posted = draw(st.booleans())
    filters = draw(posted_filters(run) if is_posted else query_string_filters(run))
    bots = draw(st.booleans())
    used_fields = {*by, *(metric.partition(":")[2] for metric in metrics)}.union(*(drawn.fields for drawn in filters))

    def where(document: Document) -> bool:
        includes_bots = bots or "bot" in used_fields
        if text_of(document, "bot") is not None and not includes_bots:
            return False
        return document.get(RUN) == run and all(drawn.holds(document) for drawn in filters)

    unsorted = Query(metrics, by, where, time_range.start, time_range.end, tz, fill=fill, compare=compare)
    # An order by estimates would be arbitrary.
    sortable = [name for name in columns_of(unsorted) if not name.startswith((*PERCENT, *DISTINCT))]
    columns = draw(st.lists(st.sampled_from(sortable), max_size=2, unique=True)) if sortable else []
    order = tuple(f"{draw(st.sampled_from(['', '-']))}{column}" for column in columns)
    limit, offset = draw(st.none() | st.integers(1, 5)), draw(st.integers(0, 2))
    query = Query(
        metrics, by, where, time_range.start, time_range.end, tz, order, limit, offset, fill=fill, compare=compare
    )
    parameters = {
        "tz": tz,
        "offset": str(offset),
        "bots": str(int(bots)),
        "fill": str(int(fill)),
        **time_range.parameters,
    }
    parameters |= {"compare": compare} if compare else {}
    parameters |= {"limit": "0" if limit is None else str(limit)}
    lists = {"metrics": list(metrics), "by": list(by), "order": list(order)}
    if is_posted:
        body = {**{name: value for name, value in lists.items() if value}, **parameters}
        return Request(
            "/query", orjson.dumps({**body, "where": {"and": [{RUN: run}, *(drawn.body for drawn in filters)]}}), query
        )
    parts = [f"{name}={quote(','.join(value))}" for name, value in lists.items() if value]
    parts += [f"{name}={quote(value)}" for name, value in parameters.items()]
    parts += [f"{RUN}={run}", *(str(drawn.query_string) for drawn in filters)]
    return Request(f"/query?{'&'.join(parts)}", None, query)
