"""Tables as CSV (RFC 4180) that is safe to open in a spreadsheet.

A text that a spreadsheet would evaluate as a formula gets a leading apostrophe: anyone can send events, and operators
open the results. Texts with semicolons and tabs are quoted, as in many countries spreadsheets split lines there.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

# Full-width characters start formulas, too, and some programs ignore what precedes them.
_FORMULA: Final = re.compile(r"[\t\r\n]|[\s\x00-\x1f\ufeff]*[-=+@＝＋－＠]")  # noqa: RUF001  # full-width characters
_QUOTED: Final = re.compile(r'[,;"\t\r\n]')


def format_csv(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return rows below the names of their columns; None is empty, and values other than texts are JSON."""
    return format_csv_rows((columns, *rows))


def format_csv_rows(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows without the names of their columns (see `format_csv`)."""
    return "".join(map(_format_row, rows))


def _format_row(row: Iterable[Any]) -> str:
    # A line without any character could be taken for none.
    return (",".join(map(_format_cell, row)) or '""') + "\r\n"


def _format_cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        text = orjson.dumps(value).decode()
    else:
        text = f"'{value}" if _FORMULA.match(value) and not _is_number(value) else value
    return '"{}"'.format(text.replace('"', '""')) if _QUOTED.search(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
