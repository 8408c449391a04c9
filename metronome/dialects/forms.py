"""Flat fields as browsers write them, in a form's body or in an address: ``id=a&event=view``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from metronome.dialects.dialect import Reading
from metronome.errors import Malformed, TooLarge
from metronome.event import REPEATED, Event

_MAX_FIELDS: Final = 1000


def read_form(text: bytes) -> Reading:
    """Read an event that is written as a form."""
    try:
        pairs = parse_qsl(text.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return TooLarge(f"the form has over {_MAX_FIELDS} fields: send fewer, or send JSON")
    if not pairs or b"=" not in text:
        return Malformed("the form holds no field: send id=…&event=…")
    return marked(dict(pairs), [name for name, _ in pairs], text)


def marked(found: Mapping[str, Any], names: Sequence[str], text: bytes) -> Event:
    """Make an event of fields of which some may have been given twice: the last one counts, the text keeps all.

    Args:
        found: the fields.
        names: those of all fields that were given, in their order.
        text: what they were read from.

    """
    if len(names) == len(found):
        return Event(found, text)
    return Event({**found, REPEATED: sorted(name for name, times in Counter(names).items() if times > 1)}, text)
