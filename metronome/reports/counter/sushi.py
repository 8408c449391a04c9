"""The dataset report (DSR): the usage of all datasets by month, as SUSHI's JSON.

The shape is that of the Research Data SUSHI API, as the hub that gathers such reports checks it: its schema's
*counter_dataset_report* (https://github.com/datacite/sashimi, lib/sushi_schema/sushi_usage_schema.json). What stands in
the header, and that nothing is reported where nothing was counted, is said in sections 6.2, 6.3 and 7 and appendix B of
the Code of Practice (see `metronome.reports.counter`).
"""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import orjson

from metronome.question import AllOf, Equals, Exists, Metric, Question
from metronome.reports.counter.clicks import CLICKS
from metronome.reports.counter.count import SECONDS, Deadline, count_usage
from metronome.reports.counter.harvest import ACCESS_METHODS, METRIC_TYPES, RELEASE, Harvest, last_day
from metronome.reports.counter.tally import Counts, Tally
from metronome.stores.store import Store

REPORT_ID: Final = "dsr"
REPORT_NAME: Final = "dataset report"

_UNKNOWN_YEAR: Final = "0001"
_DOI: Final = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
_URI: Final = re.compile(r"(?:https?://|urn:|ark:|hdl:)\S+", re.IGNORECASE)
_COUNTRY: Final = re.compile("[A-Za-z]{2}")
_NEWEST: Final = Metric.parse("last")
_AT_ONCE: Final = 500
"""How many datasets are written before others may go on."""


@dataclass(frozen=True, slots=True)
class Platform:
    """Who publishes the datasets, and where.

    Attributes:
        name: of the repository.
        publisher: of its datasets.
        publisher_id: as ``TYPE:VALUE``, where the type is ``isni``, ``orcid``, ``grid``, ``urn`` or ``client-id``.

    """

    name: str = ""
    publisher: str = ""
    publisher_id: str = ""


async def dataset_report(store: Store, asked: Harvest, platform: Platform, seconds: float = SECONDS) -> bytes:
    """Answer how all datasets were used, or one of them, as the Code of Practice counts it.

    Args:
        store: what is asked.
        asked: which months, of what.
        platform: what is said of each dataset.
        seconds: how long it may take.

    Returns:
        The report as JSON, datasets in the order of their ids. A dataset's title is the newest that its events
        have as ``title``; where none has one, it is empty, as is whatever nobody told.

    Raises:
        TooCostly: it takes longer, or there are too many datasets.

    """
    tally = await count_usage(store, asked.dataset, asked.parameters(), Deadline(seconds))
    titles = await _titles(store, asked)
    datasets: list[orjson.Fragment] = []
    for item, months in sorted(_by_item(tally).items()):
        performance = [found for month in sorted(months) if (found := _performance(asked, month, months[month]))]
        if performance:
            dataset = {**_described(item, titles.get(item, ""), platform), "performance": performance}
            datasets.append(orjson.Fragment(orjson.dumps(dataset)))
        if len(datasets) % _AT_ONCE == 0:
            await asyncio.sleep(0)
    header = {
        "report-name": REPORT_NAME,
        "report-id": REPORT_ID,
        "release": RELEASE,
        "created": asked.today.isoformat(),
        "created-by": platform.name,
        "reporting-period": _period(asked.begin, asked.last),
        "report-filters": [{"name": name, "value": value} for name, value in _filters(asked)],
        "report-attributes": [] if asked.tz == "UTC" else [{"name": "tz", "value": asked.tz}],
        "exceptions": list(_exceptions(asked, is_empty=not datasets)),
    }
    return orjson.dumps({"report-header": header, "report-datasets": datasets})


async def _titles(store: Store, asked: Harvest) -> dict[str, str]:
    parameters = asked.parameters()
    only = () if asked.dataset is None else (Equals("id", asked.dataset),)
    (answer,) = await store.ask(
        Question(
            metrics=(_NEWEST,),
            by=("id", "title"),
            where=AllOf((CLICKS, Exists("title"), *only)),
            start=parameters.start,
            end=parameters.end,
        )
    )
    newest = sorted((str(at), str(item), str(title)) for item, title, at in answer.rows)
    return {item: title for _, item, title in newest}


def _by_item(tally: Tally) -> dict[str, dict[str, dict[str, Counts]]]:
    found: dict[str, dict[str, dict[str, Counts]]] = defaultdict(lambda: defaultdict(dict))
    for (item, month, is_machine), counts in tally.cells.items():
        found[item][month][ACCESS_METHODS[is_machine]] = counts
    return found


def _performance(asked: Harvest, month: str, by_method: dict[str, Counts]) -> dict[str, Any] | None:
    instances = [
        instance
        for method in asked.access_methods
        if method in by_method
        for instance in _instances(asked, method, by_method[method])
    ]
    if not instances:
        return None
    begin = date.fromisoformat(f"{month}-01")
    return {"period": _period(begin, min(last_day(begin), asked.last)), "instance": instances}


def _instances(asked: Harvest, method: str, counts: Counts) -> Iterator[dict[str, Any]]:
    for at, metric_type in enumerate(METRIC_TYPES):
        if metric_type in asked.metric_types and counts.numbers[at]:
            countries = _countries(counts, at)
            yield {
                "count": counts.numbers[at],
                **({"country-counts": countries} if countries else {}),
                "access-method": method,
                "metric-type": metric_type,
            }


def _countries(counts: Counts, at: int) -> dict[str, int]:
    """Count by country as the hub wants them: codes of two letters, in lower case."""
    found: Counter[str] = Counter()
    for name, numbers in counts.countries.items():
        if _COUNTRY.fullmatch(name) and numbers[at]:
            found[name.lower()] += numbers[at]
    return dict(sorted(found.items()))


def _period(begin: date, end: date) -> dict[str, str]:
    return {"begin-date": begin.isoformat(), "end-date": end.isoformat()}


def _described(item: str, title: str, platform: Platform) -> dict[str, Any]:
    kind, _, value = platform.publisher_id.partition(":")
    identifier, uri = identify(item)
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


def identify(item: str) -> tuple[dict[str, str], str | None]:
    """Tell what an item's id is.

    Returns:
        The identifier with its type, ``doi``, ``uri`` or ``proprietary``; a DOI without what stands before it. And
        the dataset's address, if the id says it.

    """
    if doi := _DOI.fullmatch(item):
        return {"type": "doi", "value": doi[1]}, f"https://doi.org/{doi[1]}"
    if _URI.fullmatch(item):
        return {"type": "uri", "value": item}, item if item.lower().startswith("http") else None
    return {"type": "proprietary", "value": item}, None


def _filters(asked: Harvest) -> Iterator[tuple[str, str]]:
    yield "begin-date", asked.begin.isoformat()
    yield "end-date", asked.end.isoformat()
    if asked.dataset is not None:
        yield "dataset-id", asked.dataset
    if asked.metric_types != METRIC_TYPES:
        yield "metric-type", "|".join(asked.metric_types)
    if asked.access_methods != ACCESS_METHODS:
        yield "access-method", "|".join(asked.access_methods)


def _exceptions(asked: Harvest, *, is_empty: bool) -> Iterator[dict[str, Any]]:
    """Yield what of appendix B has to be said."""
    if is_empty:
        yield {"code": 3030, "severity": "error", "message": "No Usage Available for Requested Dates"}
    if asked.is_partial:
        asked_for = f"{asked.begin} to {asked.end}"
        yield {
            "code": 3040,
            "severity": "warning",
            "message": "Partial Data Returned",
            "data": f"request was for {asked_for}; however, usage is only available to {asked.last}, which is not over",
        }
    if asked.ignored:
        yield {
            "code": 3050,
            "severity": "warning",
            "message": "Parameter Not Recognized in this Context",
            "data": ", ".join(name[:60] for name in asked.ignored[:10]),
        }
