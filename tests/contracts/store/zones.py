"""Time: days are those of the zone, however long they are, and ranges end before their end."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest

from metronome.stores.base import Store
from metronome.stores.query import COUNT, TIME_UNITS, Equals, Query
from tests.contracts.store.events import StoreContract, count_events, event_document, query_rows, write_new_documents

SPRING_IN_ZURICH: Final = (
    "2015-03-28T22:59:59.999Z",  # 23:59 on the 28th
    "2015-03-28T23:00:00.000Z",  # 00:00 on the 29th
    "2015-03-29T00:59:59.999Z",  # 01:59, and a millisecond later
    "2015-03-29T01:00:00.000Z",  # it is 03:00
    "2015-03-29T21:59:59.999Z",  # 23:59 on the 29th, a Sunday
    "2015-03-29T22:00:00.000Z",  # 00:00 on the 30th
)
AUTUMN_IN_ZURICH: Final = (
    "2015-10-24T22:00:00.000Z",  # 00:00 on the 25th, a Sunday
    "2015-10-25T00:30:30.000Z",  # 02:30 for the first time
    "2015-10-25T01:30:30.000Z",  # and again
    "2015-10-25T01:30:59.999Z",
    "2015-10-25T22:59:59.999Z",  # 23:59
    "2015-10-25T23:00:00.000Z",  # 00:00 on the 26th
)


class TimeZoneTests(StoreContract):
    """Events are grouped by the times of the zone that is asked for."""

    @pytest.mark.parametrize(
        ("unit", "expected"),
        [
            ("month", {"2015-03": 6}),
            ("week", {"2015-03-23": 5, "2015-03-30": 1}),
            ("day", {"2015-03-28": 1, "2015-03-29": 4, "2015-03-30": 1}),
            (
                "hour",
                {
                    "2015-03-28T23:00:00+01:00": 1,
                    "2015-03-29T00:00:00+01:00": 1,
                    "2015-03-29T01:00:00+01:00": 1,
                    "2015-03-29T03:00:00+02:00": 1,
                    "2015-03-29T23:00:00+02:00": 1,
                    "2015-03-30T00:00:00+02:00": 1,
                },
            ),
            (
                "minute",
                {
                    "2015-03-28T23:59:00+01:00": 1,
                    "2015-03-29T00:00:00+01:00": 1,
                    "2015-03-29T01:59:00+01:00": 1,
                    "2015-03-29T03:00:00+02:00": 1,
                    "2015-03-29T23:59:00+02:00": 1,
                    "2015-03-30T00:00:00+02:00": 1,
                },
            ),
        ],
    )
    async def test_skips_the_missing_hour_in_spring(self, store: Store, unit: str, expected: dict[str, int]) -> None:
        await write_new_documents(store, *map(event_document, SPRING_IN_ZURICH))
        assert dict(await query_rows(store, Query(group_by=(unit,), time_zone="Europe/Zurich"))) == expected

    @pytest.mark.parametrize(
        ("unit", "expected"),
        [
            ("month", {"2015-10": 6}),
            ("week", {"2015-10-19": 5, "2015-10-26": 1}),
            ("day", {"2015-10-25": 5, "2015-10-26": 1}),
            (
                "hour",
                {
                    "2015-10-25T00:00:00+02:00": 1,
                    "2015-10-25T02:00:00+02:00": 1,
                    "2015-10-25T02:00:00+01:00": 2,
                    "2015-10-25T23:00:00+01:00": 1,
                    "2015-10-26T00:00:00+01:00": 1,
                },
            ),
            (
                "minute",
                {
                    "2015-10-25T00:00:00+02:00": 1,
                    "2015-10-25T02:30:00+02:00": 1,
                    "2015-10-25T02:30:00+01:00": 2,
                    "2015-10-25T23:59:00+01:00": 1,
                    "2015-10-26T00:00:00+01:00": 1,
                },
            ),
        ],
    )
    async def test_distinguishes_the_repeated_hour_in_autumn(
        self, store: Store, unit: str, expected: dict[str, int]
    ) -> None:
        await write_new_documents(store, *map(event_document, AUTUMN_IN_ZURICH))
        assert dict(await query_rows(store, Query(group_by=(unit,), time_zone="Europe/Zurich"))) == expected

    @pytest.mark.parametrize(
        ("zone", "at", "expected"),
        [
            ("UTC", "2015-01-22T09:30:59.999Z", "09:30Z on 2015-01-22, week 2015-01-19, month 2015-01"),
            ("Europe/London", "2015-01-22T09:30:00.000Z", "09:30Z on 2015-01-22, week 2015-01-19, month 2015-01"),
            ("Europe/London", "2015-06-30T23:30:00.000Z", "00:30+01:00 on 2015-07-01, week 2015-06-29, month 2015-07"),
            ("America/New_York", "2015-02-02T04:59:00Z", "23:59-05:00 on 2015-02-01, week 2015-01-26, month 2015-02"),
            ("America/New_York", "2015-02-01T04:59:00Z", "23:59-05:00 on 2015-01-31, week 2015-01-26, month 2015-01"),
            ("Asia/Kolkata", "2014-12-31T18:30:00Z", "00:00+05:30 on 2015-01-01, week 2014-12-29, month 2015-01"),
            ("Asia/Kolkata", "2014-12-31T18:29:59.999Z", "23:59+05:30 on 2014-12-31, week 2014-12-29, month 2014-12"),
            ("Asia/Kathmandu", "2015-01-22T18:20:00Z", "00:05+05:45 on 2015-01-23, week 2015-01-19, month 2015-01"),
            ("America/St_Johns", "2015-03-08T05:15:00Z", "01:45-03:30 on 2015-03-08, week 2015-03-02, month 2015-03"),
            ("America/St_Johns", "2015-03-08T05:45:00Z", "03:15-02:30 on 2015-03-08, week 2015-03-02, month 2015-03"),
            # Midnight is skipped there.
            ("America/Sao_Paulo", "2015-10-18T03:00:00Z", "01:00-02:00 on 2015-10-18, week 2015-10-12, month 2015-10"),
            # The 30th of December 2011 is skipped there.
            ("Pacific/Apia", "2011-12-30T10:00:00Z", "00:00+14:00 on 2011-12-31, week 2011-12-26, month 2011-12"),
            ("Pacific/Auckland", "2015-09-26T14:00:00Z", "03:00+13:00 on 2015-09-27, week 2015-09-21, month 2015-09"),
        ],
    )
    async def test_formats_time_units_in_the_time_zone(self, store: Store, zone: str, at: str, expected: str) -> None:
        await write_new_documents(store, event_document(at))
        (named,) = await query_rows(store, Query((COUNT,), ("minute", "hour", "day", "week", "month"), time_zone=zone))
        minute, hour, day, week, month, _ = named
        assert f"{minute[11:16]}{minute[19:]} on {day}, week {week}, month {month}" == expected
        assert hour == f"{minute[:14]}00{minute[16:]}"
        for unit, name in zip(("minute", "hour", "day", "week", "month"), named, strict=False):
            assert await query_rows(store, Query(group_by=(unit,), time_zone=zone)) == [(name, 1)]

    async def test_time_units_give_the_same_counts_alone_and_combined(self, store: Store) -> None:
        await write_new_documents(store, *map(event_document, SPRING_IN_ZURICH + AUTUMN_IN_ZURICH))
        for tz in ("Europe/Zurich", "America/St_Johns", "UTC"):
            for unit in TIME_UNITS:
                alone = await query_rows(store, Query(group_by=(unit,), time_zone=tz))
                together = await query_rows(store, Query(group_by=(unit, "event"), time_zone=tz))
                assert [(name, "view", number) for name, number in alone] == together

    async def test_time_ranges_include_start_and_exclude_end(self, store: Store) -> None:
        await write_new_documents(
            store,
            event_document("2015-01-21T23:59:59.999Z", id="1"),
            event_document("2015-01-22T00:00:00.000Z", id="2"),
            event_document("2015-01-22T00:00:00.001Z", id="3"),
            event_document("2015-01-22T23:59:59.999Z", id="4"),
            event_document("2015-01-23T00:00:00.000Z", id="5"),
        )
        start, end = datetime(2015, 1, 22, tzinfo=UTC), datetime(2015, 1, 23, tzinfo=UTC)
        zurich = timezone(timedelta(hours=1))
        microsecond = timedelta(microseconds=1)
        for given, expected in (
            ((None, None), "12345"),
            ((start, None), "2345"),
            ((None, start), "1"),
            ((None, end), "1234"),
            ((start, end), "234"),
            ((start.astimezone(zurich), end.astimezone(zurich)), "234"),
            ((start + microsecond, end + microsecond), "345"),
            ((start - microsecond, start + microsecond), "2"),
            ((start, start), ""),
            ((end, start), ""),
            ((datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)), "12345"),
        ):
            question = Query(group_by=("id",), start=given[0], end=given[1])
            assert "".join(name for name, _ in await query_rows(store, question)) == expected
            assert len([each async for each in store.iterate_documents(start=given[0], end=given[1])]) == len(expected)
        found = [each async for each in store.iterate_documents(Equals("id", "3"), start, end)]
        assert len(found) == 1
        assert await count_events(store) == 5

    @pytest.mark.slow  # Elasticsearch creates an index for each day
    async def test_groups_by_minute_over_many_years(self, store: Store) -> None:
        await write_new_documents(store, *[event_document(f"{year}-06-01T12:00:30Z") for year in range(1990, 2030)])
        named = await query_rows(store, Query(group_by=("minute",), time_zone="Europe/Zurich", limit=2, offset=20))
        assert named == [("2010-06-01T14:00:00+02:00", 1), ("2011-06-01T14:00:00+02:00", 1)]
