"""Answers as they are sent."""

import csv
import io
from typing import Final

import orjson
import pytest

from metronome.reports.query.run import format_result_csv, format_result_json, format_result_ndjson
from metronome.stores.query import QueryResult

ANSWER: Final = QueryResult(("id", "count", "avg:a"), (("doc1", 9200, 12.5), ('a,"b"\né', 1, None)), 12, exact=False)


def test_json_has_columns_rows_total_and_exact() -> None:
    assert (
        format_result_json(ANSWER)
        == (
            '{"columns":["id","count","avg:a"],"rows":[["doc1",9200,12.5],["a,\\"b\\"\\né",1,null]],"total":12,"exact":false}'
        ).encode()
    )


def test_ndjson_has_one_object_per_row() -> None:
    assert [orjson.loads(line) for line in format_result_ndjson(ANSWER).splitlines()] == [
        {"id": "doc1", "count": 9200, "avg:a": 12.5},
        {"id": 'a,"b"\né', "count": 1, "avg:a": None},
    ]
    assert format_result_ndjson(QueryResult(("count",), (), 0)) == b""


def test_csv_round_trips() -> None:
    text = format_result_csv(ANSWER).decode()
    assert text == 'id,count,avg:a\r\ndoc1,9200,12.5\r\n"a,""b""\né",1,\r\n'
    assert [*csv.reader(io.StringIO(text, newline=""))][2] == ['a,"b"\né', "1", ""]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+41 44", "'+41 44"),
        ("-x", "'-x"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),  # noqa: RUF001  # that is the point
        ("-5.5", "-5.5"),
        ("+1e3", "+1e3"),
        ("a=b", "a=b"),
        ("'=1", "'=1"),
        ("", ""),
    ],
)
def test_csv_has_no_formulas(text: str, cell: str) -> None:
    written = format_result_csv(QueryResult((text, "count"), ((text, -1),), 1)).decode()
    assert [*csv.reader(io.StringIO(written, newline=""))] == [[cell, "count"], [cell, "-1"]]
    assert orjson.loads(format_result_json(QueryResult(("id",), ((text,),), 1)))["rows"] == [[text]]
