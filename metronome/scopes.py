"""Scopes: what a key may allow."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """One thing that a key may allow."""

    TICK = "tick"
    """Send events."""
    IMPORT = "import"
    """Send events of any age, and say where they came from."""
    TOCK = "tock"
    """Ask for the reports about one item."""
    QUERY = "query"
    """Ask for anything."""
    ADMIN = "admin"
    """Everything."""


_IMPLIED_SCOPES: Final[Mapping[Scope, frozenset[Scope]]] = {
    Scope.TICK: frozenset({Scope.TICK}),
    Scope.IMPORT: frozenset({Scope.IMPORT, Scope.TICK}),
    Scope.TOCK: frozenset({Scope.TOCK}),
    Scope.QUERY: frozenset({Scope.QUERY, Scope.TOCK}),
    Scope.ADMIN: frozenset(Scope),
}


def expand_scopes(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Return all that *scopes* allow: ``import`` also sends, ``query`` also asks for items, ``admin`` does all."""
    return frozenset().union(*(_IMPLIED_SCOPES[scope] for scope in scopes))
