"""Every address that events are taken at over HTTP, and the protocol that is spoken there."""

from typing import Final, NamedTuple

from metronome.dialects import tick
from metronome.dialects.dialect import Dialect
from metronome.keys import Scope


class Address(NamedTuple):
    """One address and what is spoken at it.

    Attributes:
        method: of HTTP, in capitals; ``*`` for any.
        prefix: what all addresses of the protocol begin with; it is no part of what the dialect sees.
        path: the rest, with ``{name}`` or ``{name:pattern}`` for what varies.
        dialect: reads and answers what is sent there.
        scope: what a key must allow here.
        lenient: whether a key that is unknown counts as none, since trackers bring the key of another system.

    """

    method: str
    prefix: str
    path: str
    dialect: Dialect
    scope: Scope = Scope.TICK
    lenient: bool = False


TICK: Final = Address("POST", "", "/tick", tick)

PROTOCOLS: Final = (TICK,)
"""All addresses, those with fewer variables first."""
