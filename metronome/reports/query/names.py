"""Check the field names of a query, and suggest similar ones.

A query for a misspelt field is rejected instead of returning zeros.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import chain, islice
from typing import Final

from metronome.errors import InvalidQuery
from metronome.fields import FIELDS, QUERYABLE_FIELDS, TIMESTAMP_FIELDS, FieldType, is_top_level_name
from metronome.reports.parameters import excerpt
from metronome.reports.query.request import QUERY_PARAMETERS, ParsedQuery
from metronome.stores.base import LISTED_FIELDS_MAX, Store
from metronome.stores.query import TIME_UNITS

_TEXT_FIELDS: Final = frozenset(field.name for field in FIELDS if field.type is FieldType.TEXT)
_ITEM_NAMES: Final = frozenset({"item", "items", "item_id"})
"""What the docs call the field ``id``."""
_TIME_NAMES: Final = frozenset({*TIMESTAMP_FIELDS, "date", *TIME_UNITS})
_OTHER_TOP_LEVEL_NAMES: Final = _TIME_NAMES | {"params"}
_SUGGESTION_MAX_CANDIDATES: Final = 500
"""Senders may have stored any number of fields."""
_SUGGESTION_MAX_CHARACTERS: Final = 40
_MAX_SUGGESTIONS: Final = 3


class FieldChecker:
    """Rejects queries for fields that no event has.

    It knows the fields at the top level of documents: those of `metronome.fields`, and those that the store lists. Any
    other name may be that of a param, and passes; and so does every name once the store does not list all of them.

    Args:
        store: lists its fields.

    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stored_fields: frozenset[str] = frozenset()

    async def check(self, parsed_query: ParsedQuery) -> None:
        """Check the field names of a query.

        Raises:
            InvalidQuery: no event has such a field, or it is a text where the query needs numbers.

        """
        if texts := parsed_query.numeric_fields & _TEXT_FIELDS:
            raise InvalidQuery(
                f"the field {min(texts)!r} is a text: numeric metrics and bounds need a field with numbers"
            )
        if not self._unknown_fields(parsed_query):
            return
        # No list is recent enough to reject a name: an event that was acknowledged just now may have brought the field.
        self._stored_fields = await self._store.list_fields()
        if unknown := self._unknown_fields(parsed_query):
            raise self._unknown_field_error(min(unknown))

    def _unknown_fields(self, parsed_query: ParsedQuery) -> set[str]:
        if len(self._stored_fields) >= LISTED_FIELDS_MAX - len(QUERYABLE_FIELDS):
            # There may be more fields than the store lists.
            return set()
        names = parsed_query.fields - QUERYABLE_FIELDS - self._stored_fields
        return {name for name in names if is_top_level_name(name) or name in _OTHER_TOP_LEVEL_NAMES}

    def _unknown_field_error(self, name: str) -> InvalidQuery:
        if name in _TIME_NAMES:
            return InvalidQuery(f"no event has the field {name!r}: use from and to for a range, by=day for a series")
        if name in _ITEM_NAMES:
            return InvalidQuery(f"no event has the field {name!r} (did you mean id?)")
        suggestion = suggest_names(name, chain(QUERYABLE_FIELDS, QUERY_PARAMETERS, self._stored_fields))
        return InvalidQuery(f"no event has the field {excerpt(name)!r}{suggestion}")


def suggest_names(name: str, known: Iterable[str]) -> str:
    """Return the known names that are similar to one, as a question in parentheses; nothing if there are none."""
    if len(name) > _SUGGESTION_MAX_CHARACTERS:
        return ""
    candidates: dict[str, str] = {}
    for candidate in islice((other for other in known if len(other) <= 2 * len(name) + 2), _SUGGESTION_MAX_CANDIDATES):
        candidates.setdefault(candidate.casefold(), candidate)
    similar = [candidates[match] for match in get_close_matches(name.casefold(), candidates, _MAX_SUGGESTIONS)]
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""
