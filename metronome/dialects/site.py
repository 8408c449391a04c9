"""What the operator says of what they publish, as far as reading events depends on it."""

from dataclasses import dataclass, field

from metronome.dialects.items import ItemRule


@dataclass(frozen=True, slots=True)
class Site:
    """What is published, and where.

    Attributes:
        rule: finds the item in the path of a request.
        own_hosts: hosts whose referers do not count (see `metronome.enrich.referers.own_hosts`).

    """

    rule: ItemRule = field(default_factory=ItemRule)
    own_hosts: frozenset[str] = frozenset()
