"""The reports of micro-metrics as CSV."""

import csv
import io
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import InvalidQuery
from metronome.protocols.micro_metrics.reports import (
    MAX_COLUMNS,
    encode_aggregate_csv,
    encode_count_csv,
    encode_documents_csv,
    encode_groups_csv,
    encode_unique_csv,
)

MEASURES = {"sum": 3, "avg": 1.5, "max": 2, "min": 1}


def document(**more: Any) -> bytes:
    fields = {"type": "a", "tags": {}, "fields": {}, "data": {}, "value": 1, "createdOn": "2017", **more}
    return orjson.dumps({**fields, "tagKeys": list(fields["tags"]), "_id": "x"})


def test_each_tag_field_and_name_in_data_is_a_column() -> None:
    documents = [
        document(tags={"b": 1, "a": "x,y"}, data={"plan": None, "n": [1]}, userId="u"),
        document(fields={"f": True}, value={"v": 1}, sessionId='s"1\n', createdOn="2018"),
    ]
    assert encode_documents_csv(documents) == (
        "type,tags.a,tags.b,fields.f,value,data.n,data.plan,userId,sessionId,createdOn,tagKeys\r\n"
        'a,"x,y",1,,1,[1],,u,,2017,"b,a"\r\n'
        'a,,,true,"{""v"":1}",,,,"s""1\n",2018,\r\n'
    )


def test_a_report_without_documents_has_a_header() -> None:
    assert encode_documents_csv([]) == "type,value,userId,sessionId,createdOn,tagKeys\r\n"


@pytest.mark.parametrize("text", ["=1+2", "+cmd|x", "-1+2", "@SUM(A1)", "\tx", "\r=1"])
def test_escapes_text_that_a_spreadsheet_would_evaluate(text: str) -> None:
    table = encode_documents_csv([document(type=text, tags={text: text}, value=text)])
    names, row = csv.reader(io.StringIO(table, newline=""))
    assert row == [f"'{text}", f"'{text}", f"'{text}", "", "", "2017", f"'{text}"]
    assert names[1] == f"tags.{text}"
    (names, *_) = csv.reader(io.StringIO(encode_groups_csv({text: []}), newline=""))
    assert names == ["Date", f"'{text}"]


@pytest.mark.parametrize("value", [-5, -0.5, "-5", "+1.5e3", "a=b"])
def test_does_not_escape_numbers(value: object) -> None:
    assert f"a,{value},,," in encode_documents_csv([document(value=value)])


def test_an_aggregate_has_a_row_for_each_period() -> None:
    rows = [{"dateString": "2017-04-26T00:00:00.000Z", "date": "1493164800000", **MEASURES}]
    assert encode_aggregate_csv(rows) == "Date,Sum,Avg,Max,Min\r\n2017-04-26T00:00:00.000Z,3,1.5,2,1\r\n"


@pytest.mark.parametrize(
    ("time", "cell"),
    [({}, "6/4/2017"), ({"hour": 7}, "6/4/2017 07:00"), ({"hour": 7, "minute": 5}, "6/4/2017 07:05")],
)
def test_groups_are_columns_and_share_rows(time: dict[str, int], cell: str) -> None:
    first = {"day": 6, "month": 4, "year": 2017, **time}
    later = {"day": 1, "month": 5, "year": 2017, **time}
    groups = {
        "yen": [{"_id": first, **MEASURES}, {"_id": later, **MEASURES}],
        "CHF": [{"_id": later, **MEASURES, "sum": 0.5}],
    }
    assert encode_groups_csv(groups) == (f"Date,CHF,Yen\r\n{cell},0,3\r\n{cell.replace('6/4', '1/5')},0.5,3\r\n")


def test_unique_values_have_lists_as_json() -> None:
    row = {"_id": "yen", "types": ["a"], "tags": [{"b": 1}], "values": [1, 2], "data": [], "count": 2}
    assert encode_unique_csv([row]) == (
        '_id,types,tags,values,data,count\r\nyen,"[""a""]","[{""b"":1}]","[1,2]",[],2\r\n'
    )


def test_a_count_is_one_cell() -> None:
    assert encode_count_csv(4) == "count\r\n4\r\n"


def test_rejects_a_table_with_too_many_columns() -> None:
    with pytest.raises(InvalidQuery, match="over 1000 columns"):
        encode_documents_csv([document(data=dict.fromkeys(map(str, range(MAX_COLUMNS + 1)), 1))])
    with pytest.raises(InvalidQuery, match="over 1000 columns"):
        encode_groups_csv({str(value): [] for value in range(MAX_COLUMNS + 1)})


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3), max_size=4))
def test_every_row_has_as_many_cells_as_the_header(tags_of_documents: list[dict[str, str]]) -> None:
    table = encode_documents_csv([document(tags=tags) for tags in tags_of_documents])
    names, *rows = csv.reader(io.StringIO(table, newline=""), strict=True)
    assert len(rows) == len(tags_of_documents)
    assert {len(row) for row in rows} <= {len(names)}
