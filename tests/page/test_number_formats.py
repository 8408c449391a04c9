"""How pages write numbers."""

import math

import pytest

from metronome.page.model import Headline, Unit
from metronome.page.numbers import (
    describe_change,
    format_age,
    format_change,
    format_duration,
    format_number,
    format_share,
    judge_change,
)


def plain(text: str) -> str:
    """Return a text with common spaces and hyphens in place of those that a page writes."""
    return text.replace("\u00a0", " ").replace("\u2212", "-").replace("\u2013", "none").replace("\u00d7", "x")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, Unit.COUNT, "0"),
        (19242, Unit.COUNT, "19,242"),
        (-1200.4, Unit.COUNT, "-1,200"),
        (None, Unit.COUNT, "none"),
        (math.nan, Unit.COUNT, "none"),
        (112_000, Unit.MILLISECONDS, "1 m 52 s"),
        (0.1234, Unit.SCORE, "0.12"),
    ],
)
def test_numbers_have_thousands_separators_and_units(value: float | None, unit: Unit, text: str) -> None:
    assert plain(format_number(value, unit)) == text


def test_estimates_are_marked() -> None:
    assert format_number(9204, exact=False) == "≈9,204"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (0.4, "0 ms"),
        (999.4, "999 ms"),
        (999.6, "1 s"),
        (1_000, "1 s"),
        (4_230, "4.2 s"),
        (9_960, "10 s"),
        (59_400, "59 s"),
        (59_600, "1 m"),
        (112_000, "1 m 52 s"),
        (3_599_600, "1 h"),
        (11_100_000, "3 h 5 m"),
        (86_400_000, "1 d"),
        (187_200_000, "2 d 4 h"),
    ],
)
def test_durations_have_at_most_two_units(milliseconds: float, text: str) -> None:
    assert plain(format_duration(milliseconds)) == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (0.1425, "+14 %"),
        (-0.04, "-4 %"),
        (0.001, "±0 %"),
        (-1.0, "-100 %"),
        (9.99, "+999 %"),
        (25.0, "x26"),
        (None, ""),
    ],
)
def test_changes_have_a_sign(change: float | None, text: str) -> None:
    assert plain(format_change(change)) == text


@pytest.mark.parametrize(("share", "text"), [(0.614, "61 %"), (0.004, "<1 %"), (0, "0 %"), (1, "100 %"), (None, "")])
def test_shares_are_percentages(share: float | None, text: str) -> None:
    assert plain(format_share(share)) == text


@pytest.mark.parametrize(
    ("value", "previous", "change", "words", "judgement"),
    [
        (19242, 16842, 0.1425, "14 % more than October (16,842)", "good"),
        (90, 100, -0.1, "10 % less than October (100)", "bad"),
        (100, 100, 0.0, "as in October (100)", ""),
        (2600, 100, 25.0, "26 times as in October (100)", "good"),
        (5, 0, None, "October: 0", ""),
        (5, None, None, "", ""),
    ],
)
def test_changes_are_said_in_words(
    value: float, previous: float | None, change: float | None, words: str, judgement: str
) -> None:
    headline = Headline("views", "Views", value, previous, change, Unit.COUNT, "/")
    assert plain(describe_change(headline, "October")) == words
    assert judge_change(headline) == judgement


def test_a_rise_of_errors_is_bad_and_one_of_a_neutral_number_neither() -> None:
    assert judge_change(Headline("errors", "Errors", 2, 1, 1.0, Unit.COUNT, "", more_is_better=False)) == "bad"
    assert judge_change(Headline("time", "Time", 2, 1, 1.0, Unit.COUNT, "", more_is_better=None)) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 seconds ago"), (1, "1 second ago"), (179, "2 minutes ago"), (3600, "1 hour ago"), (200_000, "2 days ago")],
)
def test_ages_are_in_one_unit(seconds: float, text: str) -> None:
    assert format_age(seconds) == text
