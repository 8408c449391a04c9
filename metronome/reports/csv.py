"""Tables as CSV (RFC 4180) that is safe to open in a spreadsheet.

A text that a spreadsheet would evaluate as a formula gets a leading apostrophe: anyone can send events, and operators
open the results.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

import orjson

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # full-width characters start formulas, too


def format_csv(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return rows below the names of their columns; None is empty, and values other than texts are JSON."""
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
