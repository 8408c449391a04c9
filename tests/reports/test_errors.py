"""Errors: by day, message and browser, of an item and of all, on both stores."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.reports.errors import errors_report
from metronome.reports.parameters import ReportParameters
from metronome.stores.base import Store
from tests.reports.filled import BACK_ENDS, filled, told

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""


def error(at: str, group: str, session: str | None, **fields: Any) -> dict[str, Any]:
    return {"id": "a", "event": "error", "ts": f"2015-01-{at}:00Z", "error_group": group, "session": session, **fields}


def seen(item: str, session: str) -> dict[str, Any]:
    return {"id": item, "ts": "2015-01-22T09:00:00Z", "session": session}


FIREFOX: Final = {"browser": "Firefox", "browser_version": "140"}
CHROME: Final = {"browser": "Chrome", "browser_version": "142"}
EVENTS: Final[list[dict[str, Any]]] = [
    error("22T10:00", "no item #", "s1", message="no item 17", **FIREFOX),
    error("22T10:30", "no item #", "s1", message="no item 18", **FIREFOX),
    error("21T23:30", "no item #", "s2", message="no item 4711", **CHROME),
    error("20T08:00", "HTTP 404", "s2", browser="Firefox"),
    error("22T11:00", "HTTP 404", None, browser="Firefox", browser_version="139"),
    error("22T11:00", "HTTP 404", "bot", bot="crawler", **CHROME),
    # Stored before there were groups.
    error("22T12:00", "", "s1", **FIREFOX) | {"error_group": None},
    error("22T12:00", "of another item", "s4", id="b"),
    error("22T13:00", "of no item", "s5") | {"id": None},
    *(seen("a", session) for session in ("s1", "s2", "s3", "s3", "s6")),
    *(seen("b", session) for session in ("s1", "s4", "s7")),
]


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


def message(name: str, count: int, sessions: int, first: str, last: str) -> dict[str, Any]:
    first, last = (f"2015-01-{moment}:00.000Z" for moment in (first, last))
    return {"message": name, "count": count, "sessions": sessions, "first": first, "last": last}


def browser(name: str, version: str | None, count: int, sessions: int) -> dict[str, Any]:
    return {"browser": name, "version": version, "count": count, "sessions": sessions}


OF_A: Final[dict[str, Any]] = {
    "days": {"2015-01-22": 4, "2015-01-21": 1, "2015-01-20": 1},
    "messages": [
        message("no item #", 3, 2, "21T23:30", "22T10:30"),
        message("HTTP 404", 2, 1, "20T08:00", "22T11:00"),
    ],
    "browsers": [
        browser("Firefox", "140", 3, 1),
        browser("Chrome", "142", 1, 1),
        browser("Firefox", None, 1, 1),
        browser("Firefox", "139", 1, 0),
    ],
    # s1 and s2 of s1, s2, s3 and s6.
    "session_share": 0.5,
}


async def test_reports_errors_of_an_item_by_day_message_and_browser(store: Store) -> None:
    found = told(store, await errors_report(store, "a", ReportParameters()))
    assert found == OF_A
    assert list(found) == ["days", "messages", "browsers", "session_share"]
    assert list(found["days"]) == ["2015-01-22", "2015-01-21", "2015-01-20"]


async def test_reports_errors_of_all_items_and_those_without_an_item(store: Store) -> None:
    found = told(store, await errors_report(store, None, ReportParameters()))
    assert found["days"] == {"2015-01-22": 6, "2015-01-21": 1, "2015-01-20": 1}
    assert [(each["message"], each["count"]) for each in found["messages"]] == [
        ("no item #", 3),
        ("HTTP 404", 2),
        ("of another item", 1),
        ("of no item", 1),
    ]
    # s1, s2, s4 and s5 of s1 to s7.
    assert found["session_share"] == 0.5714
    assert found["items"] == [{"id": "a", "count": 6}, {"id": "b", "count": 1}]


async def test_includes_bots_on_request(store: Store) -> None:
    found = told(store, await errors_report(store, "a", ReportParameters(include_bots=True)))
    assert found["days"]["2015-01-22"] == 5
    assert found["messages"][0] == message("HTTP 404", 3, 2, "20T08:00", "22T11:00")
    assert found["browsers"][1] == browser("Chrome", "142", 2, 2)
    # s1, s2 and the bot's, of these, s3 and s6.
    assert found["session_share"] == 0.6


async def test_the_limit_applies_to_messages_browsers_and_items_but_not_to_days(store: Store) -> None:
    found = told(store, await errors_report(store, None, ReportParameters(limit=1)))
    assert len(found["days"]) == 3
    assert found["messages"] == OF_A["messages"][:1]
    assert found["browsers"] == OF_A["browsers"][:1]
    assert found["items"] == [{"id": "a", "count": 6}]


async def test_the_range_applies_to_all_parts(store: Store) -> None:
    day = ReportParameters(start=datetime(2015, 1, 20, tzinfo=UTC), end=datetime(2015, 1, 22, tzinfo=UTC))
    assert told(store, await errors_report(store, "a", day)) == {
        "days": {"2015-01-21": 1, "2015-01-20": 1},
        "messages": [
            message("HTTP 404", 1, 1, "20T08:00", "20T08:00"),
            message("no item #", 1, 1, "21T23:30", "21T23:30"),
        ],
        "browsers": [browser("Chrome", "142", 1, 1), browser("Firefox", None, 1, 1)],
        "session_share": 1.0,
    }


async def test_days_are_those_of_the_time_zone(store: Store) -> None:
    found = told(store, await errors_report(store, "a", ReportParameters(tz="Europe/Zurich")))
    assert found["days"] == {"2015-01-22": 5, "2015-01-20": 1}


async def test_an_unknown_item_has_no_share(store: Store) -> None:
    nothing: dict[str, Any] = {"days": {}, "messages": [], "browsers": [], "session_share": None}
    assert told(store, await errors_report(store, "never", ReportParameters())) == nothing


async def test_an_item_without_errors_has_a_share_of_zero(store: Store) -> None:
    day = ReportParameters(start=datetime(2015, 1, 22, 8, tzinfo=UTC), end=datetime(2015, 1, 22, 9, 30, tzinfo=UTC))
    assert told(store, await errors_report(store, "a", day))["session_share"] == 0.0
