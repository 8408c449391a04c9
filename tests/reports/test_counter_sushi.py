"""The dataset report: SUSHI's shape, by the names of its schema, and what it says of what is missing."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any, Final

import orjson
import pytest

from metronome.errors import QueryTooExpensive
from metronome.reports.counter.dataset_report import DatasetReportRequest, Platform, classify_identifier, dataset_report
from metronome.stores.base import Store
from tests.reports.filled import BACK_ENDS, filled

PLATFORM: Final = Platform("Data of Ours", "University of Ours", "grid:grid.1234.5")
TODAY: Final = date(2026, 4, 2)
JANUARY: Final = DatasetReportRequest(date(2026, 1, 1), date(2026, 1, 31), TODAY)
QUARTER: Final = DatasetReportRequest(date(2026, 1, 1), date(2026, 3, 31), TODAY)
DOI: Final = "https://doi.org/10.5072/xy.1"
EVENTS: Final[list[dict[str, Any]]] = [
    {"id": DOI, "ts": "2026-01-10T10:00:00Z", "session": "s", "title": "An older title", "country": "CH"},
    {"id": DOI, "ts": "2026-01-10T10:05:00Z", "session": "s", "title": "Lakes", "country": "CH"},
    {"id": DOI, "ts": "2026-01-10T10:06:00Z", "session": "s", "format": "csv", "country": "ch"},
    {"id": DOI, "ts": "2026-01-11T10:00:00Z", "country": "Switzerland"},
    {"id": DOI, "ts": "2026-01-12T10:00:00Z", "session": "m", "format": "csv", "device": "script", "country": "US"},
    {"id": DOI, "ts": "2026-03-12T10:00:00Z", "session": "m"},
    {"id": "dams", "ts": "2026-01-31T23:59:59.999Z", "session": "s", "country": "DE"},
    {"id": "dams", "ts": "2026-02-01T00:00:00Z", "session": "t"},
    {"id": "bots only", "ts": "2026-01-10T10:00:00Z", "session": "b", "bot": "Googlebot", "title": "Bots"},
    {"ts": "2026-01-10T10:00:00Z", "session": "s", "title": "No item"},
]


@pytest.fixture(params=BACK_ENDS)
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as opened:
        yield opened


async def report(store: Store, asked: DatasetReportRequest, platform: Platform = PLATFORM) -> Any:
    return orjson.loads(await dataset_report(store, asked, platform))


def instance(count: int, method: str, metric: str, **countries: int) -> dict[str, Any]:
    return {
        "count": count,
        **({"country-counts": countries} if countries else {}),
        "access-method": method,
        "metric-type": metric,
    }


JANUARYS: Final = {"begin-date": "2026-01-01", "end-date": "2026-01-31"}


async def test_reports_a_month_in_the_format_of_sushi(store: Store) -> None:
    assert await report(store, JANUARY) == {
        "report-header": {
            "report-name": "dataset report",
            "report-id": "dsr",
            "release": "rd1",
            "created": "2026-04-02",
            "created-by": "Data of Ours",
            "reporting-period": JANUARYS,
            "report-filters": [
                {"name": "begin-date", "value": "2026-01-01"},
                {"name": "end-date", "value": "2026-01-31"},
            ],
            "report-attributes": [],
            "exceptions": [],
        },
        "report-datasets": [
            {
                "dataset-title": "",
                "dataset-id": [{"type": "proprietary", "value": "dams"}],
                "platform": "Data of Ours",
                "publisher": "University of Ours",
                "publisher-id": [{"type": "grid", "value": "grid.1234.5"}],
                "data-type": "dataset",
                "yop": "0001",
                "performance": [
                    {
                        "period": JANUARYS,
                        "instance": [
                            instance(1, "regular", "total-dataset-investigations", de=1),
                            instance(1, "regular", "unique-dataset-investigations", de=1),
                        ],
                    }
                ],
            },
            {
                "dataset-title": "Lakes",
                "dataset-id": [{"type": "doi", "value": "10.5072/xy.1"}],
                "platform": "Data of Ours",
                "publisher": "University of Ours",
                "publisher-id": [{"type": "grid", "value": "grid.1234.5"}],
                "data-type": "dataset",
                "yop": "0001",
                "uri": "https://doi.org/10.5072/xy.1",
                "performance": [
                    {
                        "period": JANUARYS,
                        "instance": [
                            instance(4, "regular", "total-dataset-investigations", ch=3),
                            instance(2, "regular", "unique-dataset-investigations", ch=1),
                            instance(1, "regular", "total-dataset-requests", ch=1),
                            instance(1, "regular", "unique-dataset-requests", ch=1),
                            instance(1, "machine", "total-dataset-investigations", us=1),
                            instance(1, "machine", "unique-dataset-investigations", us=1),
                            instance(1, "machine", "total-dataset-requests", us=1),
                            instance(1, "machine", "unique-dataset-requests", us=1),
                        ],
                    }
                ],
            },
        ],
    }


async def test_each_month_with_usage_is_a_separate_performance(store: Store) -> None:
    dams, lakes = (await report(store, QUARTER))["report-datasets"]
    assert [one["period"]["begin-date"] for one in dams["performance"]] == ["2026-01-01", "2026-02-01"]
    assert [one["period"]["end-date"] for one in lakes["performance"]] == ["2026-01-31", "2026-03-31"]


async def test_filters_select_metric_types_and_access_methods(store: Store) -> None:
    asked = DatasetReportRequest(
        date(2026, 1, 1),
        date(2026, 1, 31),
        TODAY,
        metric_types=("unique-dataset-requests",),
        access_methods=("machine",),
        tz="Europe/Zurich",
    )
    found = await report(store, asked)
    (lakes,) = found["report-datasets"]
    assert lakes["performance"][0]["instance"] == [instance(1, "machine", "unique-dataset-requests", us=1)]
    assert found["report-header"]["report-filters"][2:] == [
        {"name": "metric-type", "value": "unique-dataset-requests"},
        {"name": "access-method", "value": "machine"},
    ]
    assert found["report-header"]["report-attributes"] == [{"name": "tz", "value": "Europe/Zurich"}]


async def test_reports_a_single_dataset(store: Store) -> None:
    found = await report(store, DatasetReportRequest(date(2026, 1, 1), date(2026, 2, 28), TODAY, dataset="dams"))
    (dams,) = found["report-datasets"]
    assert dams["dataset-id"] == [{"type": "proprietary", "value": "dams"}]
    assert len(dams["performance"]) == 2
    assert {"name": "dataset-id", "value": "dams"} in found["report-header"]["report-filters"]


async def test_missing_data_is_reported_as_an_exception(store: Store) -> None:
    asked = DatasetReportRequest(date(2026, 3, 1), date(2026, 3, 31), date(2026, 3, 5), ignored=("yop", "version"))
    found = await report(store, asked)
    header = found["report-header"]
    assert header["reporting-period"] == {"begin-date": "2026-03-01", "end-date": "2026-03-05"}
    assert [(one["code"], one["severity"]) for one in header["exceptions"]] == [
        (3030, "error"),
        (3040, "warning"),
        (3050, "warning"),
    ]
    assert header["exceptions"][2]["data"] == "yop, version"
    assert found["report-datasets"] == []


async def test_unknown_values_are_empty(store: Store) -> None:
    dams, _ = (await report(store, JANUARY, Platform()))["report-datasets"]
    assert {name: dams[name] for name in ("dataset-title", "platform", "publisher", "publisher-id")} == {
        "dataset-title": "",
        "platform": "",
        "publisher": "",
        "publisher-id": [],
    }


async def test_a_report_times_out(store: Store) -> None:
    with pytest.raises(QueryTooExpensive, match="counting takes over 0 s"):
        await dataset_report(store, JANUARY, PLATFORM, timeout_seconds=0)


@pytest.mark.parametrize(
    ("item", "kind", "value", "uri"),
    [
        ("10.5072/FK2/a(1)<b>", "doi", "10.5072/FK2/a(1)<b>", "https://doi.org/10.5072/FK2/a(1)<b>"),
        ("doi:10.5072/a", "doi", "10.5072/a", "https://doi.org/10.5072/a"),
        ("DOI:10.5072/a", "doi", "10.5072/a", "https://doi.org/10.5072/a"),
        ("http://dx.doi.org/10.5072/a", "doi", "10.5072/a", "https://doi.org/10.5072/a"),
        ("https://example.org/a b", "proprietary", "https://example.org/a b", None),
        ("https://example.org/a", "uri", "https://example.org/a", "https://example.org/a"),
        ("urn:nbn:ch:bel-1", "uri", "urn:nbn:ch:bel-1", None),
        ("ark:/12345/a", "uri", "ark:/12345/a", None),
        ("/datasets/10.5072/a", "proprietary", "/datasets/10.5072/a", None),
        ("10.5/a", "proprietary", "10.5/a", None),
        ("7", "proprietary", "7", None),
    ],
)
def test_classifies_item_ids(item: str, kind: str, value: str, uri: str | None) -> None:
    assert classify_identifier(item) == ({"type": kind, "value": value}, uri)
