"""CSV that spreadsheets open as it is meant."""

import csv
import io
from typing import Any

import pytest

from metronome.reports.csv import format_csv


@pytest.mark.parametrize(
    "text", ["=1+1", "  =1+1", "\t=1+1", "\x0b=1", "\ufeff@SUM(1)", "\uff1d1", "-2+3", "+1|' /C calc'!A0", "\rx", "\nx"]
)
def test_no_text_is_a_formula(text: str) -> None:
    assert format_csv(["name"], [[text]]).partition("\r\n")[2].removeprefix('"').startswith("'")


@pytest.mark.parametrize("text", ["", "a=b", "-2.5", "1e3", "'=1", "a b", "é"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert format_csv(["name", "number"], [[text, 1]]) == f"name,number\r\n{text},1\r\n"


@pytest.mark.parametrize("text", ["a,b", 'say "a"', "a;=1+1", "a\t=1+1", "a\r\nb"])
def test_texts_that_a_spreadsheet_would_split_are_quoted(text: str) -> None:
    written = format_csv(["name"], [[text]])
    assert written.startswith('name\r\n"')
    assert list(csv.reader(io.StringIO(written, newline=""))) == [["name"], [text]]


def test_other_values_are_json_and_nothing_is_empty() -> None:
    rows: list[list[Any]] = [[None, 1.5, ["a", 2], True], [-1, None, None, None]]
    assert format_csv(["a", "b", "c", "d"], rows) == 'a,b,c,d\r\n,1.5,"[""a"",2]",true\r\n-1,,,\r\n'
    assert format_csv(["a"], [[None]]) == 'a\r\n""\r\n'
