"""The demo's events are the same for the same seed and time, and look like a data portal's."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from statistics import mean, median
from typing import Any, Final, cast

import orjson
import pytest

from metronome import demo
from metronome.demo import DEMO_DAYS, continue_demo, demo_days, demo_items, generate_day, load_demo
from metronome.enrich.channels import find_referrer_source
from metronome.enrich.countries import BUILT_IN, open_countries
from metronome.enrich.enrichment import Enrichment
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.intake import Intake
from metronome.protocol import IngestResult
from metronome.times import format_timestamp

NOW: Final = datetime(2020, 6, 17, 15, 30, tzinfo=UTC)
DAY_MS: Final = 86_400_000
MONDAY, FRIDAY, SATURDAY, SUNDAY = 0, 4, 5, 6


@cache
def generated() -> list[dict[str, Any]]:
    """Return all events, which takes about two seconds, once."""
    return [event for day in demo_days(NOW) for event in generate_day(day, NOW)]


@cache
def documents() -> list[dict[str, Any]]:
    """Return the documents of the events of one week, as a server would store them."""
    config = IngestConfig(enrichment=Enrichment(open_countries(BUILT_IN)))
    stamp = format_timestamp(NOW)
    context = DocumentContext(stamp, None, stamp, config)
    week = [event for day in demo_days(NOW)[-8:-1] for event in generate_day(day, NOW)]
    return [orjson.loads(build_document(Event(event), context, "none")) for event in week]


def values(events: list[dict[str, Any]], field: str, **where: object) -> Counter[Any]:
    return Counter(event[field] for event in events if field in event and where.items() <= event.items())


def is_robot(event: Mapping[str, Any]) -> bool:
    return "visitor" not in event


def test_the_same_seed_and_time_give_the_same_events_and_another_seed_gives_others() -> None:
    day = demo_days(NOW)[40]
    assert generate_day(day, NOW) == generate_day(day, NOW)
    first, other = ({event["event_id"] for event in generate_day(day, NOW, seed)} for seed in (1, 2))
    assert first.isdisjoint(other)


@pytest.mark.slow
def test_an_event_id_is_unique_within_the_whole_demo() -> None:
    assert len({event["event_id"] for event in generated()}) == len(generated())


@pytest.mark.parametrize("later", [timedelta(minutes=7), timedelta(hours=5)])
def test_later_on_the_day_there_are_the_same_events_and_those_that_happened_since(later: timedelta) -> None:
    day, end_ms = NOW.date(), NOW.timestamp() * 1000
    after = generate_day(day, NOW + later)
    assert [event for event in after if event["ts"] <= end_ms] == generate_day(day, NOW)
    assert len(after) > len(generate_day(day, NOW))


@pytest.mark.parametrize("days", [1, 20])
def test_on_later_days_a_day_has_no_other_events_than_it_had(days: int) -> None:
    day, midnight = NOW.date(), datetime(2020, 6, 18, tzinfo=UTC)
    before = {event["event_id"]: event for event in generate_day(day, midnight)}
    after = [
        event
        for event in generate_day(day, midnight + timedelta(days=days))
        if event["ts"] <= midnight.timestamp() * 1000
    ]
    assert after
    assert all(before[event["event_id"]] == event for event in after)


def test_there_are_about_a_hundred_thousand_events_in_the_last_90_days_and_none_in_the_future() -> None:
    assert len(demo_days(NOW)) == DEMO_DAYS
    assert demo_days(NOW)[0] == date(2020, 3, 20)
    assert 85_000 < len(generated()) < 130_000
    assert all(event["ts"] <= NOW.timestamp() * 1000 for event in generated())
    assert {event["ts"] // DAY_MS for event in generated()} == {
        day.toordinal() - date(1970, 1, 1).toordinal() for day in demo_days(NOW)
    }


def test_items_have_titles_and_downloads_in_six_formats() -> None:
    assert len(demo_items()) == 40
    assert {event["id"] for event in generated()} == demo_items().keys()
    assert all(event["title"] == demo_items()[event["id"]] for event in generated() if event["event"] == "view")
    assert values(generated(), "format").keys() == {"csv", "geojson", "json", "parquet", "pdf", "xlsx"}


def test_weekends_are_quiet_and_usage_grows() -> None:
    views = Counter(
        datetime.fromtimestamp(event["ts"] / 1000, UTC).date()
        for event in generated()
        if event["event"] == "view" and not is_robot(event)
    )
    working = mean(count for day, count in views.items() if MONDAY <= day.weekday() <= FRIDAY)
    weekend = mean(count for day, count in views.items() if day.weekday() in (SATURDAY, SUNDAY))
    assert 0.25 < weekend / working < 0.6
    days = demo_days(NOW)
    # The median, because campaigns come and go.
    first, last = (median(views[day] for day in month) for month in (days[:28], days[61:89]))
    assert last > 1.1 * first
    assert max(views.values()) > 1.6 * working


def test_nights_are_quiet() -> None:
    hours = Counter(event["ts"] // 3_600_000 % 24 for event in generated() if not is_robot(event))
    assert sum(hours[hour] for hour in range(1, 5)) < 0.33 * sum(hours[hour] for hour in range(8, 12))


def test_a_fifth_to_a_third_of_events_are_those_of_robots_of_several_kinds() -> None:
    robots = [document for document in documents() if "bot" in document]
    assert 0.2 < len(robots) / len(documents()) < 0.35
    assert values(documents(), "bot_kind").keys() >= {"search", "ai", "seo", "monitor"}
    assert {"visitor" in document for document in robots} == {False}


def test_sessions_have_paths_and_times_on_each_page() -> None:
    pages = Counter(event["session"] for event in generated() if event["event"] == "view" and not is_robot(event))
    assert 1.3 < mean(pages.values()) < 2.5
    assert max(pages.values()) > 4
    assert all(
        event["referer_url"].startswith("https://data.example.org/dataset/")
        for event in generated()
        if "referer_url" in event
    )
    heartbeats = values(generated(), "session", event="heartbeat")
    assert 0.6 < len(heartbeats.keys() & pages.keys()) / len(pages) < 0.95


def test_visitors_come_from_many_places_with_many_browsers() -> None:
    assert values(documents(), "country").keys() >= {"CH", "DE", "AT", "FR", "IT", "US", "GB", "NL"}
    assert values(documents(), "browser").keys() >= {"Chrome", "Edge", "Firefox", "Safari", "curl", "python-requests"}
    assert values(documents(), "os").keys() >= {"Windows", "macOS", "iOS", "Android", "Linux"}
    assert values(documents(), "device").keys() >= {"desktop", "mobile", "tablet", "script"}
    assert values(documents(), "channel").keys() >= {"direct", "search", "ai", "social", "referral", "email"}
    campaigns = values(generated(), "url", event="view")
    assert {"open-data-week", "map-of-the-month", "newsletter-2020-05"} <= {
        url.rpartition("utm_campaign=")[2] for url in campaigns
    }


def test_every_visitor_has_a_country_and_every_search_engine_is_known() -> None:
    visits = [document for document in documents() if document["event"] == "view" and "bot" not in document]
    assert {"country" in document for document in visits} == {True}
    hosts = {document["referer"].partition("/")[0] for document in visits if "referer" in document}
    assert all(find_referrer_source(host) is not None for host in hosts if "google" in host)


def test_there_are_errors_of_scripts_and_of_requests_and_load_times() -> None:
    groups = values(documents(), "error_group")
    assert {"HTTP 404", "HTTP 500"} <= groups.keys()
    assert any(group.startswith(("TypeError", "ReferenceError")) for group in groups)
    timings = [document for document in documents() if document["event"] == "timing"]
    assert len(timings) > 500
    assert all(0 < document["TTFB"] < document["FCP"] < document["LCP"] for document in timings)


class RecordingIntake:
    """Records the events that it is given."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    async def store(self, events: Iterable[Event], *, is_trusted: bool) -> IngestResult:
        assert is_trusted
        new = [event.fields for event in events]
        self.events += new
        return IngestResult(len(new), {})


async def test_loads_each_day_and_then_continues_with_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_days(now: datetime) -> list[date]:
        return demo_days(now)[-2:]

    times = iter([NOW + timedelta(minutes=20), NOW + timedelta(minutes=50)])
    monkeypatch.setattr(demo, "demo_days", last_days)
    monkeypatch.setattr(demo, "_CONTINUE_SECONDS", 0)
    recording = RecordingIntake()
    intake = cast("Intake", recording)
    assert await load_demo(intake, NOW) == len(recording.events) > 500
    # The clock of the test has no further time.
    with pytest.raises(RuntimeError, match="StopIteration"):
        await continue_demo(intake, NOW, lambda: next(times).timestamp())
    later = NOW + timedelta(minutes=50)
    expected = [event for day in last_days(later) for event in generate_day(day, later)]
    assert sorted(event["event_id"] for event in recording.events) == sorted(event["event_id"] for event in expected)
