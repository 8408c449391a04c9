"""Fields and filters as SQL: pure functions."""

import math
import re
import sys
from datetime import UTC, datetime
from typing import Final

from metronome.event import is_plain, param_name, param_value
from metronome.question import AllOf, AnyOf, Equals, Exists, Filter, Not, OneOf, Prefix, Range
from metronome.stores.duckdb.schema import COLUMNS

COUNTED_CHARACTERS: Final = 1024
"""A longer text counts as missing."""
ALWAYS_SHORT: Final = frozenset({"id", "event", "format", "referer", "bot"})
"""The door takes these only where they are short enough to be counted."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LISTED_MAX = 20
"""More values than these are one list, which costs no planning."""
_GREATEST = sys.float_info.max


def condition(where: Filter | None, start: datetime | None, end: datetime | None, values: list[object]) -> str:
    """Write a filter and a range of time as a condition, and append the values of its placeholders."""
    parts: list[str] = []
    if where is not None:
        parts.append(_filter(where, values))
    for moment, sign in ((start, ">="), (end, "<")):
        if moment is not None:
            parts.append(f"ts {sign} ?")
            values.append(moment.astimezone(UTC).replace(tzinfo=None))
    return " AND ".join(parts) or "true"


def text_of(name: str) -> str:
    """Write a field's text, as far as it is short enough to be counted."""
    return short_text(name, raw_text(name))


def short_text(name: str, raw: str) -> str:
    """Write a field's text, as far as it is short enough to be counted, where *raw* is all of it."""
    return raw if name in ALWAYS_SHORT else f"CASE WHEN length({raw}) <= {COUNTED_CHARACTERS} THEN {raw} END"


def raw_text(name: str) -> str:
    """Write a field's text, however long it is."""
    return f'"{name}"' if name in COLUMNS else f"json_extract_string(doc, {quoted(pointer_of(name))})"


def pointer_of(name: str) -> str:
    """Return where in a document a field stands."""
    if is_plain(name):
        return f"/{name}"
    sayable = _LONE_SURROGATE.sub("\ufffd", param_name(name))
    return "/params/" + sayable.replace("~", "~0").replace("/", "~1")


def quoted(text: str) -> str:
    """Write a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _filter(where: Filter, values: list[object]) -> str:  # noqa: PLR0911  # one for each kind
    match where:
        case Equals(name, value):
            return _one_of(name, (value,), values)
        case OneOf(name, options):
            return _one_of(name, options, values)
        case Prefix(name, text):
            return _prefix(name, text, values)
        case Exists(name):
            return f"{raw_text(name)} IS NOT NULL" if name in ALWAYS_SHORT else _is_short(name)
        case Range():
            return _range(where, values)
        case Not(Exists(name)) if name in ALWAYS_SHORT:
            return f"{raw_text(name)} IS NULL"
        case Not(inner):
            return f"NOT coalesce(({_filter(inner, values)}), false)"
        case AllOf(inners):
            return "(" + (" AND ".join(_filter(inner, values) for inner in inners) or "true") + ")"
        case AnyOf(inners):
            return "(" + (" OR ".join(_filter(inner, values) for inner in inners) or "false") + ")"


# A field of a document has to be looked for in its whole text: the conditions name it once, and what is
# asked of the length of its text last, of those that are left.


def _one_of(name: str, options: tuple[str, ...], values: list[object]) -> str:
    possible = _possible(name, options)
    if len(possible) > _LISTED_MAX:
        values.append(possible)
        return f"{raw_text(name)} IN (SELECT unnest(?::VARCHAR[]))"
    values.extend(possible)
    return f"{raw_text(name)} IN ({', '.join('?' * len(possible))})" if possible else "false"


def _prefix(name: str, text: str, values: list[object]) -> str:
    possible = _possible(name, (text,))
    values.extend(possible)
    return f"(starts_with({raw_text(name)}, ?) AND {_is_short(name)})" if possible else "false"


def _possible(name: str, options: tuple[str, ...]) -> list[str]:
    """Leave out what no document holds, since UTF-8 cannot say it, and ask in ``params`` for what stands there."""
    sayable = [option for option in options if option.isascii() or _LONE_SURROGATE.search(option) is None]
    stored = sayable if is_plain(name) else [param_value(option) for option in sayable]
    return [option for option in stored if len(option) <= COUNTED_CHARACTERS]


def _is_short(name: str) -> str:
    return f"length({raw_text(name)}) <= {COUNTED_CHARACTERS}"


def _range(where: Range, values: list[object]) -> str:
    bounds = (where.above, where.at_least, where.below, where.at_most)
    if not is_plain(where.field) or any(bound is not None and math.isnan(bound) for bound in bounds):
        return "false"
    # Numbers are finite, and DuckDB has NaN above all others.
    least, most = [-_GREATEST], [_GREATEST]
    if where.above is not None:
        least.append(math.nextafter(where.above, math.inf))
    if where.at_least is not None:
        least.append(float(where.at_least))
    if where.below is not None:
        most.append(math.nextafter(where.below, -math.inf))
    if where.at_most is not None:
        most.append(float(where.at_most))
    values += [max(least), min(most)]
    return f"(try_cast({raw_text(where.field)} AS DOUBLE) BETWEEN ? AND ? AND {_is_short(where.field)})"
