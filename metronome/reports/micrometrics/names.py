"""The reports on what there is to ask for: tags, their values, and types.

Values are told as text, whatever they were: ``5`` and ``"5"`` are one, and of long texts only the beginning
counts.
"""

from itertools import count
from typing import Final

import orjson

from metronome.dialects.micrometrics.documents import tag_keys_field
from metronome.question import Answer, Question
from metronome.reports.micrometrics.filters import Asked
from metronome.reports.micrometrics.limits import MAX_ROWS, check_whole, too_much
from metronome.stores.store import Store

MAX_TAGS: Final = 1000
"""How many tags' values are listed at once."""
_AT_ONCE: Final = 20


async def tags(store: Store, asked: Asked) -> dict[str, list[str]]:
    """Answer which tags there are, each with its values, all sorted.

    Raises:
        Unaskable: there are too many.

    """
    names = await _tag_names(store, asked)
    if len(names) > MAX_TAGS:
        raise too_much(f"over {MAX_TAGS} tags")
    found: dict[str, list[str]] = {}
    for at in range(0, len(names), _AT_ONCE):
        here = names[at : at + _AT_ONCE]
        answers = await store.ask(*(_values(asked, f"tags.{name}") for name in here))
        found.update({name: _column(answer) for name, answer in zip(here, answers, strict=True)})
        if sum(map(len, found.values())) > MAX_ROWS:
            raise too_much(f"over {MAX_ROWS} values of tags")
    return found


async def tag_values(store: Store, asked: Asked, tag: str) -> list[str]:
    """Answer which values a tag has, sorted.

    Raises:
        Unaskable: there are too many.

    """
    (answer,) = await store.ask(_values(asked, f"tags.{tag}"))
    return _column(answer)


async def types(store: Store, asked: Asked) -> list[str]:
    """Answer which types there are, sorted.

    Raises:
        Unaskable: there are too many.

    """
    (answer,) = await store.ask(_values(asked, "event"))
    return _column(answer)


async def _tag_names(store: Store, asked: Asked) -> list[str]:
    """List the names of tags: documents name theirs together, those with many in several parts."""
    names: set[str] = set()
    for part in count():
        (answer,) = await store.ask(_values(asked, tag_keys_field(part)))
        if not answer.rows:
            break
        for text in _column(answer):
            names.update(_names_in(text))
    return sorted(names)


def _names_in(text: str) -> list[str]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        # An event of another protocol may bear these fields, too.
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _values(asked: Asked, field: str) -> Question:
    return Question(by=(field,), where=asked.where, start=asked.start, end=asked.end, limit=MAX_ROWS)


def _column(answer: Answer) -> list[str]:
    return [str(row[0]) for row in check_whole(answer).rows]
