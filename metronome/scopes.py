"""Scopes: what a key permits."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """A permission of a key."""

    TICK = "tick"
    """Send events."""
    IMPORT = "import"
    """Send events of any age, with any client IP address."""
    TOCK = "tock"
    """Read reports about items."""
    QUERY = "query"
    """Run any query."""
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
    """Return scopes and all they imply: ``import`` implies ``tick``, ``query`` implies ``tock``, ``admin`` all."""
    return frozenset().union(*(_IMPLIED_SCOPES[scope] for scope in scopes))
