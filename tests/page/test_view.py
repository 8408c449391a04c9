from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.page.view import (
    COMPARISONS,
    METRICS,
    RANGES,
    Period,
    Span,
    View,
    parse_view,
    possible_intervals,
    resolve_earlier,
    resolve_interval,
)
from metronome.stores.query import EXCLUDE_BOTS
from metronome.times import add_months
from tests.page.stored import NOW, view_of

FILTERS = st.builds(
    lambda name, operator, value: (
        f"{quote(name, safe='')}{quote(operator[:-1], safe='')}{operator[-1]}{quote(value, safe='')}"
    ),
    st.sampled_from(["country", "id", "bot", "LCP", "a b", "ü", "url.path"]),
    st.sampled_from(["=", "!=", "^="]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
BOUNDS = st.builds(
    lambda operator, number: f"LCP{operator}{number}", st.sampled_from(["%3E", ">=", "%3C"]), st.integers(0, 999)
)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "range": st.sampled_from(RANGES),
        "tz": st.sampled_from(["UTC", "Europe/Zurich", "America/St_Johns"]),
        "metric": st.sampled_from(METRICS),
        "compare": st.sampled_from(COMPARISONS),
        "bots": st.sampled_from(["1", "0", ""]),
        "order": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "offset": st.integers(0, 999).map(str),
        "search": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    },
)
ITEM_IDS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def span_of(view: View) -> Span:
    period = view.period
    assert period.start is not None
    return Span(period.start, period.end)


@given(parameters=PARAMETERS, filters=st.lists(FILTERS | BOUNDS, max_size=3, unique_by=lambda text: text[:3]))
def test_an_address_leads_back_to_its_view(parameters: dict[str, str], filters: list[str]) -> None:
    query = "&".join([*(f"{name}={quote(value)}" for name, value in parameters.items()), *filters])
    view = parse_view(query, NOW, base_path="/m", default_time_zone="Europe/Zurich")
    path, _, again = view.href().partition("?")
    assert path == "/m/"
    assert parse_view(again, NOW, base_path="/m", default_time_zone="Europe/Zurich") == view


@given(item=ITEM_IDS, country=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4))
def test_a_table_and_an_item_lead_back_to_their_views(item: str | None, country: str) -> None:
    view = View(now=NOW, item=item).filter_by("country", country)
    path, _, query = view.href().partition("?")
    assert parse_view(query, NOW, item=None if item is None else unquote(path.removeprefix("/items/"))) == view
    table = view.change(table="formats")
    _, _, query = table.href().partition("?")
    assert parse_view(query, NOW, table="formats") == (
        table if item != "*" else parse_view(query, NOW, table="formats")
    )


@pytest.mark.parametrize(
    ("address", "start", "end"),
    [
        ("?range=today", "2015-03-31", "2015-04-01"),
        ("?range=7d", "2015-03-25", "2015-04-01"),
        ("", "2015-03-02", "2015-04-01"),
        ("?range=month", "2015-03-01", "2015-04-01"),
        ("?range=last-month", "2015-02-01", "2015-03-01"),
        ("?range=12m", "2014-04-01", "2015-04-01"),
        ("?range=all", None, "2015-04-01"),
        ("?from=2015-01-05&to=2015-01-06", "2015-01-05", "2015-01-07"),
        ("?from=2015-01-05", "2015-01-05", "2015-04-01"),
        ("?to=2015-01-05", None, "2015-01-06"),
    ],
)
def test_ranges_are_whole_days_and_include_today(address: str, start: str | None, end: str) -> None:
    def midnight(day: str) -> datetime:
        return datetime.fromisoformat(day).replace(tzinfo=UTC)

    assert view_of(address).period == Period(midnight(start) if start else None, midnight(end))


def test_days_are_those_of_the_time_zone() -> None:
    zone = ZoneInfo("Pacific/Auckland")
    period = view_of("?range=today&tz=Pacific/Auckland").period
    assert period == Period(datetime(2015, 4, 1, tzinfo=zone), datetime(2015, 4, 2, tzinfo=zone))


@pytest.mark.parametrize(
    ("address", "whole", "elapsed_end"),
    [
        ("?range=today", ("2015-03-30", "2015-03-31"), "2015-03-30T15:30"),
        ("?range=7d", ("2015-03-18", "2015-03-25"), "2015-03-24T15:30"),
        ("?range=month", ("2015-02-01", "2015-03-01"), "2015-02-28T15:30"),
        ("?range=last-month", ("2015-01-01", "2015-02-01"), "2015-02-01"),
        ("?range=last-month&compare=year", ("2014-02-01", "2014-03-01"), "2014-03-01"),
        ("?range=month&compare=year", ("2014-03-01", "2014-04-01"), "2014-03-31T15:30"),
        ("?from=2015-01-01&to=2015-02-28", ("2014-11-01", "2015-01-01"), "2015-01-01"),
        ("?from=2015-01-02&to=2015-01-03", ("2014-12-31", "2015-01-02"), "2015-01-02"),
    ],
)
def test_totals_are_compared_with_the_same_part_of_the_earlier_range(
    address: str, whole: tuple[str, str], elapsed_end: str
) -> None:
    view = view_of(address)
    earlier = resolve_earlier(view, span_of(view))
    assert earlier is not None
    texts = [moment.replace(tzinfo=None) for moment in (earlier.whole.start, earlier.whole.end, earlier.elapsed.end)]
    assert texts == [datetime.fromisoformat(text) for text in (*whole, elapsed_end)]
    assert earlier.is_partial == (earlier.elapsed.end != earlier.whole.end)


def test_nothing_is_compared_if_the_view_says_so() -> None:
    view = view_of("?compare=none")
    assert resolve_earlier(view, span_of(view)) is None


@pytest.mark.parametrize(
    ("address", "interval"),
    [
        ("?from=2015-01-01T10:00:00Z&to=2015-01-01T11:00:00Z", "minute"),
        ("?range=today", "hour"),
        ("?range=7d", "day"),
        ("?from=2015-01-01&to=2015-03-31", "day"),
        ("?range=12m", "week"),
        ("?from=2013-01-01", "month"),
        ("?range=7d&interval=hour", "hour"),
    ],
)
def test_the_range_decides_the_interval_unless_the_view_does(address: str, interval: str) -> None:
    view = view_of(address)
    assert resolve_interval(view, span_of(view)) == interval
    assert interval in possible_intervals(span_of(view))


@given(days=st.integers(1, 5_000))
def test_every_range_has_a_possible_default_interval(days: int) -> None:
    span = Span(NOW, NOW + timedelta(days=days))
    assert resolve_interval(View(now=NOW), span) in possible_intervals(span)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("?range=forever", "invalid range=forever"),
        ("?range=7d&from=2015-01-01", "exclude each other"),
        ("?from=2015-01-02&to=2015-01-01", "the range is empty"),
        ("?range=12m&interval=minute", "over 800 minutes"),
        ("?from=0001-01-01&compare=none", "over 800 months"),
        ("?tz=Mars", "unknown time zone"),
        ("?metric=x", "invalid metric=x"),
        ("?metric>5", "metric is a parameter"),
        ("?range=7d&range=7d", "repeated"),
        ("?limit=5", "limit is a parameter of /query"),
        ("?LCP>=x", "invalid bound"),
        ("?from=0001-01-01", "over 800 months"),
        ("?from=0001-02-01&to=0001-04-01", "before the start of the calendar"),
        ("?country", "invalid filter"),
    ],
)
def test_invalid_addresses_say_what_is_wrong(address: str, message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        view_of(address)


def test_addresses_are_short_and_changes_keep_the_rest() -> None:
    view = view_of("?range=7d&country=CH&interval=hour&compare=previous&offset=20")
    assert view.href(metric="downloads") == "/?range=7d&interval=hour&metric=downloads&country=CH"
    assert view.href(range="30d") == "/?country=CH"
    assert view.href(since="2015-01-01", until="2015-01-02") == "/?from=2015-01-01&to=2015-01-02&country=CH"
    assert view.filter_by("country", "DE").href() == "/?range=7d&interval=hour&country=DE"
    assert view.filter_by("id", "a b&c").href() == "/?range=7d&interval=hour&country=CH&id=a%20b%26c"


def test_items_have_pages_of_their_own() -> None:
    view = view_of("?range=7d&country=CH&id=old", base_path="/m")
    assert view.open_item("a/b?").href() == "/m/items/a%2Fb%3F?range=7d&country=CH"
    assert view_of("").open_item("..").href() == "/?id=.."
    # Nor does the way back from a table.
    assert view_of("?id=..&range=7d", table="days").leave_table().href() == "/?range=7d&id=.."
    table = view_of("?id=rivers", table="countries")
    assert (table.item, table.href(), table.leave_table().href()) == (
        "rivers",
        "/tables/countries?id=rivers",
        "/items/rivers",
    )
    assert table.csv_href("formats") == "/tables/formats.csv?id=rivers"


@pytest.mark.parametrize(
    ("address", "options", "needs_query"),
    [
        ("?range=7d&bots=1&metric=downloads&compare=year", {}, False),
        ("?id=rivers", {}, False),
        ("?id=rivers&id=trees", {}, False),
        ("?id!=rivers", {}, True),
        ("?country=CH", {}, True),
        ("?country=CH", {"item": "rivers"}, True),
        ("?metric=errors", {}, True),
    ],
)
def test_filters_and_errors_need_the_scope_query(address: str, options: dict[str, Any], *, needs_query: bool) -> None:
    assert view_of(address, **options).needs_query == needs_query


def test_robots_are_left_out_unless_a_filter_names_them() -> None:
    def excludes(address: str) -> bool:
        return EXCLUDE_BOTS in view_of(address).parameters(None, NOW).build_filter().filters

    assert excludes("")
    assert not excludes("?bots=1")
    assert not excludes("?bot=Googlebot")


def test_form_fields_hold_the_whole_view() -> None:
    view = view_of("?range=7d&country!=CH&LCP>=5&LCP<9&tz=Europe/Zurich")
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in view.form_fields())
    assert parse_view(query, NOW) == view


def test_months_that_are_shorter_end_with_their_last_day() -> None:
    assert add_months(datetime(2015, 3, 31, tzinfo=UTC).date(), -1) == datetime(2015, 2, 28, tzinfo=UTC).date()
    assert add_months(datetime(2015, 12, 31, tzinfo=UTC).date(), 2) == datetime(2016, 2, 29, tzinfo=UTC).date()
