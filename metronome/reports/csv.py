"""Tables as CSV (RFC 4180), fit to be opened by a spreadsheet.

A text that a spreadsheet would take for a formula gets an apostrophe before it: what strangers send is opened there by
people who trust their own service.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

import orjson

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # some take these as well


def format_csv(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Write rows under the names of their columns; what is None is empty, and what is no text is as in JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(map(_format_cell, columns))
    writer.writerows(map(_format_cell, row) for row in rows)
    return text.getvalue()


def _format_cell(value: Any) -> str:
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
