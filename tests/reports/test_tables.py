"""Reports as tables, which real readers of CSV and NDJSON read."""

import csv
import io
from typing import Any

import orjson
import pytest

from metronome.reports.tables import build_report_table, encode_csv, encode_ndjson

USAGE = {"total_investigations": 4, "unique_investigations": 3, "total_requests": 2, "unique_requests": 1}


@pytest.mark.parametrize(
    ("name", "report", "rows"),
    [
        (
            "tock",
            {
                "views": {"2015-01-23": 1},
                "downloads": {"csv": 2},
                "referers": {"a.example": 3},
                "totals": {"views": 1, "downloads": 2},
            },
            [
                *(["part", "label", "count"], ["views", "2015-01-23", "1"], ["downloads", "csv", "2"]),
                *(["referers", "a.example", "3"], ["totals", "views", "1"], ["totals", "downloads", "2"]),
            ],
        ),
        ("tock", {"views": {}, "downloads": {}, "referers": {}, "totals": {}}, [["part", "label", "count"]]),
        (
            "tock",
            {
                "items": {"a": {"views": {"2015": 1}, "downloads": {}, "referers": {}, "totals": {"views": 1}}},
                "totals": {"views": 1},
            },
            [["id", "part", "label", "count"], ["a", "views", "2015", "1"], ["a", "totals", "views", "1"]],
        ),
        ("items", {"items": []}, [["id", "views", "downloads"]]),
        (
            "items",
            {"items": [{"id": "a", "views": 1, "downloads": 2, "visitors": 3}]},
            [["id", "views", "downloads", "visitors"], ["a", "1", "2", "3"]],
        ),
        (
            "flow",
            {
                "sessions": 3,
                "entries": {"a": 3},
                "exits": {"b": 2},
                "transitions": [{"from": "a", "to": "b", "count": 2}],
            },
            [["from", "to", "count"], ["", "a", "3"], ["a", "b", "2"], ["b", "", "2"]],
        ),
        (
            "flow",
            {"sessions": 3, "entries": 1, "exits": 2, "previous": {"a": 2}, "next": {"c": 1}},
            [
                *(["part", "steps", "id", "count"], ["sessions", "", "", "3"], ["entries", "", "", "1"]),
                *(["exits", "", "", "2"], ["before", "1", "a", "2"], ["after", "1", "c", "1"]),
            ],
        ),
        (
            "flow",
            {
                "sessions": 3,
                "entries": 1,
                "exits": 2,
                "previous": {"a": 2},
                "next": {},
                "before": [{"a": 2}, {"x": 1}],
                "after": [{}, {}],
            },
            [
                *(["part", "steps", "id", "count"], ["sessions", "", "", "3"], ["entries", "", "", "1"]),
                *(["exits", "", "", "2"], ["before", "1", "a", "2"], ["before", "2", "x", "1"]),
            ],
        ),
        (
            "time",
            {
                "on_item": {"count": 2, "p50": 1.5, "p75": 2.0, "p95": 3.0},
                "timings": {"LCP": {"2015-01-22": {"count": 1, "p50": 4.0, "p75": 5.0, "p95": 6.0}}},
            },
            [
                *(["part", "day", "count", "p50", "p75", "p95"], ["on_item", "", "2", "1.5", "2.0", "3.0"]),
                ["LCP", "2015-01-22", "1", "4.0", "5.0", "6.0"],
            ],
        ),
        (
            "errors",
            {
                "days": {"2015-01-22": 2},
                "messages": [{"message": "=x", "count": 2, "sessions": 1, "first": "f", "last": "l"}],
                "browsers": [{"browser": "Firefox", "version": "140", "count": 2, "sessions": 1}],
                "session_share": 0.5,
                "items": [{"id": "a", "count": 2}],
            },
            [
                ["part", "label", "version", "count", "sessions", "first", "last"],
                ["day", "2015-01-22", "", "2", "", "", ""],
                ["message", "'=x", "", "2", "1", "f", "l"],
                ["browser", "Firefox", "140", "2", "1", "", ""],
                ["item", "a", "", "2", "", "", ""],
            ],
        ),
        (
            "recommendations",
            {"pairs": [{"items": ["a", "b"], "score": 1.5, "visitors": 5}]},
            [["id", "other_id", "score", "visitors"], ["a", "b", "1.5", "5"]],
        ),
        (
            "recommendations",
            {"items": [{"id": "a", "score": 1.5, "visitors": 5}]},
            [["id", "score", "visitors"], ["a", "1.5", "5"]],
        ),
        (
            "counter",
            {"months": {"2015-01": {**USAGE, "countries": {"CH": USAGE}, "machine": USAGE}}},
            [
                ["month", "part", "country", *USAGE],
                ["2015-01", "all", "", "4", "3", "2", "1"],
                ["2015-01", "all", "CH", "4", "3", "2", "1"],
                ["2015-01", "machine", "", "4", "3", "2", "1"],
            ],
        ),
    ],
)
def test_a_report_is_one_table(name: str, report: dict[str, Any], rows: list[list[str]]) -> None:
    columns, values = build_report_table(name, report)
    assert [*csv.reader(io.StringIO(encode_csv(columns, values).decode(), newline=""))] == rows
    objects = [orjson.loads(line) for line in encode_ndjson(columns, values).splitlines()]
    assert [[*each] for each in objects] == [rows[0]] * (len(rows) - 1)
    assert [[*each.values()] for each in objects] == [[*row] for row in values]


def test_pages_after_the_first_have_no_header() -> None:
    assert encode_csv(("a",), [("x, y",)]) == b'a\r\n"x, y"\r\n'
    assert encode_csv(("a",), [(None,), (1,)], header=False) == b'""\r\n1\r\n'
