"""The dataset report (DSR): usage of all datasets by month, as SUSHI JSON.

The format is that of the Research Data SUSHI API, as the hub that collects such reports validates it: its schema's
*counter_dataset_report* (https://github.com/datacite/sashimi, lib/sushi_schema/sushi_usage_schema.json). Sections 6.2,
6.3 and 7 and appendix B of the Code of Practice (see `metronome.reports.counter`) define the header, and that zeros are
not reported; section 8 the dates, and table 7.4 the filters.
"""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import orjson

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.reports.counter.clicks import CLICK_FILTER
from metronome.reports.counter.tally import COUNT_TIMEOUT_SECONDS, Deadline, UsageCounts, UsageTally, count_usage
from metronome.reports.parameters import ReportParameters, excerpt, item_filter
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Exists, Metric, Query, parse_time_zone

RELEASE: Final = "rd1"

METRIC_TYPES: Final = (
    "total-dataset-investigations",
    "unique-dataset-investigations",
    "total-dataset-requests",
    "unique-dataset-requests",
)
"""In the order of `metronome.reports.counter.tally.USAGE_METRICS`."""

ACCESS_METHODS: Final = ("regular", "machine")
"""Of people, and of scripts and tools."""

MAX_MONTHS: Final = 12
"""Maximum number of months in one report."""

_KNOWN_PARAMETERS: Final = ("begin_date", "end_date", "dataset_id", "metric_type", "access_method", "tz", "release")
_IGNORED_PARAMETERS: Final = frozenset({"api_key", "requestor_id", "customer_id", "platform"})
"""Other services need these to identify the client; here the key is enough."""
_DATE_PATTERN: Final = re.compile(r"\d{4}-\d\d(-\d\d)?")
_FIRST_YEAR: Final = 1970
_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DatasetReportRequest:
    """The parameters of a dataset report.

    Attributes:
        begin: the first day, the first of a month.
        end: the last day.
        today: the current day.
        dataset: the item ID; None for all items.
        metric_types: those to report, of `METRIC_TYPES`.
        access_methods: those to report, of `ACCESS_METHODS`.
        tz: the time zone that days belong to.
        ignored: unknown parameters.

    """

    begin: date
    end: date
    today: date
    dataset: str | None = None
    metric_types: tuple[str, ...] = METRIC_TYPES
    access_methods: tuple[str, ...] = ACCESS_METHODS
    tz: str = "UTC"
    ignored: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether the range ends in the future."""
        return self.end >= self.today

    @property
    def available_until(self) -> date:
        """The last day of the range that has started."""
        return min(self.end, self.today)

    def parameters(self) -> ReportParameters:
        """Return the range as the parameters of other reports."""
        zone = parse_time_zone(self.tz)
        start, end = (datetime.combine(day, time(), zone) for day in (self.begin, self.available_until + _ONE_DAY))
        return ReportParameters(start=start, end=end, tz=self.tz)


def parse_dataset_report_request(query: Mapping[str, str], now: datetime) -> DatasetReportRequest:
    """Parse the parameters of a dataset report.

    Args:
        query: the query string, decoded. ``begin_date`` and ``end_date`` are days or months, both included; without
            them the range is this calendar year so far. ``metric_type`` and ``access_method`` are lists separated by
            ``|``. ``dataset_id`` is an item ID, and ``tz`` the time zone that days belong to.
        now: aware.

    Raises:
        InvalidQuery: a value is invalid.
        QueryTooExpensive: the range is too long.

    """
    release = query.get("release") or RELEASE
    if release.lower() != RELEASE:
        raise InvalidQuery(f"unsupported release={excerpt(release)}: expected {RELEASE}")
    tz = query.get("tz") or "UTC"
    today = now.astimezone(parse_time_zone(tz)).date()
    begin, end = _parse_range(query.get("begin_date"), query.get("end_date"), today)
    return DatasetReportRequest(
        begin=begin,
        end=end,
        today=today,
        dataset=query.get("dataset_id") or None,
        metric_types=_parse_choices("metric_type", query.get("metric_type"), METRIC_TYPES),
        access_methods=_parse_choices("access_method", query.get("access_method"), ACCESS_METHODS),
        tz=tz,
        ignored=tuple(name for name in query if name not in _KNOWN_PARAMETERS and name not in _IGNORED_PARAMETERS),
    )


def last_day(month: date) -> date:
    """Return the last day of a day's month."""
    return (month.replace(day=1) + 31 * _ONE_DAY).replace(day=1) - _ONE_DAY


def _parse_range(begin_text: str | None, end_text: str | None, today: date) -> tuple[date, date]:
    if not begin_text and not end_text:
        return today.replace(month=1, day=1), today
    if not begin_text or not end_text:
        raise InvalidQuery("a range needs begin_date and end_date: add the other, or omit both for this year so far")
    begin, end = _parse_date("begin_date", begin_text), _parse_date("end_date", end_text)
    if len(end_text) < len("2026-01-31"):
        end = last_day(end)
    if begin.day != 1:
        raise InvalidQuery(f"invalid begin_date={begin}: expected the first day of a month")
    if end < begin:
        raise InvalidQuery(f"end_date={end} is before begin_date={begin}")
    if begin > today:
        raise InvalidQuery(f"invalid begin_date={begin}: it is in the future")
    if 12 * (end.year - begin.year) + end.month - begin.month >= MAX_MONTHS:
        raise QueryTooExpensive(f"the range is longer than {MAX_MONTHS} months")
    return begin, end


def _parse_date(name: str, text: str) -> date:
    if _DATE_PATTERN.fullmatch(text):
        try:
            day = date.fromisoformat(text if len(text) == len("2026-01-31") else f"{text}-01")
        except ValueError:
            day = date.min
        if _FIRST_YEAR <= day.year < date.max.year:
            return day
    raise InvalidQuery(f"invalid {name}={excerpt(text)}: expected 2026-01-31 or 2026-01")


def _parse_choices(name: str, text: str | None, choices: tuple[str, ...]) -> tuple[str, ...]:
    if not text:
        return choices
    chosen = {choice.strip().lower().replace("_", "-") for choice in text.split("|")}
    if unknown := chosen - set(choices):
        raise InvalidQuery(
            f"invalid {name}={excerpt(min(unknown))}: expected some of {', '.join(choices)}, separated by |"
        )
    return tuple(choice for choice in choices if choice in chosen)


REPORT_ID: Final = "dsr"
REPORT_NAME: Final = "dataset report"

_UNKNOWN_YEAR: Final = "0001"
_DOI: Final = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
_URI: Final = re.compile(r"(?:https?://|urn:|ark:|hdl:)\S+", re.IGNORECASE)
_COUNTRY: Final = re.compile("[A-Za-z]{2}")
_LAST_SEEN: Final = Metric.parse("last")
_DATASETS_PER_STEP: Final = 500
"""After that many datasets, other requests may run."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The repository of the datasets, and their publisher.

    Attributes:
        name: of the repository.
        publisher: of its datasets.
        publisher_id: ``TYPE:VALUE``, where the type is ``isni``, ``orcid``, ``grid``, ``urn`` or ``client-id``.

    """

    name: str = ""
    publisher: str = ""
    publisher_id: str = ""


async def dataset_report(
    store: Store, request: DatasetReportRequest, platform: Platform, timeout_seconds: float = COUNT_TIMEOUT_SECONDS
) -> bytes:
    """Return the usage of all datasets, or of one, counted by the Code of Practice.

    Args:
        store: runs the queries.
        request: the range and filters.
        platform: what the report says about each dataset.
        timeout_seconds: the timeout.

    Returns:
        The report as JSON, datasets in the order of their IDs. The title of a dataset is the newest ``title`` of its
        events. Unknown values are empty.

    Raises:
        QueryTooExpensive: it takes too long, or there are too many datasets.

    """
    tally = await count_usage(store, request.dataset, request.parameters(), Deadline(timeout_seconds))
    titles = await _query_titles(store, request)
    datasets: list[orjson.Fragment] = []
    for item, months in sorted(_group_by_item(tally).items()):
        performance = [
            monthly for month in sorted(months) if (monthly := _build_performance(request, month, months[month]))
        ]
        if performance:
            dataset = {**_describe_dataset(item, titles.get(item, ""), platform), "performance": performance}
            datasets.append(orjson.Fragment(orjson.dumps(dataset)))
        if len(datasets) % _DATASETS_PER_STEP == 0:
            await asyncio.sleep(0)
    header = {
        "report-name": REPORT_NAME,
        "report-id": REPORT_ID,
        "release": RELEASE,
        "created": request.today.isoformat(),
        "created-by": platform.name,
        "reporting-period": _format_period(request.begin, request.available_until),
        "report-filters": [{"name": name, "value": value} for name, value in _report_filters(request)],
        "report-attributes": [] if request.tz == "UTC" else [{"name": "tz", "value": request.tz}],
        "exceptions": list(_report_exceptions(request, is_empty=not datasets)),
    }
    return orjson.dumps({"report-header": header, "report-datasets": datasets})


async def _query_titles(store: Store, request: DatasetReportRequest) -> dict[str, str]:
    parameters = request.parameters()
    (result,) = await store.query(
        Query(
            metrics=(_LAST_SEEN,),
            group_by=("id", "title"),
            where=AllOf((CLICK_FILTER, Exists("title"), item_filter(request.dataset))),
            start=parameters.start,
            end=parameters.end,
        )
    )
    oldest_first = sorted((str(last), str(item), str(title)) for item, title, last in result.rows)
    return {item: title for _, item, title in oldest_first}


def _group_by_item(tally: UsageTally) -> dict[str, dict[str, dict[str, UsageCounts]]]:
    items: dict[str, dict[str, dict[str, UsageCounts]]] = defaultdict(lambda: defaultdict(dict))
    for (item, month, is_machine), counts in tally.counts.items():
        items[item][month][ACCESS_METHODS[is_machine]] = counts
    return items


def _build_performance(
    request: DatasetReportRequest, month: str, by_method: dict[str, UsageCounts]
) -> dict[str, Any] | None:
    instances = [
        instance
        for method in request.access_methods
        if method in by_method
        for instance in _iterate_instances(request, method, by_method[method])
    ]
    if not instances:
        return None
    begin = date.fromisoformat(f"{month}-01")
    return {"period": _format_period(begin, min(last_day(begin), request.available_until)), "instance": instances}


def _iterate_instances(request: DatasetReportRequest, method: str, counts: UsageCounts) -> Iterator[dict[str, Any]]:
    for at, metric_type in enumerate(METRIC_TYPES):
        if metric_type in request.metric_types and counts.totals[at]:
            countries = _count_countries(counts, at)
            yield {
                "count": counts.totals[at],
                **({"country-counts": countries} if countries else {}),
                "access-method": method,
                "metric-type": metric_type,
            }


def _count_countries(counts: UsageCounts, at: int) -> dict[str, int]:
    """Count by country; the hub expects codes of two lower-case letters."""
    countries: Counter[str] = Counter()
    for name, numbers in counts.by_country.items():
        if _COUNTRY.fullmatch(name) and numbers[at]:
            countries[name.lower()] += numbers[at]
    return dict(sorted(countries.items()))


def _format_period(begin: date, end: date) -> dict[str, str]:
    return {"begin-date": begin.isoformat(), "end-date": end.isoformat()}


def _describe_dataset(item: str, title: str, platform: Platform) -> dict[str, Any]:
    kind, _, value = platform.publisher_id.partition(":")
    identifier, uri = classify_identifier(item)
    return {
        "dataset-title": title,
        "dataset-id": [identifier],
        "platform": platform.name,
        "publisher": platform.publisher,
        "publisher-id": [{"type": kind, "value": value}] if value else [],
        "data-type": "dataset",
        "yop": _UNKNOWN_YEAR,
        **({"uri": uri} if uri else {}),
    }


def classify_identifier(item: str) -> tuple[dict[str, str], str | None]:
    """Return the type of an item ID.

    Returns:
        The identifier with its type, ``doi``, ``uri`` or ``proprietary``; a DOI is returned without a prefix such as
        ``doi:``. And the URL of the dataset, if the ID implies it.

    """
    if doi := _DOI.fullmatch(item):
        return {"type": "doi", "value": doi[1]}, f"https://doi.org/{doi[1]}"
    if _URI.fullmatch(item):
        return {"type": "uri", "value": item}, item if item.lower().startswith("http") else None
    return {"type": "proprietary", "value": item}, None


def _report_filters(request: DatasetReportRequest) -> Iterator[tuple[str, str]]:
    yield "begin-date", request.begin.isoformat()
    yield "end-date", request.end.isoformat()
    if request.dataset is not None:
        yield "dataset-id", request.dataset
    if request.metric_types != METRIC_TYPES:
        yield "metric-type", "|".join(request.metric_types)
    if request.access_methods != ACCESS_METHODS:
        yield "access-method", "|".join(request.access_methods)


def _report_exceptions(request: DatasetReportRequest, *, is_empty: bool) -> Iterator[dict[str, Any]]:
    """Yield the exceptions of appendix B that apply."""
    if is_empty:
        yield {"code": 3030, "severity": "error", "message": "No Usage Available for Requested Dates"}
    if request.is_partial:
        yield {
            "code": 3040,
            "severity": "warning",
            "message": "Partial Data Returned",
            "data": f"request was for {request.begin} to {request.end}; however, usage is only available to "
            f"{request.available_until}, which is not over",
        }
    if request.ignored:
        yield {
            "code": 3050,
            "severity": "warning",
            "message": "Parameter Not Recognized in this Context",
            "data": ", ".join(map(excerpt, request.ignored[:10])),
        }
