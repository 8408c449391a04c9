"""Visitors are identified for a day, without cookies."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.enrich.enrichment import Enrichment, hash_visitor
from metronome.enrich.recent_visitors import RecentVisitors

SALT = bytes(range(32))
ONE = (SALT, "2026-01-31", "193.0.6.139", "Firefox", "data.example.org")


def test_visitor_is_the_same_for_a_day() -> None:
    assert hash_visitor(*ONE) == hash_visitor(*ONE) == "0756e16f80a726d9"


def test_any_difference_is_another_visitor() -> None:
    others = [
        (b"other salt", *ONE[1:]),
        (SALT, "2026-02-01", *ONE[2:]),
        (*ONE[:2], "193.0.6.140", *ONE[3:]),
        (*ONE[:3], "Chrome", ONE[4]),
        (*ONE[:4], "other.example.org"),
        (SALT, "2026-01-31", "193.0.6.139", "data.example.org", "Firefox"),
    ]
    names = [hash_visitor(*other) for other in [ONE, *others]]
    assert len(set(names)) == len(names)


_texts = st.text(max_size=20)
_plain = st.text("abc.:-", max_size=20)


@given(st.binary(min_size=16, max_size=80), _plain, _plain, _texts, _plain)
def test_visitor_is_sixteen_hexadecimal_digits(salt: bytes, day: str, address: str, agent: str, site: str) -> None:
    name = hash_visitor(salt, day, address, agent, site)
    assert len(name) == 16
    assert int(name, 16) >= 0


@given(st.lists(st.tuples(_plain, _plain, _texts, _plain), min_size=2, max_size=6, unique=True))
def test_inputs_are_separated_unambiguously(words: list[tuple[str, str, str, str]]) -> None:
    names = sorted((hash_visitor(SALT, *each), each) for each in words)
    assert all(first[0] != second[0] for first, second in pairwise(names))


AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SALTS = {"2015-01-22": b"one" * 9, "2015-01-23": b"two" * 9, "2015-01-24": b"six" * 9}


def visitors_at(*timestamps: str, recent: RecentVisitors | None, address: str = "193.0.6.139") -> list[str]:
    found = []
    for timestamp in timestamps:
        doc = {"@timestamp": timestamp, "event": "view", "agent": AGENT}
        Enrichment().enrich(doc, frozenset(), address, "2015-01-23T00:10:00.000Z", SALTS, recent)
        assert doc["session"] == doc["visitor"]
        found.append(doc["visitor"])
    return found


def test_who_is_there_before_and_after_midnight_stays_one_visitor() -> None:
    first, *others = visitors_at(
        "2015-01-22T23:59:00.000Z",
        "2015-01-23T00:01:00.000Z",
        "2015-01-23T00:29:59.999Z",
        recent=RecentVisitors(),
    )
    assert others == [first, first]
    before, after = visitors_at("2015-01-22T23:59:00.000Z", "2015-01-23T00:01:00.000Z", recent=None)
    assert (before, before != after) == (first, True)


@pytest.mark.parametrize(
    "timestamps",
    [
        ("2015-01-22T23:35:00.000Z", "2015-01-23T00:05:00.001Z"),  # over 30 minutes later
        ("2015-01-22T23:59:00.000Z", "2015-01-23T00:30:00.000Z"),  # the first half hour is over
        ("2015-01-22T23:29:59.999Z", "2015-01-23T00:00:00.000Z"),  # not there in the last half hour
        ("2015-01-23T00:05:00.000Z", "2015-01-22T23:59:00.000Z"),  # not in the order of time
        ("2015-01-22T23:59:00.000Z", "2015-01-24T00:01:00.000Z"),  # a day in between
    ],
)
def test_otherwise_a_new_day_has_a_new_visitor(timestamps: tuple[str, str]) -> None:
    expected = visitors_at(*timestamps, recent=None)
    assert visitors_at(*timestamps, recent=RecentVisitors()) == expected
    assert len({*expected}) == 2


def test_a_pause_is_counted_from_the_last_event() -> None:
    times = ("2015-01-22T23:31:00.000Z", "2015-01-22T23:56:00.000Z", "2015-01-23T00:20:00.000Z")
    assert len({*visitors_at(*times, recent=RecentVisitors())}) == 1
    assert len({*visitors_at(times[0], times[2], recent=RecentVisitors())}) == 2


def test_another_person_is_another_visitor_and_the_table_is_bounded() -> None:
    recent = RecentVisitors(max_visitors=2)
    addresses = ("193.0.6.1", "193.0.6.2", "193.0.6.3")
    before = [visitors_at("2015-01-22T23:59:00.000Z", recent=recent, address=each)[0] for each in addresses]
    after = [visitors_at("2015-01-23T00:01:00.000Z", recent=recent, address=each)[0] for each in addresses]
    assert after[1:] == before[1:]
    assert after[0] not in before
