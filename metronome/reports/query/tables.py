"""Answers as they are sent: JSON, CSV or lines of JSON."""

import orjson

from metronome.question import Answer
from metronome.reports.sheets import csv_text


def as_json(answer: Answer) -> bytes:
    """Write an answer as one object: its columns, its rows, how many rows there are, and whether it is exact."""
    return orjson.dumps({"columns": answer.columns, "rows": answer.rows, "total": answer.total, "exact": answer.exact})


def as_csv(answer: Answer) -> bytes:
    """Write an answer's rows under the names of its columns; what is none is empty."""
    return csv_text(answer.columns, answer.rows).encode()


def as_lines(answer: Answer) -> bytes:
    """Write each row as an object on a line of its own."""
    return b"".join(
        orjson.dumps(dict(zip(answer.columns, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE)
        for row in answer.rows
    )
