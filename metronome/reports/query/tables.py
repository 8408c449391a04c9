"""Answers as they are sent: JSON, CSV or lines of JSON.

In CSV (RFC 4180), a text that a spreadsheet would take for a formula gets an apostrophe before it: what strangers
send is opened there by people who trust their own service. Programs read the other forms, where texts stand as
they are.
"""

import csv
import io
from typing import Any, Final

import orjson

from metronome.question import Answer

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # some take these as well


def as_json(answer: Answer) -> bytes:
    """Write an answer as one object: its columns, its rows, how many rows there are, and whether it is exact."""
    return orjson.dumps({"columns": answer.columns, "rows": answer.rows, "total": answer.total, "exact": answer.exact})


def as_csv(answer: Answer) -> bytes:
    """Write an answer's rows under the names of its columns; what is none is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(map(_cell, answer.columns))
    writer.writerows(map(_cell, row) for row in answer.rows)
    return text.getvalue().encode()


def as_lines(answer: Answer) -> bytes:
    """Write each row as an object on a line of its own."""
    return b"".join(
        orjson.dumps(dict(zip(answer.columns, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
        for row in answer.rows
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return orjson.dumps(value).decode()
    return f"'{value}" if value.startswith(_FORMULA_STARTS) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
