"""Rows of two ranges side by side."""

from typing import Any, Final

from metronome.reports.query.compare import join_rows
from metronome.stores.query import Metric

METRICS: Final = tuple(map(Metric.parse, ("count", "avg:a", "last")))


def test_groups_of_either_range_have_both_values_and_the_relative_change() -> None:
    now: list[tuple[Any, ...]] = [("a", 3, 1.5, "2026"), ("new", 1, None, "2026")]
    before: list[tuple[Any, ...]] = [("a", 4, -1.0, "2025"), ("gone", 2, 0.0, "2025")]
    assert join_rows(now, before, METRICS, 1, {}) == [
        ("a", 3, 4, -0.25, 1.5, -1.0, 2.5, "2026", "2025", None),
        ("new", 1, 0, None, None, None, None, "2026", None, None),
        ("gone", 0, 2, -1.0, None, 0.0, None, None, "2025", None),
    ]


def test_joins_time_units_by_the_mapping() -> None:
    now: list[tuple[Any, ...]] = [("2026-03-02", "x", 5)]
    before: list[tuple[Any, ...]] = [("2026-02-28", "x", 4), ("2026-02-27", "y", 2), ("2026-02-26", "x", 9)]
    places = {0: {"2026-02-27": "2026-03-01", "2026-02-28": "2026-03-02"}}
    assert join_rows(now, before, METRICS[:1], 2, places) == [
        ("2026-03-02", "x", 5, 4, 0.25),
        ("2026-03-01", "y", 0, 2, -1.0),
    ]


def test_without_groups_there_is_one_row() -> None:
    assert join_rows([(6,)], [(4,)], METRICS[:1], 0, {}) == [(6, 4, 0.5)]
